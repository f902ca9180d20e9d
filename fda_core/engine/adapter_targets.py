"""Match an adapter to its base: which tensor every update is for, and whether it fits.

All of it from headers. An adapter of another base shows itself by a target that this base
lacks, or by factors whose shapes do not fit.
"""

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from fda_core.checkpoints.adapter_config import MERGE_HINT
from fda_core.checkpoints.adapters import Factors, RawAdapter
from fda_core.checkpoints.dtypes import FLOATS
from fda_core.checkpoints.layers import Family
from fda_core.contract.plan import LowRankUpdate
from fda_core.errors import (
    CheckpointError,
    NotSameBase,
    ShapeMismatch,
    UnsupportedAdapter,
    UnsupportedDtype,
)

if TYPE_CHECKING:
    from fda_core.engine.inputs import Opened

Shape = tuple[int, ...]

_TASKS: Final[Mapping[str, str]] = {
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "FEATURE_EXTRACTION": "AutoModel",
}
_OUTPUTS: Final = ("classifier.weight", "score.weight", "classifier.out_proj.weight")
"""The last matrix of a classifier, one row per label."""
MOST_LABELS: Final = 10_000
_STACKED: Final = re.compile(r"(?:^|\.)layers?\.(\d+)\.(.+)$")


class AdapterNames:
    """Canonical names of an adapter's tensors, which go by the model in memory.

    The transformers library names some modules otherwise in memory than on disk (ViT's
    `layers.0.attention.q_proj`); the family's bindings say which is which.
    """

    def __init__(self, adapter: RawAdapter, base: "Opened", *, whose: str) -> None:
        self._family: Family = base.family
        self._known = base.names
        named = [*adapter.whole, *(f"{module}.weight" for module in adapter.targets)]
        self.prefix = self._family.prefix_of(named)
        self.whole: dict[str, str] = {}
        for name in adapter.whole:
            canonical = self.canonical(name)
            if canonical in self.whole:
                raise _twice(whose, canonical, name)
            self.whole[canonical] = name

    def canonical(self, name: str) -> str:
        """Return the name by which the base knows a tensor, if it does."""
        plain = self._family.canonical(name, self.prefix)
        if plain in self._known:
            return plain
        return next((n for n in self._on_disk(plain) if n in self._known), plain)

    def _on_disk(self, plain: str) -> Iterator[str]:
        found = _STACKED.search(plain)
        towers = self._family.towers
        if found is None or len(towers) != 1:
            return
        layer, (module, _, leaf) = int(found[1]), found[2].rpartition(".")
        paths = [disk for disk, memory in towers[0].bindings.items() if memory == module]
        for name in self._known if paths else ():
            place = self._family.place(name)
            if place and place[1] == layer and place[2] in {f"{path}.{leaf}" for path in paths}:
                yield name


def low_rank_updates(
    adapter: RawAdapter, base: "Opened", names: AdapterNames, *, whose: str
) -> dict[str, LowRankUpdate]:
    """Return every update by the base's name of its tensor, or raise what does not fit."""
    updates: dict[str, LowRankUpdate] = {}
    for module, factors in adapter.targets.items():
        target = _Target(adapter, base, names, module=module, factors=factors, whose=whose)
        for name, update in target.updates():
            if name in updates:
                raise _twice(whose, name, module)
            updates[name] = update
    return updates


def updated_heads(base: "Opened", found: "Opened") -> dict[str, str]:
    """Return the base's heads that an adapter updates, each with what the update is added to."""
    updates = found.adapter.updates if found.adapter else {}
    return {
        name: found.names.get(canonical, name)
        for canonical, name in base.names.items()
        if name in updates and base.family.is_head(canonical)
    }


def adapter_config(adapter: RawAdapter, base: Mapping[str, Any]) -> dict[str, Any]:
    """Return what config.json would say of base and adapter as one model."""
    config = dict(base)
    kind = _TASKS.get(adapter.config.task or "")
    if kind:
        config["architectures"] = [kind]
    heads = [name for name in _OUTPUTS if name in adapter.whole]
    outputs = next((name for name in heads if len(adapter.tensors[name].shape) == 2), None)
    if outputs:
        labels = min(adapter.tensors[outputs].shape[0], MOST_LABELS)
        config["id2label"] = {str(k): f"LABEL_{k}" for k in range(labels)}
    return config


def _twice(whose: str, name: str, other: str) -> CheckpointError:
    return CheckpointError(
        f"{whose}: two parts of the adapter are for {name}, one of them is {other}",
        hint="Save the adapter again, one adapter to a folder.",
        expert=whose,
        tensor=name,
    )


