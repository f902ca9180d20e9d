"""Recipes from mergekit's YAML documents, written for mergekit 0.1.5.

Everything mergekit would do by default is written out, since its defaults are not ours; what
cannot be said in our terms is refused by name. Reads no checkpoint, so that what depends on
the number of layers or on tensor names becomes entries of `vary`, resolved by planning.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from fda_core.contract.mergekit_methods import MergekitMethod, Parameter, parameters_of_any, table
from fda_core.contract.mergekit_models import (
    Source,
    Sources,
    check_keys,
    expert_names,
    read_sources,
)
from fda_core.contract.mergekit_output import read_dtype, read_tokenizer
from fda_core.contract.mergekit_settings import Chain, Choice, Scalar, chained, is_complete
from fda_core.contract.mergekit_variations import Variations
from fda_core.errors import BadParameter, NoExperts, UnknownKey, UnknownMethod

KEYS = {
    *("merge_method", "models", "slices", "modules", "base_model", "parameters"),
    *("dtype", "out_dtype", "tokenizer_source", "tokenizer", "chat_template"),
}


def is_mergekit(document: Mapping[str, Any]) -> bool:
    """Say whether a document is one of mergekit's."""
    return "merge_method" in document


def translate(document: Mapping[str, Any], *, methods: Collection[str]) -> dict[str, Any]:
    """Return the recipe document that says what a mergekit document says.

    `methods` are the names of the methods there are. Raises `RecipeError` and its kinds.
    """
    check_keys(document, KEYS, "")
    method = _method(document["merge_method"], methods)
    sources = read_sources(document)
    return _Translation(document, method, sources).recipe()


def _method(name: object, methods: Collection[str]) -> MergekitMethod:
    if isinstance(name, str) and name in methods:
        return table().get(name, MergekitMethod(name=name))
    raise UnknownMethod(
        f"merge_method: {name!r} is not among the methods here",
        hint=f"Known: {', '.join(methods)}.",
        method=name,
    )


