"""The table of mergekit's methods, and the methods of ours that it does not have."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any, Literal

from fda_core.contract.mergekit_settings import Scalar, flag, integer, number

READ = {"number": number, "integer": integer, "flag": flag}


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One of mergekit's parameters in our terms."""

    ours: str | None = None
    """Our parameter, "weight" for experts' weights, None where it changes no result."""
    kind: Literal["number", "integer", "flag", "any"] = "any"
    default: Scalar | None = None
    each: bool = False
    """Whether it is read per model."""
    words: tuple[str, str] | None = None
    """Our words for true and false."""
    only: bool | None = None
    """The one value that can be carried out."""
    optional: bool = False
    """Whether it may be left out without a default, which is then ours."""

    def read(self, value: Scalar, where: str) -> Scalar:
        """Return a value as our recipes have it."""
        if self.kind == "any":
            return value
        found: Scalar = READ[self.kind](value, where)
        return found if self.words is None else self.words[0 if found else 1]


@dataclass(frozen=True, kw_only=True)
class MergekitMethod:
    """How a `merge_method` is said here."""

    name: str
    base: Literal["required", "first", "optional", "input"] = "required"
    at_least: int = 1
    at_most: int | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict)
    with_base: Mapping[str, Any] = field(default_factory=dict)
    without_base: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Parameter] | None = None
    """By mergekit's names; None for a method of ours, whose parameters are taken as named."""

    def parameter(self, name: str) -> Parameter | None:
        """Return a parameter by its name in the document."""
        if self.parameters is not None:
            return self.parameters.get(name)
        if name == "weight":
            return Parameter(ours="weight", kind="number", default=1.0, each=True)
        return Parameter(ours=name, each=True, optional=True)


@cache
def table() -> Mapping[str, MergekitMethod]:
    """Return mergekit's methods that can be said here, by name."""
    text = resources.files(__package__).joinpath("mergekit.toml").read_text(encoding="utf-8")
    return {name: _method(name, row) for name, row in tomllib.loads(text).items()}


def parameters_of_any() -> frozenset[str]:
    """Return the name of every parameter that some method of mergekit has."""
    return frozenset(name for method in table().values() for name in method.parameters or ())


def _method(name: str, row: Mapping[str, Any]) -> MergekitMethod:
    bounds = [*row["models"], None]
    return MergekitMethod(
        name=name,
        base=row["base"],
        at_least=bounds[0],
        at_most=bounds[1],
        fixed=row.get("fixed", {}),
        with_base=row.get("with_base", {}),
        without_base=row.get("without_base", {}),
        parameters={key: _parameter(value) for key, value in row["parameters"].items()},
    )


def _parameter(row: Mapping[str, Any]) -> Parameter:
    words = row.get("words")
    return Parameter(**{**row, "words": tuple(words) if words else None})
