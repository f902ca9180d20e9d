"""Resolve a recipe's `vary` against real tensors: which parameters and weights each one gets.

What an expert has of its own counts before what all have, wherever either is said.

Every combination that comes out is checked by the method here, before any work.
"""

import difflib
import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from fda_core.contract.plan import Plan, PlannedTensor, TensorRule, TensorSetting
from fda_core.contract.recipe import MethodSpec, Recipe
from fda_core.contract.vary import Variation, value_at
from fda_core.engine.inputs import Matched
from fda_core.errors import BadParameter, UnknownKey
from fda_core.methods.base import Method, OwnParameters
from fda_core.methods.fda import Fda
from fda_core.methods.linear import normalized
from fda_core.methods.registry import method_class, method_of, resolve

Place = tuple[int, int]
"""A layer's number inside its tower, and how many layers the tower has."""


def check_layer_count(recipe: Recipe, layers: int) -> None:
    """Refuse a base that has not as many layers as the recipe says it must have."""
    if recipe.layers is not None and recipe.layers != layers:
        raise BadParameter(
            f"the recipe is for {recipe.layers} layers, the base has {layers}",
            hint="Layers are neither left out nor repeated here; merge whole models.",
            key="layers",
        )


def vary_tensors(
    tensors: Sequence[PlannedTensor], recipe: Recipe, matched: Matched
) -> tuple[list[PlannedTensor], tuple[TensorSetting, ...]]:
    """Return the tensors with the index of their setting, and the distinct settings.

    The recipe's method must be resolved. Raises `BadParameter` or `UnknownKey` for what the
    method does not take. An entry that no merged tensor falls under becomes a warning.
    """
    if not recipe.vary:
        return list(tensors), ()
    _check_entries(recipe, layers=1 + max((t.layer or 0 for t in tensors), default=0))
    return _Settings(recipe, matched).resolve(tensors)


def idle_excludes(method: Method, tensors: Sequence[PlannedTensor]) -> list[str]:
    """Return a warning for every pattern of `exclude` that no merged tensor falls under."""
    where, used = "method", method
    if isinstance(method, Fda):
        if method.start is None:
            return []
        where, used = "method.start", method.start
    merged = [tensor.name for tensor in tensors if tensor.rule is TensorRule.MERGE]
    return [
        f"{where}.exclude changes nothing: no merged tensor is called like {pattern!r}"
        for pattern in getattr(used.parameters, "exclude", ())
        if not any(fnmatchcase(name, pattern) for name in merged)
    ]


def method_of_setting(plan: Plan, number: int) -> Method:
    """Return the method with the parameters of one of a plan's settings."""
    setting = plan.settings[number]
    return _resolve(plan.recipe.method.name, setting.parameters, setting.experts, where="method")


def _resolve(
    name: str,
    parameters: Mapping[str, Any],
    experts: Mapping[str, Mapping[str, Any]],
    *,
    where: str,
) -> Method:
    own = {
        expert: OwnParameters(given, f"{where}.experts.{expert}")
        for expert, given in experts.items()
    }
    return resolve(MethodSpec(name=name, parameters=dict(parameters)), where=where, own=own)


def _check_entries(recipe: Recipe, *, layers: int) -> None:
    kind = method_class(recipe.method.name)
    if kind is Fda:
        raise BadParameter(
            "vary: the layers of an FDA merge all have the same parameters and weights",
            hint="Leave vary: out, or merge with another method.",
            key="vary",
        )
    weighs = method_of(recipe).uses_weights
    known = [field.alias or name for name, field in kind.Parameters.model_fields.items()]
    experts = [expert.name for expert in recipe.experts]
    for number, entry in enumerate(recipe.vary):
        _check_names(entry.set, known, f"vary.{number}.set", f"parameter of {kind.name}")
        _check_names(entry.weights, experts, f"vary.{number}.weights", "expert")
        if entry.weights and not weighs:
            raise BadParameter(
                f"vary.{number}.weights: {kind.name} does not weigh experts",
                hint="Leave the weights out, or choose a method that weighs (`fda methods`).",
                key=f"vary.{number}.weights",
            )
        _check_names(entry.experts, experts, f"vary.{number}.experts", "expert")
        _check_own(entry.experts, kind, where=f"vary.{number}.experts")
        if entry.layers is not None and entry.layers[1] >= layers:
            raise BadParameter(
                f"vary.{number}.layers: {list(entry.layers)}, but the base has layers 0 to "
                f"{layers - 1}",
                hint="First and last layer, counted from 0.",
                key=f"vary.{number}.layers",
            )


def _check_names(given: Mapping[str, Any], known: Sequence[str], where: str, what: str) -> None:
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            meant = f"Did you mean {near[0]!r}? " if near else ""
            raise UnknownKey(
                f"{where}.{name}: there is no such {what}",
                hint=f"{meant}Known here: {', '.join(known)}.",
                key=f"{where}.{name}",
            )


