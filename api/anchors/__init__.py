"""The anchor cache: what is there, and removing it."""
