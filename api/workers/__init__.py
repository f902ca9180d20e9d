"""Workers and the queues they take from."""
