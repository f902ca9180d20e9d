"""Weak entity tags: a resource's version, which every change that readers see counts up."""

import re

_TAG = re.compile(r'(?:W/)?"([^"]*)"')


def tag_of(version: int) -> str:
    """Return the ETag of a version."""
    return f'W/"{version}"'


def matches(header: str, version: int) -> bool:
    """Say whether If-Match or If-None-Match names a version; compared weakly, `*` is any."""
    return header.strip() == "*" or str(version) in _TAG.findall(header)
