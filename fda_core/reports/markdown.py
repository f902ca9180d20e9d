"""Markdown from strings that may hold anything."""

import re
from collections.abc import Sequence

_SPECIAL = re.compile(r"([\\`*\[\]<>|])")


def plain(text: str) -> str:
    """Return a text that shows as it is: one line, special signs escaped."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def code(text: str) -> str:
    """Return a text in code type, fit for a table; backticks become apostrophes."""
    flat = " ".join(text.split()).replace("`", "'").replace("|", "\\|")
    return f"`{flat}`" if flat else ""


def block(language: str, text: str) -> str:
    """Return lines of code in a fence longer than any inside them."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, words: int = 1) -> str:
    """Return a table; the first `words` columns align left, numbers right.

    Cells are markdown already.
    """
    rule = ["---" if column < words else "---:" for column in range(len(head))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))
