"""Random numbers from (job seed, what they are for): order and retries change nothing."""

import hashlib

import torch


def derive(seed: int, *purpose: str | int) -> int:
    """Return a 63-bit seed for one purpose: SHA-256 of the seed and the words."""
    words = "\0".join([str(seed), *map(str, purpose)])
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """Return a CPU generator for one purpose."""
    return torch.Generator().manual_seed(derive(seed, *purpose))
