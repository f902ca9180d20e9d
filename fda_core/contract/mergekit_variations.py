"""Filters and gradients as entries of `vary`."""

from typing import Any

from fda_core.contract.mergekit_settings import Chain

Key = tuple[str, ...]
"""("set", parameter), ("weights", expert) or ("experts", expert, parameter)."""


class Variations:
    """Collects the entries; different keys share those for the same tensors."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []

    def put(self, chain: Chain, key: Key) -> Any:
        """Return a chain's value for all tensors; what else it says goes into entries.

        Of a chain the first choice that
        fits counts, of `vary` the last entry. The value of a gradient is its first, which
        tensors outside the layers get.
        """
        default = chain[-1].value
        found: list[tuple[str | None, Any]] = []
        if isinstance(default, tuple) and len(set(default)) > 1:
            found.append((None, default))
        found += [(choice.filter, choice.value) for choice in reversed(chain[:-1])]
        place = 0
        for wanted, value in found:
            written = {"gradient": list(value)} if isinstance(value, tuple) else value
            place = self._add(wanted, key, written, after=place)
        return default[0] if isinstance(default, tuple) else default

    def _add(self, wanted: str | None, key: Key, value: Any, *, after: int) -> int:
        """Put a value into the next entry for the same tensors; return the place behind it."""
        selector = {} if wanted is None else {"tensors": _pattern(wanted)}
        for place in range(after, len(self.entries)):
            entry = self.entries[place]
            if entry.get("tensors") == selector.get("tensors"):
                _put(entry, key, value)
                return place + 1
        self.entries.append(_put({**selector}, key, value))
        return len(self.entries)


def _put(entry: dict[str, Any], key: Key, value: Any) -> dict[str, Any]:
    """Put a value into an entry, in place, and return the entry."""
    here = entry
    for part in key[:-1]:
        here = here.setdefault(part, {})
    here[key[-1]] = value
    return entry


def _pattern(part: str) -> str:
    """Return the shell pattern of all names that contain a text."""
    return "*" + "".join(f"[{c}]" if c in "*?[" else c for c in part) + "*"