class _Target:
    """One module with an update, and the base's tensors that it is for."""

    def __init__(
        self,
        adapter: RawAdapter,
        base: "Opened",
        names: AdapterNames,
        *,
        module: str,
        factors: Factors,
        whose: str,
    ) -> None:
        self._adapter, self._base, self._names = adapter, base, names
        self._module, self._factors, self._whose = module, factors, whose

    def updates(self) -> Iterator[tuple[str, LowRankUpdate]]:
        """Yield the update of the weight and, where B has a bias, that of the bias."""
        factors, scale = self._factors, self._adapter.config.scale(self._module)
        weight = self._base_name("weight")
        for factor in (factors.a, factors.b, factors.bias):
            self._check_dtype(factor)
        transposed = self._check_weight(weight)
        yield weight, LowRankUpdate(a=factors.a, b=factors.b, scale=scale, transposed=transposed)
        if factors.bias is not None:
            bias = self._base_name("bias")
            if self._shape(factors.bias) != self._base_shape(bias):
                raise self._mismatch(factors.bias, bias)
            yield bias, LowRankUpdate(a=None, b=factors.bias, scale=scale, transposed=False)
        elif self._adapter.config.trains_biases:
            self._check_bias_saved()

    def _base_name(self, leaf: str) -> str:
        canonical = self._names.canonical(f"{self._module}.{leaf}")
        self._check_untied(canonical)
        if canonical not in self._base.names:
            said = self._adapter.config.base_model
            raise NotSameBase(
                f"expert {self._whose!r} adapts {self._module}.{leaf}, which the base lacks"
                + (f"; it says that its base is {said!r}" if said else ""),
                hint="Give the base that the adapter was trained on.",
                expert=self._whose,
                tensor=f"{self._module}.{leaf}",
            )
        return self._base.names[canonical]

    def _check_untied(self, canonical: str) -> None:
        """Refuse an update of a copy: in the model it would change the source as well."""
        family, config = self._base.family, self._base.pinned.config
        for copy, source in family.tied_pairs(config):
            if copy == canonical:
                raise UnsupportedAdapter(
                    f"expert {self._whose!r} adapts {self._module}, which is tied to {source}",
                    hint=MERGE_HINT,
                    expert=self._whose,
                    tensor=canonical,
                )

    def _check_dtype(self, factor: str | None) -> None:
        if factor is not None and self._adapter.tensors[factor].dtype not in FLOATS:
            raise UnsupportedDtype(
                f"{factor}: expert {self._whose!r} has dtype "
                f"{self._adapter.tensors[factor].dtype}; updates are added in floating point",
                hint="Save the adapter unquantised.",
                tensor=factor,
                expert=self._whose,
            )

    def _check_weight(self, name: str) -> bool:
        """Return whether the base's weight holds the transpose of B A, or refuse the shapes."""
        a, b = self._shape(self._factors.a), self._shape(self._factors.b)
        rank = self._adapter.config.rank(self._module)
        for factor, found in ((self._factors.a, a[:1]), (self._factors.b, b[1:2])):
            if found != (rank,):
                raise ShapeMismatch(
                    f"{factor}: expert {self._whose!r} has {self._shape(factor)}, "
                    f"adapter_config.json says rank {rank}",
                    hint="Config and weights are of different saves, or the file is not whole.",
                    tensor=factor,
                    expert=self._whose,
                )
        if len(a) < 2 or any(axis != 1 for axis in b[2:]):
            raise self._mismatch(f"{self._factors.b} · {self._factors.a}", name)
        product = (b[0], *a[1:])
        wanted = product[::-1] if self._is_transposed(name) else product
        if self._base_shape(name) != wanted:
            raise self._mismatch(f"{self._factors.b} · {self._factors.a}", name, shape=product)
        return self._is_transposed(name)

    def _is_transposed(self, name: str) -> bool:
        """Say what PEFT sees by the module's class: an embedding, a Conv1D, or none of them.

        fan_in_fan_out itself is not asked: PEFT puts it right by the class when it loads.
        """
        place = self._base.family.place(self._base.family.canonical(name, self._base.pinned.prefix))
        return self._factors.embedding or (place is not None and place[0].is_transposed(place[2]))

    def _check_bias_saved(self) -> None:
        canonical = self._names.canonical(f"{self._module}.bias")
        if canonical in self._base.names and canonical not in self._names.whole:
            raise UnsupportedAdapter(
                f"expert {self._whose!r} trained {self._module}.bias, which the adapter lacks "
                "(adapter_config.json: bias)",
                hint=MERGE_HINT,
                expert=self._whose,
                tensor=f"{self._module}.bias",
            )

    def _shape(self, name: str) -> Shape:
        return self._adapter.tensors[name].shape

    def _base_shape(self, name: str) -> Shape:
        """Return the shape of what is updated: the base's tensor, or the adapter's whole one."""
        canonical = self._base.family.canonical(name, self._base.pinned.prefix)
        whole = self._names.whole.get(canonical)
        return self._shape(whole) if whole else self._base.pinned.tensors[name].shape

    def _mismatch(self, what: str, name: str, *, shape: Shape | None = None) -> ShapeMismatch:
        said = self._adapter.config.base_model
        return ShapeMismatch(
            f"{name}: expert {self._whose!r} adds {what}"
            + (f" of {shape}" if shape else "")
            + f", base has {self._base_shape(name)}",
            hint="The adapter was trained on another base"
            + (f"; it says {said!r}." if said else "."),
            tensor=name,
            expert=self._whose,
        )