class _Translation:
    """One document on its way; `notes` collects what the reader should know."""

    def __init__(
        self, document: Mapping[str, Any], method: MergekitMethod, sources: Sources
    ) -> None:
        self._document = document
        self._method = method
        self._sources = sources
        self._notes = [f"translated from a mergekit document (merge_method {method.name})"]
        self._base = self._chosen_base()
        self._models = self._chosen_models()
        self._names = expert_names([model.path for model in self._models])
        self._parameters: dict[str, Any] = {}
        self._weights: dict[str, float] = {}
        self._own: dict[str, dict[str, Any]] = {name: {} for name in self._names}
        self._varied = Variations()

    def recipe(self) -> dict[str, Any]:
        """Return the recipe."""
        self._read_parameters()
        dtype, remarks = read_dtype(self._document)
        vocabulary, more = read_tokenizer(self._document, base=self._base)
        self._notes += [*remarks, *more]
        experts = [
            {"name": name, "model": model.path, **self._weight_of(name), **self._own_of(name)}
            for name, model in zip(self._names, self._models, strict=True)
        ]
        return {
            "base": self._base,
            "experts": experts,
            "method": {"name": self._method.name, **self._parameters},
            **({"vary": self._varied.entries} if self._varied.entries else {}),
            **({"layers": self._sources.layers} if self._sources.layers else {}),
            "notes": self._notes,
            **vocabulary,
            "dtype": dtype,
        }

    def _weight_of(self, name: str) -> dict[str, float]:
        return {"weight": self._weights[name]} if name in self._weights else {}

    def _own_of(self, name: str) -> dict[str, dict[str, Any]]:
        return {"parameters": self._own[name]} if self._own[name] else {}

    def _chosen_base(self) -> str:
        if self._sources.base is not None:
            return self._sources.base
        if self._method.base == "required":
            raise BadParameter(
                f"base_model: {self._method.name} needs one",
                hint="Name the model that all others were fine-tuned from.",
                key="base_model",
            )
        first = self._sources.models[0].path
        self._notes.append(f"no base_model: the first model, {first}, is the base")
        return first

    def _chosen_models(self) -> tuple[Source, ...]:
        """Return the models that become experts."""
        kept = self._sources.models
        alone = self._method.base == "optional" and self._sources.base is None
        if self._method.base != "input" and not alone:
            kept = self._without_base(kept)
        least, most = self._method.at_least, self._method.at_most
        if len(kept) < least or (most is not None and len(kept) > most):
            wanted = f"{least}" if most == least else f"at least {least}"
            raise NoExperts(
                f"{self._method.name} needs {wanted} models beside the base in mergekit, the "
                f"document has {len(kept)}",
                hint="The base is base_model, or the first model if that is not given.",
            )
        return kept

    def _without_base(self, models: Sequence[Source]) -> tuple[Source, ...]:
        if self._base not in (model.path for model in models):
            raise BadParameter(
                f"base_model: {self._base} is not among the sources",
                hint="mergekit wants the base among the sources of a slice.",
                key="base_model",
            )
        for model in models:
            if model.path == self._base and model.settings:
                self._notes.append(
                    f"{model.where}.parameters: it is the base, so they change nothing"
                )
        return tuple(model for model in models if model.path != self._base)

    def _read_parameters(self) -> None:
        names = {name for scope in self._sources.shared for name in scope}
        names |= {name for model in self._models for name in model.settings}
        names |= set(self._method.parameters or ())
        for name in sorted(names):
            parameter = self._known(name)
            if parameter is not None:
                self._read_parameter(name, parameter)
        based = self._sources.base is not None
        more = self._method.with_base if based else self._method.without_base
        self._parameters |= {**self._method.fixed, **more}

    def _known(self, name: str) -> Parameter | None:
        """Return a parameter, None if it has no effect here, as in mergekit."""
        parameter = self._method.parameter(name)
        if parameter is None and name not in parameters_of_any():
            known = self._method.parameters or ()
            raise UnknownKey(
                f"parameters.{name}: merge_method {self._method.name} has no such parameter",
                hint=f"Known here: {', '.join(known)}.",
                key=f"parameters.{name}",
            )
        if parameter is not None and (parameter.ours is not None or parameter.only is not None):
            return parameter
        if self._is_given(name):
            self._notes.append(f"{name} has no effect with {self._method.name}; left out")
        return None

    def _is_given(self, name: str) -> bool:
        scopes = [*self._sources.shared, *(model.settings for model in self._models)]
        return any(name in scope for scope in scopes)

    def _read_parameter(self, name: str, parameter: Parameter) -> None:
        if parameter.ours == "weight":
            for expert, model in zip(self._names, self._models, strict=True):
                chain = self._chain(name, parameter, model)
                value = self._varied.put(chain, ("weights", expert))
                self._weights[expert] = float(value)
            return
        chains = self._chains(name, parameter)
        if parameter.only is not None:
            if any(choice.value != parameter.only for chain in chains for choice in chain):
                raise BadParameter(
                    f"parameters.{name}: {self._method.name} has no {name}: "
                    f"{str(not parameter.only).lower()} here",
                    hint=f"Leave {name} out, or say {name}: {str(parameter.only).lower()}.",
                    key=f"parameters.{name}",
                )
            return
        if parameter.ours is not None:
            self._put(name, parameter.ours, chains)

    def _put(self, name: str, ours: str, chains: Sequence[Chain]) -> None:
        """Write the first model's choices as the method's; those that differ as the experts' own.

        So the method's parameters are together what one model has, never a mixture that the
        method might refuse. Where some model leaves the parameter out, our default is the
        method's.
        """
        shared = chains[0] if all(chains) else ()
        if shared:
            self._parameters[ours] = self._varied.put(shared, ("set", ours))
        differing = [place for place, chain in enumerate(chains) if chain not in (shared, ())]
        for place in differing:
            expert = self._names[place]
            self._own[expert][ours] = self._varied.put(chains[place], ("experts", expert, ours))
        if shared and differing:
            self._notes.append(
                f"{name} differs between models: method.{ours} is that of {self._names[0]}, "
                "others have theirs under experts"
            )

    def _chains(self, name: str, parameter: Parameter) -> list[Chain]:
        """Return the choices of a parameter: of each model, or what holds for all of them."""
        for model in self._models:
            if name in model.settings and not parameter.each:
                raise BadParameter(
                    f"{model.where}.parameters.{name}: {name} is no parameter of one model, and "
                    "mergekit does not read it there",
                    hint="Give it under the document's own parameters.",
                    key=f"{model.where}.parameters.{name}",
                )
        if not any(name in model.settings for model in self._models):
            return [self._chain(name, parameter, None)]
        return [self._chain(name, parameter, model) for model in self._models]

    def _chain(self, name: str, parameter: Parameter, model: Source | None) -> Chain:
        """Return a parameter's choices for a model, in our values, with a last for all tensors."""
        scopes: list[Mapping[str, Chain]] = [model.settings] if model is not None else []
        scopes += self._sources.shared
        chain = chained([scope[name] for scope in scopes if name in scope])
        if not is_complete(chain) and parameter.default is not None:
            chain = (*chain, Choice(filter=None, value=parameter.default))
        if not is_complete(chain) and (chain or not parameter.optional):
            whose = f" of {model.path}" if model is not None else ""
            raise BadParameter(
                f"parameters.{name}: {self._method.name} needs a {name}{whose}"
                + (" for tensors that no filter fits" if chain else ""),
                hint=f"End the list with a {name} that has no filter." if chain else "Give one.",
                key=f"parameters.{name}",
            )
        return tuple(
            Choice(filter=choice.filter, value=_read(parameter, choice.value, name))
            for choice in chain
        )


def _read(parameter: Parameter, value: Scalar | tuple[Scalar, ...], name: str) -> Any:
    where = f"parameters.{name}"
    if isinstance(value, tuple) and parameter.kind == "any" and isinstance(value[0], str):
        return list(value)  # a list of words, as our methods take them
    if isinstance(value, tuple):
        return tuple(parameter.read(item, where) for item in value)
    return parameter.read(value, where)
