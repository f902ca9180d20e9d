"""The typed client of the REST surface."""
