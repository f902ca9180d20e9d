"""The eight-task benchmark: real images, a real vision transformer, every method, one table."""
