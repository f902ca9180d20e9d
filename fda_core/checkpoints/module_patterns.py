"""Settings by module, as PEFT's `rank_pattern` and `alpha_pattern` give them.

A key is a regular expression for the end of a module's path, at a dot; the first key that
matches counts (`peft.utils.other.get_pattern_key`, PEFT 0.21). The expressions come from
strangers and Python's engine can be made to run for ever, so only such are taken as cannot:
no repeated groups, no references, no look-around, at most `MAX_REPEATS` repeats. Nor what
Python means to read as set operations one day. Imports no torch.
"""

import re
from collections.abc import Mapping
from typing import Final

from fda_core.checkpoints.header import shown
from fda_core.errors import UnsupportedAdapter

MAX_REPEATS: Final = 2
MAX_LENGTH: Final = 300

_DANGEROUS: Final = re.compile(r"\)[*+{]|\\[1-9]|\(\?(?!:)|\[\[|--|&&|~~|\|\|")
_REPEAT: Final = re.compile(r"[*+{]")


class ModulePatterns:
    """Numbers by module: those of the first pattern that matches, else the default."""

    def __init__(self, table: Mapping[str, float], *, default: float, key: str, where: str) -> None:
        self._default = default
        self._table = [(_compiled(text, key, where), value) for text, value in table.items()]

    def __call__(self, module: str) -> float:
        """Return the number for a module, by its path in the model."""
        for pattern, value in self._table:
            if pattern.match(module):
                return value
        return self._default


def _compiled(text: str, key: str, where: str) -> re.Pattern[str]:
    if len(text) > MAX_LENGTH or len(_REPEAT.findall(text)) > MAX_REPEATS:
        raise _refused(text, key, where, f"is longer or repeats more than {MAX_REPEATS} times")
    if _DANGEROUS.search(text):
        raise _refused(text, key, where, "repeats a group, refers back, looks around or nests sets")
    try:
        return re.compile(rf"(.*\.)?({text})$")
    except re.error as problem:
        raise _refused(text, key, where, f"is no regular expression ({problem})") from None


def _refused(text: str, key: str, where: str, what: str) -> UnsupportedAdapter:
    return UnsupportedAdapter(
        f"{where}: {key} has {shown(text)}, which {what}",
        hint="Name the modules plainly, as in 'layers.0.self_attn.q_proj'.",
        uri=where,
        key=key,
    )
