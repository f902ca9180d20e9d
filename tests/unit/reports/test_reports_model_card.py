"""The model card reads well on a hub and tells nothing about the machine it was made on."""

import re

import pytest
import yaml
from report_factory import NAMES, MergeShape, make_manifest, make_merge, make_metrics, make_plan

from fda_core.contract.recipe import Recipe
from fda_core.reports.model_card import render_model_card

HEADS = dict.fromkeys(NAMES[:2], ("classifier.weight", "classifier.bias"))


def card(shape):
    return render_model_card(*make_merge(shape))


def front(text):
    return yaml.safe_load(text.split("---\n")[1])


def tables(text):
    return [block.splitlines() for block in re.findall(r"(?:^\|.*\n?)+", text, re.M)]


def test_front_matter_is_yaml_that_hubs_know():
    assert front(card(MergeShape())) == {
        "library_name": "transformers",
        "tags": ["merge", "model-merging", "fda", "functional-dual-anchors", "arxiv:2510.21223"],
        "base_model": ["dinov2-small", "kanji-tuned", "terrain-tuned", "mnist-tuned"],
        "base_model_relation": "merge",
    }


def test_another_method_is_not_tagged_as_fda_and_cites_no_paper():
    text = card(MergeShape(method="ties"))
    assert front(text)["tags"] == ["merge", "model-merging", "ties"]
    assert "2510.21223" not in text
    assert "makes no anchors" in text


@pytest.mark.parametrize("method", ["fda", "ties"])
def test_no_absolute_path_is_in_the_card(method):
    shape = MergeShape(
        method=method,
        heads=HEADS,
        warnings=("/home/ada/models/mnist-tuned/model.safetensors: odd",),
    )
    text = card(shape)
    assert "/home" not in text
    assert not re.search(r"(?<![\w.:/<])/\w+/", text)
    assert "model.safetensors: odd" in text


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("/models/a b: c #1", "a-b-c-1"),
        ("/models/--weird..name--", "weird.name"),
        ("/hub/models--google--vit-base/snapshots/0123", "google/vit-base"),
        ("s3://bucket/models/base-7b", "base-7b"),
        ("/models/日本", "model"),
        ("/models/yes", "yes"),
    ],
)
def test_the_base_is_named_as_hubs_accept_it(folder, name):
    assert front(card(MergeShape(base=folder)))["base_model"][0] == name


def test_every_layer_has_a_row_with_its_means():
    shape = MergeShape(layers=5)
    rows = next(t for t in tables(card(shape)) if t[0].startswith("| layer"))
    assert [row.split("|")[1].strip() for row in rows[2:]] == [
        *"01234", "outside", "**mean**"
    ]  # fmt: skip
    first = [item.alignment_best for item in make_metrics(shape).construction if item.layer == 0]
    assert f"{sum(first) / 3:.4f}" in rows[2]


def test_every_table_has_rows_as_wide_as_its_head():
    for rows in tables(card(MergeShape(heads=HEADS, base="/models/a|b`c"))):
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1


def test_heads_kept_are_listed_with_a_way_to_load_them():
    text = card(MergeShape(heads=HEADS))
    assert (
        "| `kanji` | `heads/kanji.safetensors` | `classifier.weight`, `classifier.bias` |" in text
    )
    assert 'load_file("dinov2-three/heads/kanji.safetensors")' in text


def test_python_examples_compile():
    text = card(MergeShape(heads=HEADS, output='/out/odd"name\\'))
    examples = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len(examples) == 2
    for example in examples:
        compile(example, "card", "exec")


def test_heads_dropped_are_not_promised():
    shape = MergeShape(heads=HEADS)
    plan = make_plan(shape)
    recipe = Recipe.model_validate({**plan.recipe.model_dump(), "heads": "drop"})
    metrics = make_metrics(shape)
    plan = plan.model_copy(update={"recipe": recipe})
    text = render_model_card(plan, metrics, make_manifest(shape, metrics))
    assert "did not keep them" in text
    assert "heads/kanji" not in text


def test_settings_versions_and_commands_are_there():
    text = card(MergeShape())
    for word in (
        "| `construct.steps` | `240` |",
        "| `torch` | `2.13.0` |",
        "fda merge merge_recipe.yaml",
        "fda verify",
        "Dinov2Model.from_pretrained",
        "@article{shi2025fda",
    ):
        assert word in text


def test_a_class_name_that_is_no_name_is_not_put_into_code():
    shape = MergeShape()
    plan, metrics, manifest = make_merge(shape)
    config = {"architectures": ["os; import evil"]}
    plan = plan.model_copy(update={"base": plan.base.model_copy(update={"config": config})})
    text = render_model_card(plan, metrics, manifest)
    assert "evil" not in text
    assert "AutoModel.from_pretrained" in text


def test_markup_in_names_is_shown_and_not_obeyed():
    text = card(MergeShape(output="/out/<script>*x*", warnings=("a `b` <i> | [c](d)",)))
    assert "# \\<script\\>\\*x\\*" in text
    assert "a \\`b\\` \\<i\\> \\| \\[c\\](d)" in text


def test_equal_merges_give_equal_cards():
    assert card(MergeShape()) == card(MergeShape())
