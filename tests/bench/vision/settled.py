"""What a merge's recipe means today, so that a result made under other defaults is not taken.

A merge is kept by its recipe, which says only what is not default. A result therefore has the
settled recipe beside it: every parameter written out, those of the start and of a preset too, and
the experts in order, since some methods count them. A parameter that a result does not know came
after it and is no reason to merge again: what is new is off by default.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from fda_core.contract.recipe import MethodSpec
from fda_core.methods.fda import Fda
from fda_core.methods.fda_presets import adapt_rate
from fda_core.methods.registry import resolve

READS = "image"
"""What the suite's models take in: rates of adaptation hang on it."""


def settled(method: Mapping[str, Any], experts: Sequence[str]) -> dict[str, Any]:
    """Return a recipe's method with every default written out, and its experts, as plain data."""
    found = resolve(MethodSpec.model_validate(dict(method)))
    parameters = found.parameters.model_dump(mode="json", by_alias=True)
    if isinstance(found, Fda):
        if found.start is not None:
            parameters["start"] |= found.start.parameters.model_dump(mode="json", by_alias=True)
        construct = found.parameters.construction.settled()
        parameters["construct"] = construct.model_dump(mode="json")
        if parameters["adapt"]["learning_rate"] is None:
            start = found.parameters.start.name
            parameters["adapt"]["learning_rate"] = adapt_rate(
                found.parameters.preset, start=start, reads=READS
            )
    return {"method": {"name": found.name, **parameters}, "experts": list(experts)}


def is_other(then: Any, now: Any) -> bool:
    """Say whether anything that was settled then is settled otherwise now, or is no more."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        return any(key not in now or is_other(value, now[key]) for key, value in then.items())
    return bool(then != now)
