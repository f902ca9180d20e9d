"""Keys as random numbers: what is shown, and what is kept of it."""

import hashlib
import secrets

PREFIX = "fda_"
SHOWN = 12


def new_key() -> str:
    """Return a new key: 256 random bits after a prefix that secret scanners can look for."""
    return PREFIX + secrets.token_urlsafe(32)


def hash_of(key: str) -> str:
    """Return what is kept of a key. It has 256 random bits, so a plain hash is enough."""
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def prefix_of(key: str) -> str:
    """Return how a key begins, for telling keys apart."""
    return key[:SHOWN]
