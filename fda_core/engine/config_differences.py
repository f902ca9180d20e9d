"""What the configs of a base and an expert say of the function their equal tensors stand for."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fda_core.errors import NotSameBase

Settings = Mapping[str, Any]

SHAPE = ("num_attention_heads", "n_heads", "num_key_value_heads", "head_dim")
BEND = ("hidden_act", "hidden_activation", "activation", "activation_function")
TUNED = (
    "attention_multiplier",
    "attn_logit_softcapping",
    "embedding_multiplier",
    "final_logit_softcapping",
    "layer_norm_eps",
    "layer_norm_epsilon",
    "layer_types",
    "logits_scaling",
    "position_embedding_type",
    "query_pre_attn_scalar",
    "residual_multiplier",
    "rms_norm_eps",
    "scale_attn_by_inverse_layer_idx",
    "scale_embedding",
    "sliding_window",
    "tie_word_embeddings",
    "use_sliding_window",
)
"""Settings that bend the function a little, and that a fine-tune may have been given."""


def check_function(base: Settings, expert: Settings, *, whose: str) -> None:
    """Refuse an expert whose layers compute something else with the same tensors."""
    for key in _differing((*SHAPE, *BEND), base, expert):
        raise NotSameBase(
            f"expert {whose!r} has {key} {expert[key]!r}, the base has {base[key]!r}: the "
            "same weights mean another function there",
            hint="Correct the config.json that is wrong, or choose another base.",
            expert=whose,
            key=key,
        )


def tuned_differences(base: Settings, expert: Settings) -> list[str]:
    """Return what an expert was tuned with and the base, whose config the output gets, was not.

    A key that only one of them has is no difference: the other may leave out its default.
    """
    said = [
        f"{key} {expert[key]!r}, the base {base[key]!r}" for key in _differing(TUNED, base, expert)
    ]
    ours, theirs = _rope(base), _rope(expert)
    if ours and theirs and ours != theirs:
        keys = sorted(key for key in {*ours, *theirs} if _apart(key, ours, theirs))
        said += [f"rope's {key} {theirs.get(key)!r}, the base {ours.get(key)!r}" for key in keys]
    return said


def _apart(key: str, ours: Settings, theirs: Settings) -> bool:
    """Say whether a rotary parameter differs; how much is turned has a default of each family."""
    if key.endswith("partial_rotary_factor") and not (key in ours and key in theirs):
        return False
    return bool(ours.get(key) != theirs.get(key))


def _differing(keys: Sequence[str], base: Settings, expert: Settings) -> Iterator[str]:
    """Yield the keys that both have, with other values."""
    return (key for key in keys if key in base and key in expert and base[key] != expert[key])


def _rope(settings: Settings) -> dict[str, Any]:
    """Return the rotary embedding's parameters, whichever way they are written; {} without any.

    Older configs have rope_theta and rope_scaling (with `type`), newer ones rope_parameters.
    Those of Gemma 3 are by kind of layer, and were two bases of which the first could be scaled.
    """
    given = settings.get("rope_parameters")
    if not isinstance(given, Mapping):
        given = _older_rope(settings)
    kinds = [(f"{key} ", value) for key, value in given.items() if isinstance(value, Mapping)]
    return {
        f"{kind}{key}": value
        for kind, parameters in kinds or [("", given)]
        for key, value in _renamed(parameters).items()
    }


def _older_rope(settings: Settings) -> Settings:
    """Return rope_parameters as newer configs would have them; {} if nothing says the base."""
    bases = [settings[key] for key in ("rope_theta", "rotary_emb_base") if key in settings]
    if not bases:
        return {}
    scaling = settings.get("rope_scaling")
    found = {"rope_theta": bases[0], **(scaling if isinstance(scaling, Mapping) else {})}
    parts = [settings[key] for key in ("partial_rotary_factor", "rotary_pct") if key in settings]
    if parts:
        found["partial_rotary_factor"] = parts[0]
    if "rope_local_base_freq" not in settings:
        return found
    local = {"rope_theta": settings["rope_local_base_freq"]}
    return {"full_attention": found, "sliding_attention": local}


def _renamed(parameters: Settings) -> dict[str, Any]:
    """Return one rotary embedding's parameters by their newer names; without any, {}."""
    if not parameters:
        return {}
    found = {key: value for key, value in parameters.items() if key != "type"}
    found["rope_type"] = parameters.get("rope_type", parameters.get("type", "default"))
    return found
