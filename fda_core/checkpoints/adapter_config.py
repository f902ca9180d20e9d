"""What adapter_config.json says of a LoRA adapter, and which of it cannot be merged.

Keys are those of `peft.LoraConfig`, PEFT 0.21. A setting that would make the adapter anything
but scale · B A on top of its base is refused by name, and so is a set key that PEFT gains
later: what we do not know may change the numbers. Imports no torch.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fda_core.checkpoints.header import shown
from fda_core.checkpoints.module_patterns import ModulePatterns
from fda_core.errors import UnsupportedAdapter

MERGE_HINT: Final = "Merge it into its base with PEFT's merge_and_unload() and give that model."
CONVERT_INIT_HINT: Final = (
    "Save it with PEFT's save_pretrained(path_initial_model_for_weight_conversion=...), or give "
    "the merged model."
)
INPUTS_HINT: Final = "It trained inputs, not weights; there is nothing in it to merge."
DEFAULT: Final = 8
"""Rank and alpha where adapter_config.json has none, as in PEFT."""

_REFUSED: Final[Mapping[str, str]] = {
    "use_dora": "is a DoRA adapter, which also rescales the base's weights",
    "alora_invocation_tokens": "is an activated LoRA, which acts on some tokens only",
    "layer_replication": "repeats layers of its base",
    "target_parameters": "updates parameters that are no module's weight",
    "trainable_token_indices": "trains single rows of an embedding",
    "megatron_config": "is made for Megatron's layers",
    "use_qalora": "is a quantised LoRA, which pools its inputs",
    "use_bdlora": "has block-diagonal factors",
    "arrow_config": "routes between several adapters",
    "kasa_config": "is a KaSA adapter, which truncates the base's weights",
    "monteclora_config": "is a sampled LoRA",
    "velora_config": "is a VeLoRA adapter",
}
_INPUTS: Final = (
    "ADAPTION_PROMPT",
    "CPT",
    "MULTITASK_PROMPT_TUNING",
    "PREFIX_TUNING",
    "PROMPT_TUNING",
    "P_TUNING",
)
"""Kinds that PEFT's merge_and_unload() cannot merge either."""

_CHANGES_THE_BASE: Final = ("pissa", "corda", "olora", "loftq", "lora_ga")
"""Ways to begin that subtract from the base; their factors alone are not the task vector."""

_WITHOUT_EFFECT: Final = frozenset(
    {
        "auto_mapping",
        "corda_config",
        "ensure_weight_tying",
        "eva_config",
        "exclude_modules",
        "fan_in_fan_out",
        "inference_mode",
        "layers_pattern",
        "layers_to_transform",
        "loftq_config",
        "lora_bias",
        "lora_dropout",
        "lora_ga_config",
        "megatron_core",
        "modules_to_save",
        "parent_library",
        "peft_type",
        "peft_version",
        "qalora_group_size",
        "revision",
        "runtime_config",
        "target_modules",
        "unsloth_fixed",
    }
)
_UNDERSTOOD: Final = frozenset(
    {
        "alpha_pattern",
        "base_model_name_or_path",
        "bias",
        "init_lora_weights",
        "lora_alpha",
        "r",
        "rank_pattern",
        "task_type",
        "use_rslora",
    }
)


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """An adapter's settings, checked."""

    base_model: str | None
    task: str | None
    ranks: ModulePatterns
    alphas: ModulePatterns
    rslora: bool
    trains_biases: bool

    def rank(self, module: str) -> int:
        """Return the rank of a module's update, by the module's path in the model."""
        return int(self.ranks(module))

    def scale(self, module: str) -> float:
        """Return what B A is multiplied by: alpha / r, with rsLoRA alpha / √r."""
        rank = self.rank(module)
        return self.alphas(module) / (math.sqrt(rank) if self.rslora else rank)


def parse_adapter_config(raw: Mapping[str, Any], *, where: str) -> AdapterConfig:
    """Return an adapter's settings, or raise `UnsupportedAdapter` with the key to blame."""
    _check_kind(raw, where)
    _check_begin(raw, where)
    return AdapterConfig(
        base_model=_text(raw, "base_model_name_or_path"),
        task=_text(raw, "task_type"),
        ranks=_patterns(raw, "rank_pattern", _rank(raw.get("r", DEFAULT), "r", where), where),
        alphas=_patterns(
            raw, "alpha_pattern", _alpha(raw.get("lora_alpha", DEFAULT), where), where
        ),
        rslora=_flag(raw, "use_rslora", where),
        trains_biases=_trains_biases(raw, where),
    )


def _check_kind(raw: Mapping[str, Any], where: str) -> None:
    kind = raw.get("peft_type")
    if kind != "LORA":
        what = f"is {shown(kind)}; only LORA adapters are merged"
        hint = INPUTS_HINT if kind in _INPUTS else MERGE_HINT
        raise _refused(where, "peft_type", what, hint=hint)
    for key, what in _REFUSED.items():
        if raw.get(key):
            raise _refused(where, key, what)
    for key, value in raw.items():
        if value and key not in _WITHOUT_EFFECT and key not in _UNDERSTOOD:
            raise _refused(where, key, f"has {shown(value)} there, which is not known here")


def _check_begin(raw: Mapping[str, Any], where: str) -> None:
    begin = raw.get("init_lora_weights", True)
    if isinstance(begin, str) and begin.lower().startswith(_CHANGES_THE_BASE):
        what = f"began with {shown(begin)}, which changes the base"
        raise _refused(where, "init_lora_weights", what, hint=CONVERT_INIT_HINT)


def _trains_biases(raw: Mapping[str, Any], where: str) -> bool:
    bias = raw.get("bias") or "none"
    if bias not in ("none", "all", "lora_only"):
        raise _refused(where, "bias", f"has {shown(bias)}; known are none, all and lora_only")
    return bias != "none"


def _patterns(raw: Mapping[str, Any], key: str, default: float, where: str) -> ModulePatterns:
    table = raw.get(key) or {}
    if not isinstance(table, dict):
        raise _refused(where, key, f"has {shown(table)}, not a table by module")
    checked = {
        name: _rank(value, key, where) if key == "rank_pattern" else _alpha(value, where, key)
        for name, value in table.items()
    }
    return ModulePatterns(checked, default=default, key=key, where=where)


def _rank(value: Any, key: str, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**31:
        raise _refused(where, key, f"has {shown(value)}; a rank is a whole number from 1")
    return value


def _alpha(value: Any, where: str, key: str = "lora_alpha") -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not abs(value) < 2**53:
        raise _refused(where, key, f"has {shown(value)}; alpha is a number")
    return value


def _flag(raw: Mapping[str, Any], key: str, where: str) -> bool:
    value = raw.get(key) or False
    if value is not True and value is not False:
        raise _refused(where, key, f"has {shown(value)}, neither true nor false")
    return value


def _text(raw: Mapping[str, Any], key: str) -> str | None:
    value = raw.get(key)
    return value[:200] if isinstance(value, str) and value.isprintable() and value else None


def _refused(where: str, key: str, what: str, *, hint: str = MERGE_HINT) -> UnsupportedAdapter:
    return UnsupportedAdapter(
        f"{where}: the adapter {what} (adapter_config.json: {key})", hint=hint, uri=where, key=key
    )
