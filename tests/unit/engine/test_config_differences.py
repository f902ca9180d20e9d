"""Configs of a base and an expert: what is refused, what is said, and what is the same."""

from typing import Any

import pytest

from fda_core.engine.config_differences import check_function, tuned_differences
from fda_core.errors import NotSameBase

YARN = {"rope_type": "yarn", "factor": 4.0}
LINEAR = {"type": "linear", "factor": 8.0}
GEMMA = {"rope_theta": 1e6, "rope_local_base_freq": 1e4}
BY_KIND = {
    "full_attention": {"rope_theta": 1e6, "rope_type": "default"},
    "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"},
}
PYTHIA = {"rotary_emb_base": 1e4, "rotary_pct": 0.25}
TURNED = {"rope_theta": 1e4, "rope_type": "default", "partial_rotary_factor": 0.25}


@pytest.mark.parametrize("key", ["num_attention_heads", "n_heads", "hidden_act", "activation"])
def test_another_function_is_refused(key: str) -> None:
    with pytest.raises(NotSameBase, match=f"'a' has {key} 'x', the base has 'y'"):
        check_function({key: "y"}, {key: "x"}, whose="a")
    check_function({key: "y"}, {}, whose="a")
    check_function({key: "y"}, {key: "y"}, whose="a")


@pytest.mark.parametrize(
    ("base", "expert"),
    [
        ({}, {"sliding_window": 128}),
        ({"rms_norm_eps": 1e-5}, {"rms_norm_eps": 0.00001}),
        ({"rope_theta": 10000}, {"rope_theta": 10000.0, "rope_scaling": None}),
        (
            {"rope_theta": 1e4, "rope_scaling": {"type": "linear", "factor": 2.0}},
            {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
        ),
        ({"rope_theta": 1e4}, {"rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}}),
        ({"rope_theta": 1e4}, {}),
        ({**GEMMA, "rope_scaling": None}, {"rope_parameters": BY_KIND}),
        (
            {**GEMMA, "rope_scaling": LINEAR},
            {
                "rope_parameters": {
                    **BY_KIND,
                    "full_attention": {"rope_theta": 1e6, "rope_type": "linear", "factor": 8.0},
                }
            },
        ),
        (PYTHIA, {"rope_parameters": TURNED}),
        ({"rotary_emb_base": 1e4}, {"rope_parameters": TURNED}),
        ({"rope_theta": 1e4, "partial_rotary_factor": 0.25}, {"rope_parameters": TURNED}),
        ({"max_position_embeddings": 4}, {"max_position_embeddings": 8}),
    ],
)
def test_what_means_the_same_is_no_difference(base: dict[str, Any], expert: dict[str, Any]) -> None:
    assert tuned_differences(base, expert) == []
    assert tuned_differences(expert, base) == []


@pytest.mark.parametrize(
    ("base", "expert", "said"),
    [
        ({"sliding_window": None}, {"sliding_window": 128}, ["sliding_window 128, the base None"]),
        ({"rms_norm_eps": 1e-5}, {"rms_norm_eps": 1e-6}, ["rms_norm_eps 1e-06, the base 1e-05"]),
        (
            {"rope_theta": 1e4},
            {"rope_theta": 1e6},
            ["rope's rope_theta 1000000.0, the base 10000.0"],
        ),
        (
            {"rope_parameters": BY_KIND},
            {**GEMMA, "rope_local_base_freq": 2e4, "rope_scaling": LINEAR},
            [
                "rope's full_attention factor 8.0, the base None",
                "rope's full_attention rope_type 'linear', the base 'default'",
                "rope's sliding_attention rope_theta 20000.0, the base 10000.0",
            ],
        ),
        (
            PYTHIA,
            {"rotary_emb_base": 2e4, "rotary_pct": 1.0},
            [
                "rope's partial_rotary_factor 1.0, the base 0.25",
                "rope's rope_theta 20000.0, the base 10000.0",
            ],
        ),
        (
            {"rope_theta": 1e4},
            {"rope_parameters": {"rope_theta": 1e4, **YARN}},
            ["rope's factor 4.0, the base None", "rope's rope_type 'yarn', the base 'default'"],
        ),
    ],
)
def test_what_an_expert_was_tuned_with_is_named(
    base: dict[str, Any], expert: dict[str, Any], said: list[str]
) -> None:
    assert tuned_differences(base, expert) == said
