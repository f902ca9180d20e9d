"""The documentation pages, from files of our own."""