def _check_own(experts: Mapping[str, Mapping[str, Any]], kind: type[Method], *, where: str) -> None:
    """Refuse parameters that the method does not have for one expert."""
    for expert, given in experts.items():
        if given and not kind.expert_parameters:
            raise BadParameter(
                f"{where}.{expert}: {kind.name} has no parameters that an expert has of its own",
                hint="Give them under set:, or choose a method that has (`fda methods`).",
                key=f"{where}.{expert}",
            )
        what = f"parameter of one expert of {kind.name}"
        _check_names(given, kind.expert_parameters, f"{where}.{expert}", what)


Own = dict[str, dict[str, Any]]
"""By expert, the parameters that it has of its own."""


class _Settings:
    """Collects the distinct settings of one plan."""

    def __init__(self, recipe: Recipe, matched: Matched) -> None:
        self._recipe = recipe
        self._matched = matched
        self._weights = {expert.name: expert.weight for expert in recipe.experts}
        self._own: Own = {e.name: e.parameters for e in recipe.experts if e.parameters}
        self._places = _places(matched)
        common = _key(recipe.method.parameters, self._weights, self._own)
        self._index: dict[str, int | None] = {common: None}
        self._found: list[TensorSetting] = []
        self._used: set[int] = set()

    def resolve(
        self, tensors: Sequence[PlannedTensor]
    ) -> tuple[list[PlannedTensor], tuple[TensorSetting, ...]]:
        """Return the tensors with their settings."""
        merged = [t for t in tensors if t.rule is TensorRule.MERGE]
        setting = {tensor.name: self._setting(tensor) for tensor in merged}
        for number, entry in enumerate(self._recipe.vary):
            if number not in self._used:
                self._matched.warnings.append(f"vary.{number} changes nothing: {_words(entry)}")
        varied = [t.model_copy(update={"setting": setting.get(t.name)}) for t in tensors]
        return varied, tuple(self._found)

    def _setting(self, tensor: PlannedTensor) -> int | None:
        """Return the index of a tensor's setting, adding it if it is new."""
        parameters, weights = dict(self._recipe.method.parameters), dict(self._weights)
        own = {expert: dict(given) for expert, given in self._own.items()}
        place = self._places[tensor.name]
        for number, entry in enumerate(self._recipe.vary):
            if _falls_under(tensor, entry):
                self._used.add(number)
                depth = _depth(tensor, place, entry)
                parameters |= {key: value_at(v, depth) for key, v in entry.set.items()}
                weights |= {name: float(value_at(v, depth)) for name, v in entry.weights.items()}
                for expert, given in entry.experts.items():
                    values = {key: value_at(v, depth) for key, v in given.items()}
                    own[expert] = own.get(expert, {}) | values
        key = _key(parameters, weights, own)
        if key not in self._index:
            self._found.append(self._checked(tensor, parameters, weights, own))
            self._index[key] = len(self._found) - 1
        return self._index[key]

    def _checked(
        self,
        tensor: PlannedTensor,
        parameters: Mapping[str, Any],
        weights: Mapping[str, float],
        own: Own,
    ) -> TensorSetting:
        name, where = self._recipe.method.name, f"vary, for {tensor.name}"
        method = _resolve(name, parameters, own, where=where)
        if getattr(method.parameters, "normalize", False):
            normalized([weights[name] for name in tensor.experts])
        return TensorSetting(
            parameters=method.parameters.model_dump(mode="json", by_alias=True),
            weights=dict(weights),
            experts=own,
        )


def _key(parameters: Mapping[str, Any], weights: Mapping[str, float], own: Own) -> str:
    return json.dumps([dict(parameters), dict(weights), own], sort_keys=True, default=repr)


def _words(entry: Variation) -> str:
    inside = "" if entry.layers is None else f" in layers {entry.layers[0]} to {entry.layers[1]}"
    return f"no merged tensor{inside} is called like {entry.tensors or '*'!r}"


def _places(matched: Matched) -> dict[str, Place | None]:
    """Return every tensor's place, None for those in no layer."""
    family = matched.base.family
    found = {name: family.place(canonical) for canonical, name in matched.base.names.items()}
    depths: dict[str, int] = {}
    for place in found.values():
        if place is not None:
            depths[place[0].name] = max(depths.get(place[0].name, 0), place[1] + 1)
    return {
        name: None if place is None else (place[1], depths[place[0].name])
        for name, place in found.items()
    }


def _falls_under(tensor: PlannedTensor, entry: Variation) -> bool:
    if entry.tensors is not None and not fnmatchcase(tensor.name, entry.tensors):
        return False
    if entry.layers is None:
        return True
    return tensor.layer is not None and entry.layers[0] <= tensor.layer <= entry.layers[1]


def _depth(tensor: PlannedTensor, place: Place | None, entry: Variation) -> float:
    """Return how deep a tensor lies: 0 in the first layer, 1 in the last, 0 outside of all.

    In an entry's layers if it names them, else in the tensor's tower. One layer alone is 1
    deep. All of this is as mergekit has it.
    """
    if tensor.layer is None or place is None:
        return 0.0
    layer, count = place
    if entry.layers is not None:
        layer, count = tensor.layer - entry.layers[0], entry.layers[1] - entry.layers[0] + 1
    return layer / (count - 1) if count > 1 else 1.0
