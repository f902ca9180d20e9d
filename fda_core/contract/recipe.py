"""The recipe: the declarative document that describes one merge.

Structure and ranges are checked here; whether a method exists and takes its parameters is
the registry's business, and whether the checkpoints fit is the plan's.
"""

import difflib
import math
import operator
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from fda_core.contract.vary import Variation
from fda_core.errors import BadParameter, DuplicateExpert, NoExperts, RecipeError, UnknownKey

ComputeDtype = Literal["float32", "float64"]
OutputDtype = Literal["as_base", "float32", "float64", "float16", "bfloat16"]

T = TypeVar("T", bound=BaseModel)

EXPERT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Document(BaseModel):
    """Base of everything a user writes: no unknown keys, no silent conversions, no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Expert(Document):
    """One fine-tuned checkpoint."""

    name: str = Field(description="How the expert is called in reports and file names.")
    model: str = Field(min_length=1, description="Folder, file:// or s3:// of the checkpoint.")
    weight: float = Field(default=1.0, description="For methods that weigh experts.")
    parameters: dict[str, Any] = Field(
        default_factory=dict,
        exclude_if=operator.not_,
        description="Parameters of the method, or of FDA's start, for this expert alone.",
    )

    @model_validator(mode="after")
    def _name_is_safe(self) -> "Expert":
        if not EXPERT_NAME.fullmatch(self.name):
            raise ValueError(
                f"expert name {self.name!r} may have letters, digits, '.', '_' and '-', "
                "1 to 64 of them, and starts with a letter or digit"
            )
        if self.name.lower() == "base":
            raise ValueError("no expert may be called 'base': reports call the base so")
        return self


class MethodSpec(Document):
    """A method's name and the parameters given for it, not yet checked against the method."""

    name: str = Field(min_length=1)
    parameters: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _flat_form(cls, value: Any) -> Any:
        """Accept `ties` and `{name: ties, density: 0.2}`."""
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, Mapping) and "name" in value:
            if set(value) == {"name", "parameters"} and isinstance(value["parameters"], Mapping):
                return {"name": value["name"], "parameters": dict(value["parameters"])}
            given = {key: item for key, item in value.items() if key != "name"}
            return {"name": value["name"], "parameters": given}
        return value


class DtypePolicy(Document):
    """In which dtype to compute, and which to write."""

    compute: ComputeDtype = "float32"
    output: OutputDtype = "as_base"


