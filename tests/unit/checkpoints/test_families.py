"""The families' table against the library: what is tied, transposed, a buffer, an MLP."""

import pytest
import torch
from torch import nn

from fda_core.checkpoints.layers import families
from tests.support.layers import STACKS
from tests.support.models import DECODERS, build_model

BY_FAMILY = {kind: kind for kind in STACKS if kind in DECODERS}


@pytest.mark.parametrize("kind", BY_FAMILY)
def test_an_absent_tie_key_means_what_the_library_takes_it_to_mean(kind):
    from transformers import AutoConfig

    assert families()[kind].tied == AutoConfig.for_model(kind).tie_word_embeddings


@pytest.mark.parametrize(("family", "config"), [("clip", "CLIP"), ("siglip", "Siglip")])
def test_absent_keys_of_a_vision_tower_mean_what_the_library_takes_them_to_mean(family, config):
    import transformers

    tower = families()[family].towers[0]
    library = getattr(transformers, f"{config}VisionConfig")()
    assert {tower.depth, tower.width, "num_attention_heads", "image_size"} <= set(tower.defaults)
    assert dict(tower.defaults) == {key: getattr(library, key) for key in tower.defaults}
    assert tower.settings({"vision_config": {"patch_size": 14}})["patch_size"] == 14


@pytest.mark.parametrize("kind", BY_FAMILY)
def test_the_matrices_marked_transposed_are_the_librarys_conv1d(kind):
    from transformers.pytorch_utils import Conv1D

    layer = build_model(kind).get_submodule(STACKS[kind])[0]
    stored = {name for name, module in layer.named_modules() if isinstance(module, Conv1D)}
    assert families()[kind].towers[0].transposed == stored


IMAGES = ["vit", "deit", "dinov2", "dinov2_with_registers", "clip_vision", "siglip_vision"]


@pytest.mark.parametrize("kind", ["distilbert", "modernbert", *IMAGES, *BY_FAMILY])
def test_the_mlp_is_one_module_with_two_or_three_linear_maps(kind):
    tower = next(f.towers[0] for f in families().values() if f.towers[0].block == kind)
    layer = build_model(kind).get_submodule(STACKS[kind])[0]
    assert tower.mlp is not None
    mlp = layer.get_submodule(tower.mlp)
    inside = {name for name, module in mlp.named_modules() if list(module.parameters(False))}
    bound = {name for disk in tower.bindings for name in tower.modules_of(f"{disk}.weight")}
    assert {f"{tower.mlp}.{name}" for name in inside} <= bound
    assert 2 <= len(inside) <= 3
    assert not any(isinstance(module, nn.LayerNorm) for module in mlp.modules())


@pytest.mark.parametrize("family", ["bert", "roberta", "electra"])
def test_layers_without_an_mlp_module_have_no_mlp_scope(family):
    tower = families()[family].towers[0]
    assert tower.mlp is None
    assert not tower.holds("intermediate.dense.weight", "mlp")
    assert tower.holds("intermediate.dense.weight", "layer")


def test_the_scope_mlp_holds_the_mlps_tensors_only():
    tower = families()["llama"].towers[0]
    assert tower.holds("mlp.gate_proj.weight", "mlp")
    assert not tower.holds("self_attn.q_proj.weight", "mlp")
    assert not tower.holds("post_attention_layernorm.weight", "mlp")
    fused = families()["dinov2"].towers[0]
    assert fused.holds("mlp.weights_in.weight", "mlp")


@pytest.mark.parametrize(
    ("family", "name", "layer"),
    [
        ("gpt2", "h.3.attn.c_attn.bias", 3),
        ("gpt2", "h.3.attn.bias", None),
        ("gpt2", "h.3.attn.masked_bias", None),
        ("llama", "layers.2.self_attn.rotary_emb.inv_freq", None),
        ("llama", "layers.2.self_attn.q_proj.bias", 2),
        ("llama", "lm_head.weight", None),
    ],
)
def test_old_buffers_are_in_no_layer(family, name, layer):
    place = families()[family].place(name)
    assert (place and place[1]) == layer


@pytest.mark.parametrize("name", ["score.weight", "classifier.bias", "qa_outputs.weight"])
@pytest.mark.parametrize("kind", BY_FAMILY)
def test_a_language_models_head_is_in_the_body_and_task_heads_are_not(kind, name):
    family = families()[kind]
    assert family.is_head(name)
    assert not family.is_head(family.ties[0][0])
    assert not any(family.is_head(copy) for copy, _ in family.ties)


def test_a_bias_is_never_transposed():
    tower = families()["gpt2"].towers[0]
    assert tower.is_transposed("mlp.c_fc.weight")
    assert not tower.is_transposed("mlp.c_fc.bias")
    assert not tower.is_transposed("ln_1.weight")


@pytest.mark.parametrize("kind", IMAGES)
def test_an_image_has_as_many_tokens_as_the_librarys_layers_see(kind):
    """One was added for a class token that SigLIP lacks; DeiT has two, and registers count."""
    model = build_model(kind).eval()
    tower = next(f.towers[0] for f in families().values() if f.towers[0].block == kind)
    side = model.config.image_size
    with torch.no_grad():
        seen = model(pixel_values=torch.zeros(1, 3, side, side), output_hidden_states=True)
    assert tower.image_tokens(model.config.to_dict()) == seen.hidden_states[-1].shape[1]
