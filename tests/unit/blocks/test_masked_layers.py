"""What decoder layers are given beside their input, and which configs are refused."""

import copy
import json
from functools import partial

import pytest
import torch
from safetensors.torch import load_file

from fda_core.blocks.arguments import Masked, causal_mask, mask_both_ways, rotary_angles
from fda_core.blocks.block import Block, build_block
from fda_core.checkpoints.layers import families
from fda_core.errors import UnknownArchitecture
from tests.support.models import save_model


def _second_layer(folder):
    config = json.loads((folder / "config.json").read_text())
    family = families()[config["model_type"]]
    tensors = load_file(folder / "model.safetensors")
    prefix = family.prefix_of(tensors)
    layer = {}
    for name, tensor in tensors.items():
        place = family.place(family.canonical(name, prefix))
        if place is not None and place[1] == 1:
            layer[place[2]] = tensor
    return family.towers[0], config, layer


def _block(tower, config, layer) -> Block:
    return build_block(tower, config, {p: tuple(t.shape) for p, t in layer.items()}, layer=1)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folders = {}
    for kind in ("gpt2", "llama", "mistral", "qwen2", "gemma2", "phi3"):
        folders[kind] = tmp_path_factory.mktemp(kind)
        save_model(kind, folders[kind])
    return lambda kind: _second_layer(folders[kind])


@pytest.mark.parametrize("tokens", [1, 2, 7])
@pytest.mark.parametrize("window", [None, 1, 3, 7, 50])
def test_a_query_sees_itself_and_at_most_a_window_before_it(tokens, window):
    mask = causal_mask(tokens, window=window, dtype=torch.float64)[0, 0]
    for query in range(tokens):
        for key in range(tokens):
            seen = key <= query and (window is None or query - key < window)
            assert mask[query, key] == (0 if seen else torch.finfo(torch.float64).min)


@pytest.mark.parametrize("tokens", [1, 2, 7])
@pytest.mark.parametrize("window", [None, 1, 3, 50])
def test_both_ways_a_query_sees_what_is_a_window_from_it_at_most(tokens, window):
    mask = mask_both_ways(tokens, window=window, dtype=torch.float64)[0, 0]
    for query in range(tokens):
        for key in range(tokens):
            seen = window is None or abs(query - key) <= window
            assert mask[query, key] == (0 if seen else torch.finfo(torch.float64).min)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2", "phi3"])
def test_what_comes_later_changes_nothing_before_it(saved, kind):
    tower, config, layer = saved(kind)
    block = _block(tower, config, layer)
    x = torch.randn(2, 6, 16)
    later = x.clone()
    later[:, 4:] += 1
    before, after = block(layer, x), block(layer, later)
    assert torch.equal(before[:, :4], after[:, :4])
    assert (before[:, 4:] - after[:, 4:]).abs().max() > 0.1


def test_a_window_ends_what_a_token_sees(saved):
    tower, config, layer = saved("mistral")
    block = _block(tower, config, layer)
    x = torch.randn(2, 6, 16)
    earlier = x.clone()
    earlier[:, :3] += 1
    before, after = block(layer, x), block(layer, earlier)
    torch.testing.assert_close(before[:, 4:], after[:, 4:], rtol=0, atol=1e-6)
    assert (before[:, 3] - after[:, 3]).abs().max() > 1e-3


def test_layers_of_one_model_see_differently(saved):
    tower, config, layer = saved("gemma2")
    x = torch.randn(2, 6, 16)
    shapes = {part: tuple(tensor.shape) for part, tensor in layer.items()}
    sliding = build_block(tower, config, shapes, layer=0)
    full = build_block(tower, config, shapes, layer=1)
    assert (sliding(layer, x) - full(layer, x)).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 3.0}}),
        ("llama", {"num_key_value_heads": 2, "num_attention_heads": 4, "rms_norm_eps": 0.5}),
        ("gemma2", {"attn_logit_softcapping": None}),
        ("phi3", {"sliding_window": None}),
    ],
)
def test_settings_without_tensors_change_the_function(saved, kind, change):
    tower, config, layer = saved(kind)
    x = torch.randn(2, 6, 16)
    usual, other = (_block(tower, given, layer) for given in (config, {**config, **change}))
    assert (usual(layer, x) - other(layer, x)).abs().max() > 1e-4


