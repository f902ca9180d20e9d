"""Start processes, keep them running, end them in order: no service logic, only processes."""
