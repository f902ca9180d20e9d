"""Numbers read from shapes and settings."""

from collections.abc import Mapping, Sequence


def numel(shape: Sequence[int]) -> int:
    """Return the number of elements of a shape."""
    count = 1
    for axis in shape:
        count *= axis
    return count


def attention_heads(settings: Mapping[str, object]) -> int:
    """Return the number of attention heads a tower's settings name, 1 if none."""
    return _first_count(settings, "num_attention_heads", "n_heads", "n_head") or 1


def attention_width(settings: Mapping[str, object], *, width: int) -> int:
    """Return the width of all heads' queries together."""
    head = _first_count(settings, "head_dim")
    return head * attention_heads(settings) if head else width


def _first_count(settings: Mapping[str, object], *keys: str) -> int | None:
    for key in keys:
        value = settings.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None
