"""The merge methods and their parameters."""