class Recipe(Document):
    """One merge: base, experts, method and output."""

    base: str = Field(min_length=1, description="The pretrained checkpoint of all experts.")
    experts: tuple[Expert, ...] = Field(description="The fine-tuned checkpoints.")
    method: MethodSpec
    vary: tuple[Variation, ...] = Field(
        default=(),
        description="Other parameters or weights for some layers and tensors; of two entries "
        "that say something of one tensor, the later one counts.",
    )
    layers: int | None = Field(
        default=None, ge=1, description="Refuse a base that has not this many layers."
    )
    notes: tuple[str, ...] = Field(
        default=(), description="Remarks that plan and manifest show; they change nothing."
    )
    outside: Literal["base", "average", "start"] = Field(
        default="start",
        description="Tensors in no layer: the base's, the experts' mean, or what the method "
        "(for FDA: its start) makes of them.",
    )
    heads: Literal["keep", "drop"] = Field(
        default="keep", description="Task heads are never merged: write them aside, or not."
    )
    vocabulary: Literal["refuse", "base"] = Field(
        default="refuse",
        description="Experts whose embeddings have more or fewer rows than the base's: refuse "
        "them, or keep the base's rows and take theirs as far as both have them.",
    )
    dtype: DtypePolicy = DtypePolicy()
    seed: int = Field(default=0, ge=0, lt=2**63)
    shard_size: int = Field(
        default=512 * 2**20,
        ge=10**6,
        le=2**40,
        description="Bytes; below it the output is one file, above it shards of about it.",
    )
    output: str | None = Field(default=None, min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _lists_are_tuples(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            value = dict(value)
            for key in ("experts", "vary", "notes"):
                if isinstance(value.get(key), list):
                    value[key] = tuple(value[key])
        return value

    @field_validator("shard_size", mode="before")
    @classmethod
    def _size_in_words(cls, value: Any) -> Any:
        return _bytes(value) if isinstance(value, str) else value


_SIZE = re.compile(r"^(\d+(?:\.\d+)?)\s*([KMGT]i?)?B?$", re.IGNORECASE)


def _bytes(text: str) -> int:
    match = _SIZE.match(text.strip())
    if not match:
        raise ValueError(f"{text!r} is not a size; write 512MB or 2GiB")
    unit = (match.group(2) or "").lower()
    step = 1024 if unit.endswith("i") else 1000
    power = " kmgt".index(unit[0]) if unit else 0
    size = float(match.group(1)) * step**power
    if math.isinf(size):
        raise ValueError(f"{_short(text)} is larger than any disk; write 512MB or 2GiB")
    return int(size)


def parse_recipe(document: object) -> Recipe:
    """Return the recipe a document describes, or raise the first thing wrong with it.

    Raises `UnknownKey` with the nearest known key, `BadParameter` with the place and the
    value, `DuplicateExpert`, `NoExperts` or `RecipeError`.
    """
    if not isinstance(document, Mapping):
        raise RecipeError(
            f"a recipe is a mapping of keys to values, not {type(document).__name__}",
            hint="Start with base:, experts:, method: and output:.",
        )
    recipe = checked(Recipe, document)
    if not recipe.experts:
        raise NoExperts("the recipe names no experts", hint="Give at least one under experts:.")
    seen: set[str] = set()
    for expert in recipe.experts:
        if expert.name.lower() in seen:
            raise DuplicateExpert(
                f"two experts are called {expert.name!r} (upper and lower case are not told "
                "apart, since names become file names)",
                hint="Give each expert a name of its own.",
                expert=expert.name,
            )
        seen.add(expert.name.lower())
    return recipe


def checked(model: type[T], values: Mapping[str, Any], *, where: str = "") -> T:
    """Validate `values`, turning pydantic's complaints into one named error."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as problem:
        raise _named(problem, model, where) from None


def _named(problem: ValidationError, model: type[BaseModel], where: str) -> RecipeError:
    """Return the most telling of pydantic's complaints as one of ours, the others with it.

    Unknown keys come first: a misspelt key usually explains the missing one beside it.
    """
    found = problem.errors(include_url=False)
    found.sort(key=lambda item: item["type"] != "extra_forbidden")
    complaints = tuple(_complaint(item, model, where) for item in found)
    complaints[0].complaints = complaints
    return complaints[0]


def _complaint(item: ErrorDetails, model: type[BaseModel], where: str) -> RecipeError:
    """Return one complaint with the place, the value and the nearest known key."""
    place = ".".join([where, *map(str, item["loc"])] if where else map(str, item["loc"]))
    if item["type"] == "extra_forbidden":
        key = str(item["loc"][-1])
        known = sorted(_keys_at(model, item["loc"][:-1]))
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        meant = f"Did you mean {near[0]!r}? " if near else ""
        return UnknownKey(
            f"{place}: there is no such key",
            hint=f"{meant}Known here: {', '.join(known)}.",
            key=place,
        )
    given = item.get("input")
    named = item["type"] in ("missing", "value_error")  # our own words have the value in them
    shown = "" if named else f", not {_short(given)}"
    message = _WANTED.get(item["type"], item["msg"].removeprefix("Value error, "))
    if message[1:2].islower():
        message = message[:1].lower() + message[1:]
    return BadParameter(
        f"{place or 'recipe'}: {message}{shown}", hint=_advice(item, place), key=place
    )


_WANTED = {
    "model_type": "input should be a mapping of keys to values",
    "tuple_type": "input should be a list",
}
"""What a document needs, where pydantic names Python's types."""


def _advice(item: ErrorDetails, place: str) -> str:
    """Return where to read on, or how to write what was meant."""
    if item["type"] == "string_type" and isinstance(item.get("input"), (bool, int, float)):
        return "Put it in quotes: YAML reads it as a number or as true or false."
    if place.startswith("experts") and item["type"] in ("missing", "model_type", "tuple_type"):
        return "Write experts as in: [{name: news, model: models/bert-news}]."
    if place == "dtype":
        return "Write it as in: {output: bfloat16}."
    if place.split(".")[0] in ("method", "vary") or ".parameters" in place:
        return "See `fda methods` for parameters and their ranges."
    return "The README's table of the recipe says what each key takes."


def _short(value: object) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _keys_at(model: type[BaseModel], path: tuple[int | str, ...]) -> Iterator[str]:
    """Yield the keys known at a place inside a model; unknown places yield the top's."""
    current: Any = model
    for step in path:
        if isinstance(step, int) or not _is_model(current):
            continue
        field = _field(current, step)
        current = _model_in(field.annotation) if field else None
        if current is None:
            break
    at = current if _is_model(current) else model
    yield from (field.alias or name for name, field in at.model_fields.items())


def _field(model: Any, key: str) -> Any:
    """Return a model's field by the name users write."""
    for name, field in model.model_fields.items():
        if key == (field.alias or name):
            return field
    return None


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _model_in(annotation: Any) -> Any:
    """Return the first model inside an annotation such as `tuple[Expert, ...]`."""
    if _is_model(annotation):
        return annotation
    for part in getattr(annotation, "__args__", ()):
        found = _model_in(part)
        if found is not None:
            return found
    return None
