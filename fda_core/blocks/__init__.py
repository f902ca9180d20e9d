"""One layer of a transformer as a function of its parameters and its input."""
