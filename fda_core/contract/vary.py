"""`vary`: other parameters or weights for some layers and tensors of one merge."""

import operator
import sys
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)


def _tuple_of_list(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class _Part(BaseModel):
    """As strict as the recipe these are part of."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Gradient(_Part):
    """A value that changes from the first layer to the last."""

    gradient: Annotated[
        tuple[bool | int | float | str, ...], Field(min_length=1), BeforeValidator(_tuple_of_list)
    ]
    """Evenly spaced over the layers. Numbers are joined by straight lines, words by steps."""

    @field_validator("gradient")
    @classmethod
    def _is_finite(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        for value in values:
            if isinstance(value, int) and abs(value) > sys.float_info.max:
                raise ValueError(f"a number of {len(str(abs(value)))} digits is too large")
        return values

    def at(self, depth: float) -> Any:
        """Return the value at a depth from 0, the first layer, to 1, the last."""
        values = self.gradient
        scaled = depth * (len(values) - 1)
        before = int(scaled)
        if any(isinstance(value, (bool, str)) for value in values):
            return values[before]
        after = min(len(values) - 1, before + 1)
        share = scaled - before
        value = (1 - share) * float(values[before]) + share * float(values[after])
        whole = all(isinstance(value, int) for value in values)
        return int(value) if whole and value.is_integer() else value


class Variation(_Part):
    """What some tensors get instead: those in `layers` whose names match `tensors`."""

    layers: Annotated[
        tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]] | None,
        BeforeValidator(_tuple_of_list),
    ] = Field(default=None, description="First and last layer, from 0; every tensor if left out.")
    tensors: str | None = Field(
        default=None,
        min_length=1,
        description="Shell pattern of whole tensor names; '*' also matches dots.",
    )
    set: dict[str, Any] = Field(
        default_factory=dict, description="Parameters of the method, as values or gradients."
    )
    weights: dict[str, float | Gradient] = Field(
        default_factory=dict, description="Weights of experts by name, as values or gradients."
    )
    experts: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        exclude_if=operator.not_,
        description="Parameters for one expert alone, by its name, as values or gradients.",
    )

    @field_validator("set", mode="before")
    @classmethod
    def _gradients(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {key: _gradient(key, item) for key, item in value.items()}

    @field_validator("weights")
    @classmethod
    def _weights_are_numbers(cls, value: Any) -> Any:
        for name, weight in value.items():
            given = weight.gradient if isinstance(weight, Gradient) else ()
            if any(isinstance(each, (bool, str)) for each in given):
                raise ValueError(f"the weight of {name} goes over {list(given)}; write numbers")
        return value

    @field_validator("experts", mode="before")
    @classmethod
    def _gradients_of_each(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {name: cls._gradients(given) for name, given in value.items()}

    @model_validator(mode="after")
    def _makes_sense(self) -> "Variation":
        if not (self.set or self.weights or any(self.experts.values())):
            raise ValueError("give set:, weights: or experts:, else nothing varies")
        if self.layers is not None and self.layers[0] > self.layers[1]:
            raise ValueError(f"layers: {list(self.layers)} ends before it begins")
        return self


def _gradient(key: str, item: Any) -> Any:
    if not isinstance(item, Mapping):
        return item
    try:
        return Gradient.model_validate(item)
    except ValidationError:
        raise ValueError(
            f"{key} is {dict(item)!r}; write a value, or {{gradient: [first, ..., last]}}"
        ) from None


def value_at(value: Any, depth: float) -> Any:
    """Return a value, or a gradient's value at a depth between 0 and 1."""
    return value.at(depth) if isinstance(value, Gradient) else value
