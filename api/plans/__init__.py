"""Look at a recipe without queueing anything."""
