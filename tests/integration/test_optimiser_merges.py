"""The optimiser of stage I in whole merges: plan, resolved recipe, cache, metrics, refusals."""

from pathlib import Path
from typing import Any

import pytest

from fda_core.engine import cache_alias
from fda_core.methods.fda import Fda
from fda_core.methods.registry import resolve
from tests.support.command import fda, succeed, tree
from tests.support.merges import HERE, Models, fda_method

ADAMW = {"optimiser": "adamw"}
MUON = {"optimiser": "muon"}
METRIC = {**MUON, "metric": "update"}


@pytest.fixture
def models(tmp_path: Path) -> Models:
    return Models(tmp_path, "bert")


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def resolved(models: Models, **construct: Any) -> dict[str, Any]:
    found: dict[str, Any] = models.plan(fda_method(construct=construct)).recipe.method.parameters
    return found["construct"]


def settings(models: Models, **construct: Any) -> Any:
    plan = models.plan(fda_method(construct=construct))
    method = resolve(plan.recipe.method)
    assert isinstance(method, Fda)
    return cache_alias.settings(plan, method)["construct"]


def test_the_resolved_recipe_has_all_that_hangs_on_the_optimiser(models: Models) -> None:
    def some(found: dict[str, Any]) -> list[Any]:
        return [found[key] for key in ("optimiser", "schedule", "learning_rate", "weight_decay")]

    assert some(resolved(models, **ADAMW)) == ["adamw", "constant", 0.01, 0.01]
    assert some(resolved(models, **MUON)) == ["muon", "cosine", 1.0, None]
    assert some(resolved(models, **MUON, schedule="constant")) == ["muon", "constant", 1.0, None]
    fading = resolved(models, **ADAMW, schedule="cosine", learning_rate=0.1, weight_decay=0.0)
    assert some(fading) == ["adamw", "cosine", 0.1, 0.0]


def test_what_is_written_out_has_the_key_of_what_is_unset(models: Models) -> None:
    published = {"schedule": "constant", "learning_rate": 0.01, "weight_decay": 0.01}
    assert settings(models, **ADAMW, **published) == settings(models, **ADAMW)
    muon = settings(models, **MUON, schedule="cosine", learning_rate=1.0)
    assert muon == settings(models, **MUON)
    assert not {"weight_decay", "metric"} & set(muon)
    assert settings(models, **MUON, metric="plain") == muon
    others = [
        settings(models, **ADAMW),
        settings(models, **ADAMW, schedule="cosine"),
        settings(models, **ADAMW, weight_decay=0.0),
        settings(models, **MUON, schedule="constant"),
        settings(models, **MUON, learning_rate=0.3),
        settings(models, **METRIC),
        muon,
    ]
    assert all(a != b for k, a in enumerate(others) for b in others[:k])


@pytest.mark.parametrize("more", [{}, {"scope": "mlp"}], ids=["layer", "mlp"])
@pytest.mark.parametrize("construct", [MUON, METRIC], ids=["plain", "update"])
def test_a_merge_with_muon_resumes_from_its_cache_and_resolved_recipe(
    tmp_path: Path, more: dict[str, Any], construct: dict[str, str]
) -> None:
    models = Models(tmp_path, "llama")
    models.merge(fda_method(construct=construct, **more), "once")
    resolved_recipe = models.root / "once" / "merge_recipe.yaml"
    again = succeed("merge", resolved_recipe, *HERE, "--output", models.root / "again")
    units = len(models.document("merge_metrics", "once")["construction"])
    assert again["units_from_cache"] == units
    assert weights(models.root / "once") == weights(models.root / "again")
    adamw = succeed("merge", models.recipe(fda_method(construct=ADAMW, **more), "other"), *HERE)
    assert adamw["units_from_cache"] == 0


def test_two_workers_and_a_search_with_muon_change_no_byte(models: Models) -> None:
    construct = {**METRIC, "init": "gaussian", "sigma": "search", "patience": 5, "steps": 20}
    models.merge(fda_method(construct=construct), "once")
    path = models.recipe(fda_method(construct=construct), "two")
    succeed("merge", path, "--workers", 2, "--device", "cpu", "--workspace", models.root / "w2")
    assert weights(models.root / "once") == weights(models.root / "two")


def test_the_optimiser_is_in_metrics_card_and_report(models: Models) -> None:
    models.merge(fda_method(construct=MUON))
    made = models.document("merge_metrics")["construction"]
    assert {item["optimiser"] for item in made} == {"muon"}
    for item in made:
        assert item["alignment_best"] > item["alignment_start"]
    for name in ("README.md", "merge_report.html"):
        text = (models.root / "out" / name).read_text()
        for setting in ("construct.optimiser", "construct.schedule", "muon", "cosine"):
            assert setting in text


def test_the_plan_counts_muons_products_and_memory(models: Models) -> None:
    adamw, muon = (models.plan(fda_method(construct=name)) for name in (ADAMW, MUON))
    for unit in adamw.units:
        if unit.kind == "construct":
            same = muon.unit(unit.id)
            assert same.steps == unit.steps
            assert same.flops > unit.flops
            assert same.memory_bytes == unit.memory_bytes + 3 * same.write_bytes


def test_anchors_of_the_update_metric_lie_more_in_few_directions(tmp_path: Path) -> None:
    """Also where matrices are stored transposed (GPT-2): then the metric is of their inputs."""
    models = Models(tmp_path, "gpt2")
    heads = {}
    for name, construct in (("plain", MUON), ("update", METRIC)):
        models.merge(fda_method(construct={**construct, "init": "spectral", "steps": 30}), name)
        made = models.document("merge_metrics", name)["construction"]
        spectra = [item["spectrum_end"] for item in made]
        heads[name] = [sum(v**2 for v in s[:4]) / sum(v**2 for v in s) for s in spectra]
    assert all(u > p for u, p in zip(heads["update"], heads["plain"], strict=True))


def test_the_plan_counts_the_metrics_root(models: Models) -> None:
    muon, metric = (models.plan(fda_method(construct=given)) for given in (MUON, METRIC))
    for unit in muon.units:
        if unit.kind == "construct":
            same = metric.unit(unit.id)
            assert same.flops > unit.flops
            assert same.memory_bytes == unit.memory_bytes + 4 * metric.width**2


@pytest.mark.parametrize(
    ("construct", "words"),
    [
        ({"metric": "update"}, ("metric: update", "optimiser: muon", "optimiser: adamw")),
        ({**MUON, "metric": "spectral"}, ("construct.metric", "plain", "update")),
        ({**MUON, "weight_decay": 0.01}, ("weight_decay is 0.01", "optimiser: muon")),
        ({**MUON, "weight_decay": 0.0}, ("weight_decay is 0", "optimiser: adamw")),
        ({**MUON, "weight_decay": 1.5}, ("construct.weight_decay", "1.5")),
        ({"optimiser": "sgd"}, ("construct.optimiser", "adamw", "muon")),
        ({"schedule": "linear"}, ("construct.schedule", "constant", "cosine")),
        ({"learning_rate": 0.0}, ("construct.learning_rate", "greater than 0")),
        ({**MUON, "learning_rate": 11.0}, ("construct.learning_rate", "11")),
    ],
)
def test_what_does_not_fit_is_refused_when_planning(
    models: Models, construct: dict[str, Any], words: tuple[str, ...]
) -> None:
    before = tree(models.root)
    path = models.recipe(fda_method(construct=construct))
    outcome = fda("plan", path, "--json")
    assert outcome.code == 2
    for word in words:
        assert word in outcome.error["message"]
    assert set(tree(models.root)) == {*before, path.name}
