"""mergekit's settings: scalars, gradients over the layers, and values for filtered tensors.

Read as mergekit 0.1.5 reads them: of a list of conditions the first whose filter is part of
the tensor's name counts; where none is, the next wider scope is asked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fda_core.errors import BadParameter

Scalar = bool | int | float | str
Words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A value for the tensors whose names contain `filter`, or for all."""

    filter: str | None
    value: Scalar | tuple[Scalar, ...]
    """One value, or a gradient over the layers."""


Chain = tuple[Choice, ...]
"""Choices of which the first that fits counts; nothing follows one that always fits."""


def read_setting(setting: object, where: str) -> Chain:
    """Return the choices of one setting, or raise `BadParameter` naming its place."""
    if isinstance(setting, Mapping):
        setting = [setting]
    if isinstance(setting, list) and setting and all(isinstance(s, Mapping) for s in setting):
        found = [_condition(item, f"{where}.{k}") for k, item in enumerate(setting)]
        return _reachable(found)
    return (Choice(filter=None, value=_value(setting, where)),)


def chained(scopes: Sequence[Chain]) -> Chain:
    """Return the choices of several scopes, narrowest first, as one chain."""
    return _reachable([choice for scope in scopes for choice in scope])


def is_complete(chain: Chain) -> bool:
    """Say whether a chain has a value for every tensor."""
    return bool(chain) and chain[-1].filter is None


def number(value: Scalar, where: str) -> float:
    """Return a number as mergekit takes it: also from text such as 1e-3."""
    try:
        found = float(value)
    except ValueError:
        raise _refused(value, where, "a number") from None
    if found != found or found in (float("inf"), float("-inf")):
        raise _refused(value, where, "a finite number")
    return found


def integer(value: Scalar, where: str) -> int:
    """Return a whole number."""
    found = number(value, where)
    if not found.is_integer():
        raise _refused(value, where, "a whole number")
    return int(found)


def flag(value: Scalar, where: str) -> bool:
    """Return true or false, also from 0, 1 and the usual words."""
    found = Words.get(value.lower()) if isinstance(value, str) else value
    if found not in (0, 1):
        raise _refused(value, where, "true or false")
    return bool(found)


def _condition(item: Mapping[str, Any], where: str) -> Choice:
    for key in item:
        if key not in ("filter", "value"):
            raise BadParameter(
                f"{where}: a condition has no {key!r}",
                hint="Write {filter: part of a tensor's name, value: ...}.",
                key=f"{where}.{key}",
            )
    wanted = item.get("filter")
    if wanted is not None and not isinstance(wanted, str):
        raise _refused(wanted, f"{where}.filter", "part of a tensor's name")
    everything = wanted in (None, "*", "")
    value = _value(item.get("value"), f"{where}.value")
    return Choice(filter=None if everything else wanted, value=value)


def _value(value: object, where: str) -> Scalar | tuple[Scalar, ...]:
    if isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, list) and value and all(isinstance(v, Scalar) for v in value):
        return tuple(value)
    raise _refused(value, where, "a value, a list of values, or conditions with filter and value")


def _reachable(choices: Sequence[Choice]) -> Chain:
    found: list[Choice] = []
    for choice in choices:
        found.append(choice)
        if choice.filter is None:
            break
    return tuple(found)


def _refused(value: object, where: str, wanted: str) -> BadParameter:
    return BadParameter(
        f"{where}: {value!r} is not {wanted}",
        hint="See mergekit's documentation of parameters.",
        key=where,
    )
