"""File systems bound the length of a name, S3 of a key; what lies beside an output has longer ones.

Asked when planning: it would show at the first thing written there, and for one file made of
parts that is publishing, hours later.
"""

import os
from pathlib import Path

from fda_core.contract.plan import Plan
from fda_core.contract.uris import basename, parent, scheme
from fda_core.engine import layout
from fda_core.errors import RecipeError

USUAL_BYTES = 255
MOST_KEY_BYTES = 1024
"""S3's own limit."""


def check_output_name(plan: Plan) -> None:
    """Refuse an output whose name leaves no room for the names that are made of it."""
    if scheme(plan.output) == "file":
        _check_name(plan)
    else:
        _check_key(plan)


def _check_key(plan: Plan) -> None:
    longest = layout.longest_written(plan)
    excess = len(_key(longest)) - MOST_KEY_BYTES
    if excess > 0:
        raise RecipeError(
            f"the output's key has {len(_key(plan.output))} bytes, {excess} too many: keys made of "
            f"it, such as …/{basename(longest)}, may have {MOST_KEY_BYTES}",
            hint="Give the output a shorter address.",
            key="output",
            output=plan.output,
        )


def _key(uri: str) -> bytes:
    """Return an object's key, as S3 counts it."""
    return uri.partition("://")[2].partition("/")[2].encode()


def _check_name(plan: Plan) -> None:
    most = _most_bytes(parent(plan.output))
    name, longest = (_length(uri) for uri in (plan.output, layout.longest_beside(plan)))
    if longest > most:
        raise RecipeError(
            f"the output's name {basename(plan.output)!r} has {name} bytes, {longest - most} too "
            f"many: names beside it are made of it, and they may have {most}",
            hint="Give the output a shorter last part.",
            key="output",
            output=plan.output,
        )


def _length(uri: str) -> int:
    return len(os.fsencode(basename(uri)))


def _most_bytes(folder: str) -> int:
    """Return the longest name that a folder, or the nearest one above that is there, may hold."""
    while folder != parent(folder) and not Path(folder).is_dir():
        folder = parent(folder)
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except OSError:
        return USUAL_BYTES
