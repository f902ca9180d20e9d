"""From a batch to one recipe a job."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from api.batches.expanding import expand, fill
from fda_core.contract.rest.batches import BatchRequest
from fda_core.errors import BadParameter, BatchInvalid
from tests.support.stand_ins import recipe

SWEEP = {"method.scale": [0.5, 1e-5], "experts.0.weight": [1.0, 2.0]}
MERGEKIT = """
merge_method: ties
base_model: /models/base
models:
  - {model: /models/one, parameters: {density: 0.5, weight: 1}}
  - {model: /models/two, parameters: {density: 0.5, weight: 1}}
"""


def errors_of(request: BatchRequest) -> list[dict[str, Any]]:
    with pytest.raises(BatchInvalid) as refused:
        expand(request)
    errors = refused.value.context["errors"]
    assert isinstance(errors, list)
    return errors


def test_a_sweep_is_every_combination_in_document_order():
    entries = expand(
        BatchRequest(recipe=recipe(), sweep=SWEEP, output="/o/{index}_{scale}_{experts.0.weight}")
    )
    assert [tuple(entry.values.values()) for entry in entries] == [
        (0.5, 1.0),
        (0.5, 2.0),
        (1e-5, 1.0),
        (1e-5, 2.0),
    ]
    assert [entry.output for entry in entries] == [
        "/o/0_0.5_1.0",
        "/o/1_0.5_2.0",
        "/o/2_1e-05_1.0",
        "/o/3_1e-05_2.0",
    ]
    last = entries[-1].recipe
    assert (last["method"]["scale"], last["experts"][0]["weight"]) == (1e-5, 2.0)


def test_the_jobs_share_nothing_with_each_other_or_the_request():
    sent = recipe()
    one, two = expand(
        BatchRequest(recipe=sent, sweep={"method.scale": [0.1, 0.2]}, output="/o/{scale}")
    )
    assert sent == recipe()
    assert one.recipe["method"]["scale"] == 0.1
    assert two.recipe["method"]["scale"] == 0.2
    assert one.recipe["experts"][0] is not two.recipe["experts"][0]


def test_methods_can_be_swept_over():
    entries = expand(
        BatchRequest(
            recipe=recipe(),
            sweep={"method": ["linear", {"name": "ties", "density": 0.2}]},
            output="/o/{method}",
        )
    )
    assert [entry.output for entry in entries] == ["/o/linear", "/o/ties"]


def test_a_mergekit_document_is_translated_and_swept_in_our_terms():
    entries = expand(BatchRequest(recipe=MERGEKIT, sweep={"seed": [1, 2]}, output="/o/{seed}"))
    assert [entry.recipe["seed"] for entry in entries] == [1, 2]
    assert "merge_method" not in entries[0].recipe


def test_recipes_keep_their_own_outputs_and_can_have_placeholders():
    entries = expand(
        BatchRequest(recipes=[recipe(output="/o/{index}"), recipe(output="/o/b{{x}}")])
    )
    assert [entry.output for entry in entries] == ["/o/0", "/o/b{x}"]


def test_all_that_is_wrong_is_told_entry_by_entry():
    errors = errors_of(
        BatchRequest(
            recipes=[
                recipe(output="/o/a"),
                recipe(output="/o/b", method="tiess"),
                recipe(output="/o/c", sed=3),
                recipe(output="/o/a"),
                recipe(output=None),
            ]
        )
    )
    assert [(e["entry"], e["pointer"], e["code"]) for e in errors] == [
        (1, "/recipes/1", "unknown_method"),
        (2, "/recipes/2", "unknown_key"),
        (3, "/recipes/3", "output_exists"),
        (4, "/recipes/4", "bad_parameter"),
    ]
    assert "job 0" in errors[2]["message"]


@pytest.mark.parametrize(
    ("outputs", "clash"),
    [
        (["/o/a", "/o/b/../a"], "to the output of job 0"),
        (["/o/a", "/o/a/"], "to the output of job 0"),
        (["/o/a/b", "/o/a"], "inside the output of job 1"),
        (["s3://bucket/a", "s3://bucket/a/b/c"], "inside the output of job 0"),
    ],
)
def test_outputs_in_one_place_are_refused(outputs: list[str], clash: str):
    errors = errors_of(BatchRequest(recipes=[recipe(output=output) for output in outputs]))
    assert len(errors) == 1
    assert clash in errors[0]["message"]


def test_names_that_only_begin_alike_are_no_clash():
    assert len(expand(BatchRequest(recipes=[recipe(output="/o/a"), recipe(output="/o/ab")]))) == 2


def test_a_sweep_without_placeholders_is_refused_with_what_to_do():
    errors = errors_of(BatchRequest(recipe=recipe(), sweep={"seed": [1, 2, 3]}))
    assert [error["entry"] for error in errors] == [1, 2]
    assert "{index}" in errors[0]["hint"]


def test_an_unknown_placeholder_names_those_there_are():
    errors = errors_of(BatchRequest(recipe=recipe(), sweep={"seed": [1]}, output="/o/{sed}"))
    assert "'{sed}'" in errors[0]["message"]
    assert "{seed}" in errors[0]["hint"]


def test_an_end_that_two_paths_share_is_no_placeholder():
    sweep = {"experts.0.weight": [1.0], "experts.1.weight": [2.0]}
    errors = errors_of(BatchRequest(recipe=recipe(), sweep=sweep, output="/o/{weight}"))
    assert "{experts.1.weight}" in errors[0]["hint"]


@pytest.mark.parametrize("value", ["..", "../../etc", "a/b", "/", ".", "", "a b\n"])
def test_values_never_leave_their_part_of_the_path(value: str):
    (entry,) = expand(
        BatchRequest(recipe=recipe(), sweep={"base": [value or "/x"]}, output="/o/{base}/end")
    )
    assert entry.output.startswith("/o/")
    assert entry.output.count("/") == 3


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("method.scale.x", "nothing below"),
        ("experts.9.weight", "2 entries"),
        ("experts.²", "2 entries"),
        ("a..b", "not key.path"),
        ("", "not key.path"),
        ("nothing", "no such key"),
    ],
)
def test_paths_that_lead_nowhere_are_refused(path: str, word: str):
    errors = errors_of(BatchRequest(recipe=recipe(), sweep={path: [1]}, output="/o/{index}"))
    assert word in errors[0]["message"]


@pytest.mark.parametrize(
    ("request_", "word"),
    [
        ({}, "either recipes"),
        ({"recipe": recipe(), "recipes": [recipe()]}, "either recipes"),
        ({"recipes": [recipe()], "sweep": {"seed": [1]}}, "goes with recipe"),
        ({"recipe": recipe(), "sweep": {"seed": []}}, "seed has no values"),
        ({"recipe": recipe(), "sweep": {"a": [0] * 30, "b": [0] * 30}}, "900 combinations"),
        ({"recipe": recipe(), "sweep": {"seed": [float("nan")]}}, "NaN"),
        ({"recipe": recipe(), "sweep": {"seed": [float("inf")]}}, "infinity"),
        ({"recipe": recipe(base="a\0b")}, "NUL"),
        ({"recipe": recipe(base="a\ud800b")}, "half a character"),
        ({"recipe": recipe(), "name": "a\0b"}, "pattern"),
        ({"recipe": recipe(), "output": "/a\nb"}, "pattern"),
        ({"recipes": []}, "at least 1"),
        (
            {"recipe": recipe(), "deadline": "2030-01-01T00:00:00Z", "begin_within_seconds": 3},
            "either deadline",
        ),
    ],
)
def test_requests_that_make_no_sense(request_: dict[str, Any], word: str):
    with pytest.raises(ValidationError, match=word):
        BatchRequest.model_validate(request_)


@given(st.text(st.characters(exclude_characters="{}"), max_size=30))
def test_a_template_without_placeholders_is_as_it_was(template: str):
    assert fill(template, {"index": "3"}) == template


@given(st.text("ab{}", max_size=12))
def test_doubled_braces_stand_for_braces(text: str):
    assert fill(text.replace("{", "{{").replace("}", "}}"), {}) == text


@given(st.text("ab{}", max_size=12))
def test_any_template_is_filled_in_or_refused_by_name(template: str):
    try:
        fill(template, {"a": "x"})
    except BadParameter as refused:
        error = refused
    else:
        return
    assert error.context["key"] == "output"


def test_a_sweep_goes_over_what_one_expert_has_of_its_own():
    sent = {**recipe(), "method": "ties"}
    path = "experts.0.parameters.density"
    one, two = expand(BatchRequest(recipe=sent, sweep={path: [0.2, 0.4]}, output="/o/{index}"))
    assert [e.recipe["experts"][0]["parameters"] for e in (one, two)] == [
        {"density": 0.2},
        {"density": 0.4},
    ]
    (error,) = errors_of(BatchRequest(recipe=sent, sweep={path: [0.2, 2.0]}, output="/o/{index}"))
    assert "experts.0.parameters.density" in str(error)
