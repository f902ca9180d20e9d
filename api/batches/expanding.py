"""From a batch as it was sent to one recipe a job. Pure: no database, no storage."""

import copy
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fda_core.contract.mergekit import is_mergekit, translate
from fda_core.contract.rest.batches import BatchRequest
from fda_core.contract.rest.jobs import Recipe as RecipeSent
from fda_core.contract.uris import normalise, parent
from fda_core.engine.recipes import parse_document, recipe_of, set_at
from fda_core.errors import BadParameter, BatchInvalid, FdaError, OutputExists, RecipeError
from fda_core.methods.registry import METHODS, method_of

_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_UNFIT_FOR_PATHS = re.compile(r"[^A-Za-z0-9._+-]+")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One job of a batch."""

    index: int
    values: dict[str, Any]
    """Path to value of what is swept over."""
    recipe: dict[str, Any]
    output: str
    """Normalised."""


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    index: int
    values: dict[str, Any]
    sent: RecipeSent


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """Why one entry of a batch cannot be queued."""

    index: int
    pointer: str
    error: FdaError

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data: entry, pointer into the request, code, message, hint."""
        told = self.error.as_dict()
        shown = {key: told[key] for key in ("code", "message", "hint")}
        return {"entry": self.index, "pointer": self.pointer, **shown}


def expand(request: BatchRequest, *, more: Mapping[str, str] | None = None) -> list[Entry]:
    """Return a batch's jobs in document order, every recipe checked as far as it can be alone.

    `more` are placeholders beside {index} and the swept paths. Raises `BatchInvalid` with all
    that is wrong, entry by entry.
    """
    entries: list[Entry] = []
    troubles: list[Trouble] = []
    for wanted in _wanted(request):
        try:
            entries.append(_entry(wanted, request.output, more or {}))
        except FdaError as error:
            troubles.append(_trouble(request, wanted.index, error))
    troubles += [_trouble(request, index, error) for index, error in _clashes(entries)]
    if troubles:
        raise refusal(request, troubles)
    return entries


def refusal(request: BatchRequest, troubles: Sequence[Trouble]) -> BatchInvalid:
    """Return the error that tells all troubles of a batch; the first one is in its message."""
    ordered = sorted(troubles, key=lambda trouble: trouble.index)
    first = ordered[0]
    return BatchInvalid(
        f"{len({t.index for t in ordered})} of {request.count()} jobs cannot be queued, so none "
        f"was; job {first.index}: {first.error.message}",
        hint=first.error.hint,
        errors=[trouble.as_dict() for trouble in ordered],
    )


def trouble_with(request: BatchRequest, index: int, error: FdaError) -> Trouble:
    """Return what is wrong with one job, with its place in the request."""
    return _trouble(request, index, error)


def _trouble(request: BatchRequest, index: int, error: FdaError) -> Trouble:
    pointer = f"/recipes/{index}" if request.recipes is not None else "/recipe"
    return Trouble(index=index, pointer=pointer, error=error)


def _wanted(request: BatchRequest) -> Iterator[_Wanted]:
    if request.recipes is not None:
        for index, sent in enumerate(request.recipes):
            yield _Wanted(index=index, values={}, sent=sent)
        return
    assert request.recipe is not None
    sweep = request.sweep or {}
    for index, values in enumerate(itertools.product(*sweep.values())):
        chosen = dict(zip(sweep, values, strict=True))
        yield _Wanted(index=index, values=chosen, sent=request.recipe)


def _entry(wanted: _Wanted, output: str | None, more: Mapping[str, str]) -> Entry:
    document = _document(wanted.sent)
    for path, value in wanted.values.items():
        set_at(document, path, copy.deepcopy(value))
    template = output if output is not None else document.get("output")
    if not isinstance(template, str):
        raise BadParameter(
            "the recipe has no output",
            hint="Give output: in the recipe, or for the whole batch with {index} in it.",
            key="output",
        )
    document["output"] = fill(template, _fields(wanted, more))
    recipe = recipe_of(document)
    method_of(recipe)
    assert recipe.output is not None
    return Entry(
        index=wanted.index,
        values=wanted.values,
        recipe=document,
        output=normalise(recipe.output, cwd="/"),
    )


def _document(sent: RecipeSent) -> dict[str, Any]:
    """Return a recipe as a document of its own in our terms, mergekit's translated."""
    document = parse_document(sent) if isinstance(sent, str) else copy.deepcopy(sent)
    if not isinstance(document, dict):
        raise RecipeError(
            f"a recipe is a mapping of keys to values, not {type(document).__name__}",
            hint="Start with base:, experts:, method: and output:.",
        )
    return dict(translate(document, methods=METHODS)) if is_mergekit(document) else document


def _fields(wanted: _Wanted, more: Mapping[str, str]) -> dict[str, str]:
    """Return the placeholders of one job: swept paths whole, and their ends where distinct."""
    ends = [path.rpartition(".")[2] for path in wanted.values]
    fields: dict[str, str] = {}
    for end, value in zip(ends, wanted.values.values(), strict=True):
        if ends.count(end) == 1:
            fields[end] = _path_word(value)
    fields |= {path: _path_word(value) for path, value in wanted.values.items()}
    return {**fields, "index": str(wanted.index), **more}


def _path_word(value: Any) -> str:
    """Return a value as one part of a path: no separators, and never `.` or `..`."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, dict):
        value = value.get("name", [part for pair in value.items() for part in pair])
    if isinstance(value, list):
        return "-".join(_path_word(part) for part in value)
    word = _UNFIT_FOR_PATHS.sub("-", str(value))
    return word if word.strip(".") else "-"


def fill(template: str, fields: Mapping[str, str]) -> str:
    """Return a template with its `{placeholders}` filled in; `{{` and `}}` are braces."""

    def word(match: re.Match[str]) -> str:
        found = match.group()
        if found in ("{{", "}}"):
            return found[0]
        if match.group(1) not in fields:
            raise BadParameter(
                f"output {template!r}: there is no placeholder {found!r}",
                hint=f"Known here: {', '.join(f'{{{name}}}' for name in fields)}; "
                "{{ and }} stand for braces.",
                key="output",
            )
        return fields[match.group(1)]

    return _PLACEHOLDER.sub(word, template)


def _clashes(entries: Sequence[Entry]) -> Iterator[tuple[int, OutputExists]]:
    """Yield entries that write where, or below where, another one writes."""
    first: dict[str, int] = {}
    for entry in entries:
        first.setdefault(entry.output, entry.index)
    for entry in entries:
        if first[entry.output] != entry.index:
            yield entry.index, _clash(entry, first[entry.output], "to")
            continue
        folder = parent(entry.output)
        while folder != parent(folder):
            if folder in first:
                yield entry.index, _clash(entry, first[folder], "inside")
                break
            folder = parent(folder)


def _clash(entry: Entry, other: int, how: str) -> OutputExists:
    return OutputExists(
        f"it would write {how} the output of job {other}: {entry.output}",
        hint="Put {index} or the swept paths into output, so that every job writes elsewhere.",
        output=entry.output,
        other=other,
    )
