"""What neither databases nor logs keep."""

import json


def stored_text(value: object) -> str:
    """Return plain data as the JSON text it is kept as.

    Raises `ValueError`, whose text says what of it cannot be kept: NaN, infinity, halves of
    characters, NUL, or lists in lists without end.
    """
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("a text in it has half a character (a lone surrogate)") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError:
        raise ValueError("a number in it is NaN or infinity") from None
    if _has_nul(text):
        raise ValueError("a text in it has a NUL character")
    return text


def _has_nul(text: str) -> bool:
    """Say whether a JSON text has a NUL character, not just the six that would stand for one."""
    return "\\u0000" in text.replace("\\\\", "")
