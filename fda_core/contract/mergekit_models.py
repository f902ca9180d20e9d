"""The models a mergekit document names: paths, settings, which is the base, expert names."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fda_core.contract.mergekit_settings import Chain, read_setting
from fda_core.errors import BadParameter, DuplicateExpert, NoExperts, RecipeError, UnknownKey

Settings = Mapping[str, Chain]


@dataclass(frozen=True, kw_only=True)
class Source:
    """One model of a document."""

    path: str
    where: str
    """Its place in the document, for messages."""
    settings: Settings = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The models of a document, and settings for all of them, narrowest scope first."""

    models: tuple[Source, ...]
    base: str | None
    shared: tuple[Settings, ...]
    layers: int | None = None


def read_sources(document: Mapping[str, Any]) -> Sources:
    """Return the models of a document, or raise what is wrong with them."""
    given = [key for key in ("models", "slices", "modules") if document.get(key)]
    if "modules" in given:
        raise _cannot("modules", "parts of models apart", "Merge whole models.")
    if len(given) != 1:
        raise RecipeError(
            f"a mergekit document has either models or slices, this one has {given or 'neither'}",
            hint="List the models under models:.",
            key="models",
        )
    base = document.get("base_model")
    path = None if base is None else model_path(base, "base_model")
    shared = read_settings(document.get("parameters"), "parameters")
    if given == ["slices"]:
        return _one_slice(document["slices"], path, shared)
    models = _models(document["models"], "models", {"model", "parameters"})
    if path is not None and path not in (model.path for model in models):
        models = (*models, Source(path=path, where="base_model"))
    return Sources(models=models, base=path, shared=(shared,))


def model_path(value: object, where: str) -> str:
    """Return the path of a model; revisions and adapters are refused by name."""
    for key in ("model", "path"):
        if isinstance(value, Mapping) and key in value:
            for other, item in value.items():
                if other != key and item is not None:
                    raise _cannot(f"{where}.{other}", f"{other!r} of a model", "Give its folder.")
            value = value.get(key)
    if not isinstance(value, str) or not value:
        raise BadParameter(f"{where}: {value!r} is no model", hint="Give its folder.", key=where)
    if "+" in value:
        raise _cannot(
            where,
            f"an adapter on top of a model ({value})",
            "Give the adapter's folder as a model of a recipe of ours.",
        )
    if "@" in value:
        raise _cannot(where, f"a revision ({value})", "Give a folder that has this revision.")
    return value


def read_settings(value: object, where: str) -> Settings:
    """Return the settings of one `parameters` mapping."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise BadParameter(f"{where}: {value!r} is no mapping of settings", key=where)
    return {name: read_setting(item, f"{where}.{name}") for name, item in value.items()}


def expert_names(paths: Sequence[str]) -> list[str]:
    """Return a name for each model: the last part of its path, made safe and unique."""
    names: list[str] = []
    for path in paths:
        last = re.sub(r"[^A-Za-z0-9._-]+", "-", path.rstrip("/").rpartition("/")[2])
        stem = re.sub(r"^[^A-Za-z0-9]+", "", last)[:56] or "model"
        taken = {"base", *(name.lower() for name in names)}
        name, number = stem, 2
        while name.lower() in taken:
            name, number = f"{stem}-{number}", number + 1
        names.append(name)
    return names


def _models(value: object, where: str, known: set[str]) -> tuple[Source, ...]:
    if not isinstance(value, list):
        raise BadParameter(f"{where}: {value!r} is no list of models", key=where)
    found = [_model(item, f"{where}.{k}", known) for k, item in enumerate(value)]
    for k, model in enumerate(found):
        if model.path in (other.path for other in found[:k]):
            raise DuplicateExpert(
                f"{model.where}: {model.path} is listed twice",
                hint="List every model once, with its weight.",
                expert=model.path,
            )
    if not found:
        raise NoExperts(f"{where} lists no models", hint="List at least one.")
    return tuple(found)


def _model(item: object, where: str, known: set[str]) -> Source:
    if not isinstance(item, Mapping):
        return Source(path=model_path(item, where), where=where)
    check_keys(item, known, where)
    return Source(
        path=model_path(item.get("model"), f"{where}.model"),
        where=where,
        settings=read_settings(item.get("parameters"), f"{where}.parameters"),
    )


def _one_slice(slices: object, base: str | None, shared: Settings) -> Sources:
    """Return the models of a document whose one slice is all layers of all of them."""
    if not isinstance(slices, list) or len(slices) != 1 or not isinstance(slices[0], Mapping):
        raise _cannot(
            "slices", "layers put together from several slices", "Only one slice of all layers."
        )
    only = slices[0]
    check_keys(only, {"sources", "base_model", "parameters"}, "slices.0")
    if only.get("base_model") is not None:
        own = model_path(only["base_model"], "slices.0.base_model")
        if base not in (None, own):
            raise _cannot("slices.0.base_model", "a second base", "Give base_model once.")
        base = own
    where = "slices.0.sources"
    models = _models(only.get("sources"), where, {"model", "parameters", "layer_range"})
    layers = _layer_count(only["sources"], where)
    own_settings = read_settings(only.get("parameters"), "slices.0.parameters")
    return Sources(models=models, base=base, shared=(own_settings, shared), layers=layers)


def _layer_count(sources: list[Any], where: str) -> int:
    """Return how many layers all sources give, all of them from the first layer on."""
    ranges = [s.get("layer_range") if isinstance(s, Mapping) else None for s in sources]
    match ranges[0]:
        case [0, int(count)] if count > 0 and all(r == ranges[0] for r in ranges):
            return count
    raise _cannot(
        f"{where}.0.layer_range",
        f"layer ranges {ranges}",
        "Every source must have the same range, [0, number of layers].",
    )


def check_keys(value: Mapping[str, Any], known: set[str], where: str) -> None:
    """Refuse keys that mergekit does not have at a place."""
    for key, item in value.items():
        if key not in known and item is not None:
            place = f"{where}.{key}" if where else key
            raise UnknownKey(
                f"{place}: not understood in a mergekit document",
                hint=f"Known here: {', '.join(sorted(known))}.",
                key=place,
            )


def _cannot(where: str, what: str, hint: str) -> BadParameter:
    return BadParameter(f"{where}: {what} cannot be merged here", hint=hint, key=where)
