"""Tiny checkpoints and other builders for the tests."""
