"""The `fda` command."""
