"""A block is the model's own layer: fed the hidden state before it, it gives the one after."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file

from fda_core.blocks.block import build_block, evaluate
from fda_core.checkpoints.layers import Family, families, family_of
from fda_core.errors import UnknownArchitecture
from tests.support.models import MODELS, run_layers, save_model

ROUNDING = 2e-6


def _layers(folder) -> tuple[Family, dict, dict[int, dict[str, torch.Tensor]]]:
    config = json.loads((folder / "config.json").read_text())
    family = family_of(config, where="test")
    tensors = load_file(folder / "model.safetensors")
    prefix = family.prefix_of(tensors)
    layers: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        place = family.place(family.canonical(name, prefix))
        if place is not None:
            layers.setdefault(place[1], {})[place[2]] = tensor
    return family, config, layers


def _shapes(layer):
    return {part: tuple(tensor.shape) for part, tensor in layer.items()}


@pytest.mark.parametrize("kind", MODELS)
def test_every_layer_maps_its_hidden_state_to_the_next(kind, tmp_path):
    model = save_model(kind, tmp_path)
    states = run_layers(kind, model)
    family, config, layers = _layers(tmp_path)
    assert sorted(layers) == [0, 1, 2]
    for number, layer in layers.items():
        block = build_block(family.towers[0], config, _shapes(layer), layer=number)
        with torch.no_grad():
            found = block(layer, states[number])
        torch.testing.assert_close(found, states[number + 1], rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("kind", MODELS)
def test_layers_differ_so_that_the_proof_could_fail(kind, tmp_path):
    model = save_model(kind, tmp_path)
    states = run_layers(kind, model)
    family, config, layers = _layers(tmp_path)
    block = build_block(family.towers[0], config, _shapes(layers[0]))
    with torch.no_grad():
        wrong = block(layers[1], states[0])
    assert (wrong - states[1]).abs().max() > 1e-2


@pytest.mark.parametrize("kind", MODELS)
def test_the_output_does_not_depend_on_insensitive_tensors_and_does_on_all_others(kind, tmp_path):
    model = save_model(kind, tmp_path)
    states = run_layers(kind, model)
    family, config, layers = _layers(tmp_path)
    block = build_block(family.towers[0], config, _shapes(layers[1]), layer=1)
    layer = {part: tensor.double() for part, tensor in layers[1].items()}
    x = states[1].double()
    before = block(layer, x)
    for part in layer:
        moved = {**layer, part: layer[part] + 0.1 * torch.randn_like(layer[part])}
        change = float((block(moved, x) - before).abs().max())
        assert (change < 1e-6) == (part in block.insensitive), (part, change)


def test_no_parameter_of_the_module_holds_memory(tmp_path):
    save_model("bert", tmp_path)
    family, config, layers = _layers(tmp_path)
    block = build_block(family.towers[0], config, _shapes(layers[0]))
    assert all(p.device.type == "meta" for p in block._module.parameters())


def test_a_gradient_reaches_every_tensor_on_disk(tmp_path):
    save_model("dinov2_swiglu", tmp_path)
    family, config, layers = _layers(tmp_path)
    block = build_block(family.towers[0], config, _shapes(layers[0]))
    leaves = {part: tensor.clone().requires_grad_() for part, tensor in layers[0].items()}
    block(leaves, torch.randn(2, 5, 16)).square().sum().backward()
    assert "mlp.weights_in.weight" in leaves
    for part, leaf in leaves.items():
        assert leaf.grad is not None, part
        assert leaf.grad.shape == leaf.shape, part


def test_dropout_is_off(tmp_path):
    save_model("bert", tmp_path)
    family, config, layers = _layers(tmp_path)
    block = build_block(
        family.towers[0], {**config, "hidden_dropout_prob": 0.9}, _shapes(layers[0])
    )
    x = torch.randn(4, 5, 16)
    assert torch.equal(block(layers[0], x), block(layers[0], x))


def test_evaluating_in_batches_changes_nothing_but_rounding(tmp_path):
    save_model("vit", tmp_path)
    family, config, layers = _layers(tmp_path)
    block = build_block(family.towers[0], config, _shapes(layers[0]))
    x = torch.randn(7, 5, 16)
    whole = evaluate(block, layers[0], x, batch=7)
    torch.testing.assert_close(evaluate(block, layers[0], x, batch=2), whole, rtol=0, atol=1e-6)
    assert not whole.requires_grad


def test_weights_of_another_width_than_the_config_are_refused(tmp_path):
    save_model("bert", tmp_path)
    family, config, layers = _layers(tmp_path)
    with pytest.raises(UnknownArchitecture, match=r"intermediate\.dense\.weight.*\(24, 16\)"):
        build_block(family.towers[0], {**config, "intermediate_size": 32}, _shapes(layers[0]))


def test_a_layer_without_a_tensor_the_module_needs_is_refused_by_name(tmp_path):
    save_model("vit", tmp_path)
    family, config, layers = _layers(tmp_path)
    shapes = _shapes(layers[0])
    del shapes["layernorm_before.weight"]
    with pytest.raises(UnknownArchitecture, match=r"layernorm_before\.weight"):
        build_block(family.towers[0], config, shapes)


def test_a_tensor_without_a_place_is_refused_by_name(tmp_path):
    save_model("bert", tmp_path)
    family, config, layers = _layers(tmp_path)
    shapes = {**_shapes(layers[0]), "adapter.down.weight": (4, 16)}
    with pytest.raises(UnknownArchitecture, match=r"adapter\.down\.weight"):
        build_block(family.towers[0], config, shapes)


def test_settings_the_library_refuses_are_an_error_of_ours(tmp_path):
    save_model("bert", tmp_path)
    family, config, layers = _layers(tmp_path)
    with pytest.raises(UnknownArchitecture, match="bert layer"):
        build_block(family.towers[0], {**config, "num_attention_heads": 3}, _shapes(layers[0]))


def test_every_family_in_the_table_has_a_model_here():
    built = {family for family in families() if any(k.startswith(family) for k in MODELS)}
    assert built == set(families())


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("bert", "BertLMHeadModel"),
        ("roberta", "RobertaForCausalLM"),
        ("electra", "ElectraForCausalLM"),
    ],
)
def test_a_bert_that_is_a_decoder_sees_causally(kind, name, tmp_path):
    save_model(kind, tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "is_decoder": True}))
    model = getattr(transformers, name).from_pretrained(tmp_path).eval()
    with torch.no_grad():
        ids = torch.arange(3, 9)[None]
        states = model(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
    family, config, layers = _layers(tmp_path)
    for number, layer in layers.items():
        block = build_block(family.towers[0], config, _shapes(layer), layer=number)
        with torch.no_grad():
            found = block(layer, states[number])
        torch.testing.assert_close(found, states[number + 1], rtol=0, atol=ROUNDING)