def test_old_and_new_spellings_of_rotary_settings_are_one(saved):
    tower, config, layer = saved("llama")
    old = {key: value for key, value in config.items() if key != "rope_parameters"}
    old |= {"rope_theta": 77.0, "rope_scaling": {"type": "linear", "factor": 2.0}}
    new = config | {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 77.0}}
    x = torch.randn(2, 6, 16)
    assert torch.equal(_block(tower, old, layer)(layer, x), _block(tower, new, layer)(layer, x))


def test_building_leaves_the_config_as_it_was(saved):
    tower, config, layer = saved("llama")
    given = {key: value for key, value in config.items() if key != "rope_parameters"}
    given |= {"rope_scaling": {"type": "linear", "factor": 2.0}}
    before = copy.deepcopy(given)
    _block(tower, given, layer)(layer, torch.randn(1, 3, 16))
    assert given == before


def test_mask_and_positions_are_made_once_per_token_count_and_dtype():
    made = []

    class Angles(torch.nn.Module):
        def forward(self, _x, positions):
            made.append(positions.shape[1])
            return torch.ones(1, positions.shape[1], 4), torch.zeros(1, positions.shape[1], 4)

    causal = Masked(mask=partial(causal_mask, window=None), rotary=Angles)
    for tokens, dtype in [(5, torch.float32), (3, torch.float32), (5, torch.float64)] * 2:
        _, named = causal(torch.zeros(2, tokens, 8, dtype=dtype))
        assert named["attention_mask"].dtype == dtype
        assert named["position_embeddings"][0].dtype == dtype
        assert named["position_embeddings"][0].shape == (1, tokens, 4)
    assert made == [5, 3, 5]


def test_rotary_angles_do_not_depend_on_longer_inputs_before():
    from transformers.models.llama.configuration_llama import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10.0}
    config = LlamaConfig(
        hidden_size=16, num_attention_heads=2, max_position_embeddings=6, rope_parameters=rope
    )
    short = rotary_angles(lambda: LlamaRotaryEmbedding(config), 4)[0]
    long = rotary_angles(lambda: LlamaRotaryEmbedding(config), 12)[0]
    assert not torch.equal(long[:, :4], short)
    assert torch.equal(rotary_angles(lambda: LlamaRotaryEmbedding(config), 4)[0], short)


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("gemma2", {"use_bidirectional_attention": True}, "both directions"),
        ("llama", {"is_causal": False}, "both directions"),
        ("gemma2", {"sliding_window": None, "layer_types": ["sliding_attention"] * 3}, "window"),
        ("qwen2", {"layer_types": ["full_attention"]}, "layer"),
        ("llama", {"num_attention_heads": 3}, "llama layer"),
        ("gpt2", {"add_cross_attention": True}, "needs 'crossattention"),
    ],
)
def test_configs_whose_layers_are_not_known_are_refused(saved, kind, change, said):
    tower, config, layer = saved(kind)
    with pytest.raises(UnknownArchitecture, match=said):
        _block(tower, {**config, **change}, layer)


def test_gpt2_in_float64_ignores_the_setting_for_half_precision(saved):
    tower, config, layer = saved("gpt2")
    wide = {part: tensor.double() for part, tensor in layer.items()}
    x = torch.randn(2, 5, 16, dtype=torch.float64)
    upcast = _block(tower, {**config, "reorder_and_upcast_attn": True}, layer)
    assert torch.equal(upcast(wide, x), _block(tower, config, layer)(wide, x))
