"""Adapters that cannot be merged, or belong to another base: refused by code and by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fda_core.checkpoints.adapters import open_adapter
from fda_core.engine.layer_tensors import Inputs
from fda_core.errors import FdaError
from fda_core.storage.resolve import storages
from tests.support.adapters import (
    CONFIG,
    WEIGHTS,
    WRAPPING,
    change_config,
    change_weights,
    context_of,
    factors_of,
    plan_of,
    save_adapter,
)
from tests.support.checkpoints import DECODER, base_model, with_tied_copy

LAYER = "bert.encoder.layer.1."
QUERY = f"{LAYER}attention.self.query"
DENSE = f"{LAYER}intermediate.dense"
WORDS = "bert.embeddings.word_embeddings"
GOOD = {QUERY: (16, 16), DENSE: (24, 16)}


def _zeros(*shape: int) -> Tensor:
    return torch.zeros(shape)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return base_model().save(tmp_path / "base")


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return save_adapter(tmp_path / "lora", factors_of(GOOD), base_model_name_or_path="acme/bert")


def refused(base: Path, adapter: Path, code: str, *words: str) -> FdaError:
    with pytest.raises(FdaError) as caught:
        plan_of(base, adapter)
    error = caught.value
    assert error.code == code, error.message
    for word in words:
        assert word in error.message
    assert error.hint
    return error


SETTINGS: dict[str, Any] = {
    "peft_type": "IA3",
    "use_dora": True,
    "alora_invocation_tokens": [1],
    "layer_replication": [[0, 2], [1, 2]],
    "target_parameters": ["experts.gate_up_proj"],
    "trainable_token_indices": [3, 4],
    "megatron_config": {"a": 1},
    "use_qalora": True,
    "use_bdlora": {"nblocks": 2},
    "arrow_config": {"top_k": 1},
    "kasa_config": {"beta": 1.0},
    "monteclora_config": {"num_samples": 3},
    "velora_config": {"a": 1},
    "a_key_of_tomorrow": "on",
    "bias": "some",
    "r": 0,
    "lora_alpha": "16",
    "use_rslora": "yes",
    "rank_pattern": ["query"],
    "alpha_pattern": {"query": None},
}


@pytest.mark.parametrize("key", SETTINGS)
def test_a_setting_that_cannot_be_merged_is_refused_by_name(
    key: str, base: Path, adapter: Path
) -> None:
    if SETTINGS[key] == {"query": None}:
        change_config(adapter, alpha_pattern={"query": [1]})
    else:
        change_config(adapter, **{key: SETTINGS[key]})
    error = refused(base, adapter, "unsupported_adapter", key, str(adapter))
    assert error.context["key"] == key


@pytest.mark.parametrize(
    "start", ["pissa", "pissa_niter_16", "olora", "corda", "loftq", "lora_ga", "PiSSA"]
)
def test_a_start_that_changes_the_base_is_refused(start: str, base: Path, adapter: Path) -> None:
    change_config(adapter, init_lora_weights=start)
    error = refused(base, adapter, "unsupported_adapter", start, "init_lora_weights")
    assert "path_initial_model_for_weight_conversion" in str(error.hint)


@pytest.mark.parametrize("start", [True, False, "gaussian", "eva", "orthogonal", "mica", None])
def test_a_start_that_leaves_the_base_alone_is_taken(start: Any, base: Path, adapter: Path) -> None:
    change_config(adapter, init_lora_weights=start)
    assert plan_of(base, adapter).experts[0].adapter


def test_harmless_settings_are_taken(base: Path, adapter: Path) -> None:
    change_config(
        adapter,
        lora_dropout=0.3,
        inference_mode=True,
        modules_to_save=["pooler"],
        layers_to_transform=[1],
        target_modules="all-linear",
        fan_in_fan_out=True,
        auto_mapping={"base_model_class": "BertModel", "unsloth_fixed": True},
        peft_version="0.99",
        a_key_of_tomorrow=False,
    )
    assert plan_of(base, adapter).experts[0].adapter


Break = Callable[[Path], object]


def _pickle(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")


def _both(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((folder / WEIGHTS).read_bytes())


def _not_json(folder: Path) -> None:
    (folder / CONFIG).write_text("{")


FOLDERS: dict[str, tuple[Break, str, str]] = {
    "pickle": (_pickle, "pickle_refused", "adapter_model.bin"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "missing_shard", WEIGHTS),
    "a model beside it": (_both, "corrupt_shard", "model.safetensors"),
    "config is no JSON": (_not_json, "missing_config", CONFIG),
    "not safetensors": (
        lambda folder: (folder / WEIGHTS).write_bytes(b"nothing like it"),
        "corrupt_shard",
        WEIGHTS,
    ),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_a_folder_that_is_not_whole_is_refused(case: str, base: Path, adapter: Path) -> None:
    change, code, word = FOLDERS[case]
    change(adapter)
    refused(base, adapter, code, word)


TENSORS: dict[str, tuple[dict[str, Tensor | None], str, tuple[str, ...]]] = {
    "no factor B": ({f"{QUERY}.lora_B.weight": None}, "missing_tensor", (QUERY, "factor B")),
    "DoRA's magnitudes": (
        {f"{QUERY}.lora_magnitude_vector": _zeros(16)},
        "unsupported_adapter",
        (f"{QUERY}.lora_magnitude_vector",),
    ),
    "rows of trained tokens": (
        {f"{WORDS}.token_adapter.trainable_tokens_delta": _zeros(2, 16)},
        "unsupported_adapter",
        ("trainable_tokens_delta",),
    ),
    "a factor twice": (
        {f"{QUERY}.lora_A.default.weight": _zeros(2, 16)},
        "corrupt_shard",
        (f"{QUERY}.lora_A",),
    ),
    "one rank in the config, another in A": (
        {f"{QUERY}.lora_A.weight": _zeros(3, 16)},
        "shape_mismatch",
        (f"{QUERY}.lora_A.weight", "'lora'", "(3, 16)", "rank 2"),
    ),
    "one rank in A, another in B": (
        {f"{QUERY}.lora_B.weight": _zeros(16, 3)},
        "shape_mismatch",
        (f"{QUERY}.lora_B.weight", "'lora'", "(16, 3)", "rank 2"),
    ),
    "another width": (
        {f"{DENSE}.lora_A.weight": _zeros(2, 12)},
        "shape_mismatch",
        (f"{DENSE}.weight", "'lora'", "(24, 12)", "(24, 16)"),
    ),
    "turned round": (
        {f"{DENSE}.lora_A.weight": _zeros(2, 24), f"{DENSE}.lora_B.weight": _zeros(16, 2)},
        "shape_mismatch",
        (f"{DENSE}.weight", "'lora'", "(16, 24)", "(24, 16)"),
    ),
    "another vocabulary": (
        {
            f"{WORDS}.lora_embedding_A": _zeros(2, 40),
            f"{WORDS}.lora_embedding_B": _zeros(16, 2),
        },
        "shape_mismatch",
        (f"{WORDS}.weight", "'lora'", "(16, 40)", "(41, 16)"),
    ),
    "a factor in one dimension": (
        {f"{DENSE}.lora_A.weight": _zeros(2)},
        "shape_mismatch",
        (f"{DENSE}.weight", "'lora'"),
    ),
    "integers": (
        {f"{QUERY}.lora_A.weight": torch.zeros(2, 16, dtype=torch.int8)},
        "unsupported_dtype",
        (f"{QUERY}.lora_A.weight", "'lora'", "I8"),
    ),
    "one layer too many": (
        factors_of({"bert.encoder.layer.2.attention.self.query": (16, 16)}),
        "not_same_base",
        ("bert.encoder.layer.2.attention.self.query.weight", "'lora'", "acme/bert"),
    ),
    "another family": (
        factors_of({"model.layers.0.self_attn.q_proj": (16, 16)}),
        "not_same_base",
        ("model.layers.0.self_attn.q_proj.weight", "'lora'"),
    ),
    "a bias that the base lacks": (
        {
            **factors_of({WORDS: (16, 41)}),
            f"{WORDS}.lora_B.bias": _zeros(16),
        },
        "shape_mismatch",
        (WORDS,),
    ),
    "a whole tensor of another shape": (
        {"bert.pooler.dense.weight": _zeros(16, 15)},
        "shape_mismatch",
        ("bert.pooler.dense.weight", "'lora'", "(16, 15)", "(16, 16)"),
    ),
    "a whole tensor in a layer that the base lacks": (
        {f"{LAYER}extra.weight": _zeros(4)},
        "unexpected_tensor",
        (f"{LAYER}extra.weight", "'lora'"),
    ),
}


@pytest.mark.parametrize("case", TENSORS)
def test_tensors_that_do_not_fit_are_refused_by_name_and_numbers(
    case: str, base: Path, adapter: Path
) -> None:
    change, code, words = TENSORS[case]
    change_weights(adapter, {WRAPPING + name: tensor for name, tensor in change.items()})
    refused(base, adapter, code, *words)


@pytest.mark.parametrize(
    ("kind", "said"), [("PROMPT_TUNING", "nothing in it to merge"), ("IA3", "merge_and_unload")]
)
def test_what_is_offered_fits_the_kind_of_adapter(
    base: Path, adapter: Path, kind: str, said: str
) -> None:
    change_config(adapter, peft_type=kind)
    assert said in str(refused(base, adapter, "unsupported_adapter", kind).hint)


def test_an_adapter_without_factors_is_refused(base: Path, tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "lora", {"bert.pooler.dense.weight": _zeros(16, 16)})
    refused(base, adapter, "missing_tensor", str(adapter))


def test_two_modules_for_one_tensor_are_refused(base: Path, tmp_path: Path) -> None:
    bare = QUERY.removeprefix("bert.")
    adapter = save_adapter(tmp_path / "lora", factors_of({QUERY: (16, 16), bare: (16, 16)}))
    refused(base, adapter, "checkpoint_invalid", f"{QUERY}.weight", bare)


def test_an_update_of_a_tied_copy_is_refused(tmp_path: Path) -> None:
    base = with_tied_copy(base_model()).save(tmp_path / "base")
    module = DECODER.removesuffix(".weight")
    adapter = save_adapter(tmp_path / "lora", factors_of({module: (41, 16)}))
    refused(base, adapter, "unsupported_adapter", module, "word_embeddings")


def test_a_tied_copy_that_was_trained_alone_is_refused(tmp_path: Path) -> None:
    """It would be written over by what it is tied to, without a word."""
    base = with_tied_copy(base_model()).save(tmp_path / "base")
    adapter = save_adapter(tmp_path / "lora", {**factors_of(GOOD), DECODER: _zeros(41, 16)})
    refused(base, adapter, "unsupported_adapter", DECODER, "word_embeddings")


@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_trained_biases_that_were_not_saved_are_refused(
    bias: str, base: Path, adapter: Path
) -> None:
    change_config(adapter, bias=bias)
    refused(base, adapter, "unsupported_adapter", f"{QUERY}.bias", "'lora'")


def test_an_adapter_is_no_base(adapter: Path, tmp_path: Path) -> None:
    other = save_adapter(tmp_path / "other", factors_of(GOOD))
    error = refused(adapter, other, "missing_config", str(adapter), "adapter")
    assert "base" in str(error.hint)


def test_a_folder_with_a_model_and_an_old_adapter_config_is_a_model(tmp_path: Path) -> None:
    base = base_model().save(tmp_path / "base")
    expert = base_model(seed=1).save(tmp_path / "expert")
    (expert / CONFIG).write_text("{}")
    assert plan_of(base, expert).experts[0].adapter is None


def test_a_file_changed_after_planning_is_refused(base: Path, adapter: Path) -> None:
    plan = plan_of(base, adapter)
    change_weights(adapter, {f"{WRAPPING}{QUERY}.lora_A.weight": torch.ones(2, 16)})
    inputs = Inputs(context_of(plan))
    with pytest.raises(FdaError) as caught:
        inputs.expert(f"{QUERY}.weight", "lora", inputs.base(f"{QUERY}.weight"))
    assert caught.value.code == "changed_input"


def test_what_an_adapter_inherits_is_a_copy_of_the_base(base: Path, adapter: Path) -> None:
    name = "bert.pooler.dense.weight"
    inputs = Inputs(context_of(plan_of(base, adapter)))
    tensor = inputs.base(name)
    found = inputs.expert(name, "lora", tensor)
    assert torch.equal(found, tensor)
    assert found.data_ptr() != tensor.data_ptr()


@pytest.mark.parametrize("side", ["A", "B"])
def test_a_factor_that_is_not_finite_is_named(side: str, base: Path, adapter: Path) -> None:
    name = f"{QUERY}.lora_{side}.weight"
    factors = factors_of(GOOD)
    factors[name][1, 1] = torch.nan
    change_weights(adapter, {WRAPPING + name: factors[name]})
    inputs = Inputs(context_of(plan_of(base, adapter)))
    with pytest.raises(FdaError, match=rf"lora: {name}\[1, 1\] is nan") as caught:
        inputs.expert(f"{QUERY}.weight", "lora", inputs.base(f"{QUERY}.weight"))
    assert caught.value.code == "non_finite"


def test_what_an_adapter_says_of_its_base_is_only_noted(base: Path, adapter: Path) -> None:
    plan = plan_of(base, adapter)
    assert plan.experts[0].adapter is not None
    assert plan.experts[0].adapter.base_model == "acme/bert"
    assert open_adapter(storages(), str(adapter)).describe() == (
        "LoRA adapter of rank 2, 2 targets, scale 2"
    )
