"""Seeds from (job seed, what they are for): order and retries change nothing."""

import hashlib


def derive(seed: int, *purpose: str | int) -> int:
    """Return a 63-bit seed for one purpose: SHA-256 of the seed and the words."""
    words = "\0".join([str(seed), *map(str, purpose)])
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big") >> 1
