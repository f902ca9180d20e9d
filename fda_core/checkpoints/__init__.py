"""Checkpoints in Hugging Face layout: headers first, tensors one at a time."""
