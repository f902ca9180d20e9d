"""A search for σ and the plateau stop in whole merges: plan, cache, metrics, reports, progress."""

import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from fda_core.anchors.config import SIGMAS, TRIAL_STEPS, ConstructConfig
from fda_core.cli.progress import Tally
from fda_core.contract.events import Event, StepReported, UnitFinished
from fda_core.contract.plan import Plan
from fda_core.engine import cache_alias
from fda_core.engine.run import RunOptions, run_plan
from fda_core.errors import Cancelled
from fda_core.methods.fda import Fda
from fda_core.methods.registry import resolve
from fda_core.storage.resolve import storages
from tests.support.command import fda, succeed, tree
from tests.support.merges import HERE, Models, fda_method

SEARCH = {"init": "gaussian", "sigma": "search", "steps": 10}
LONG = {"steps": 1000, "optimiser": "adamw"}
PATIENT = {"steps": 200, "patience": 5, "min_gain": 0.02}
OLD_KEYS = {
    *("anchors", "tokens", "init", "sigma", "rank", "steps", "learning_rate", "weight_decay"),
    *("distance", "cosine", "microbatch"),
}
"""Of `construct` in the cache's key before there were searches and plateaus."""
OPTIONS = RunOptions(workers=1, device="cpu")


@pytest.fixture
def models(tmp_path: Path) -> Models:
    return Models(tmp_path, "bert")


def cached_anchors(workspace: Path) -> dict[tuple[int, str, float | None], bytes]:
    """Return the bytes of every entry of the cache by layer, expert and the σ it came from."""
    found = {}
    for file in workspace.rglob("anchors.bin"):
        metrics = json.loads((file.parent / "metrics.json").read_text())["metrics"]
        found[metrics["layer"], metrics["expert"], metrics["sigma"]] = file.read_bytes()
    return found


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


# --- σ ----------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{}, {"scope": "mlp"}], ids=["layer", "mlp"])
@pytest.mark.parametrize("microbatch", [None, 2])
def test_searched_anchors_are_the_bytes_of_those_with_the_chosen_sigma(
    tmp_path: Path, more: dict[str, Any], microbatch: int | None
) -> None:
    models = Models(tmp_path, "llama")
    construct = {**SEARCH, "microbatch": microbatch}
    models.merge(fda_method(construct=construct, **more), "searched")
    made = models.document("merge_metrics", "searched")["construction"]
    for sigma in SIGMAS:
        given = fda_method(construct={**construct, "sigma": sigma}, **more)
        models.merge(given, f"sigma{sigma}")
    plain = {
        (item["layer"], item["expert"], sigma): item
        for sigma in SIGMAS
        for item in models.document("merge_metrics", f"sigma{sigma}")["construction"]
    }
    anchors = cached_anchors(tmp_path / ".fda-workspace")
    for item in made:
        tried = {trial["sigma"]: trial["alignment"] for trial in item["trials"]}
        place = item["layer"], item["expert"]
        assert tried == {s: max(plain[*place, s]["alignment"]["values"]) for s in SIGMAS}
        assert item["sigma"] == max(SIGMAS, key=tried.__getitem__)
        assert {**item, "trials": []} == plain[*place, item["sigma"]]
    searched = succeed("plan", models.recipe(fda_method(construct=construct, **more), "again"))
    assert all(unit["cached"] for unit in searched["units"] if unit["kind"] == "construct")
    assert len(anchors) == len(plain), "a search and its choice have the same bytes"


def test_the_plan_counts_the_trials_and_says_so(models: Models) -> None:
    searched = models.plan(fda_method(construct={**SEARCH, **LONG}))
    plain = models.plan(fda_method(construct={**LONG, "init": "gaussian"}))
    more = (len(SIGMAS) - 1) * TRIAL_STEPS
    for unit in plain.units:
        if unit.kind == "construct":
            same = searched.unit(unit.id)
            assert same.steps == unit.steps + more == 1000 + more
            assert same.flops * unit.steps == unit.flops * same.steps
            assert same.memory_bytes == unit.memory_bytes + 5 * same.write_bytes
    (note,) = set(searched.notes) - set(plain.notes)
    for word in ("4 sigmas", "1, 0.1, 0.01, 0.001", "120 steps", "360 steps more", "36%"):
        assert word in note
    path = models.recipe(fda_method(construct={**SEARCH, **LONG}))
    assert "360 steps more" in " ".join(fda("plan", path).out.split())


def test_choice_and_trials_are_in_card_and_report_in_a_line_per_layer(models: Models) -> None:
    models.merge(fda_method(construct=SEARCH))
    made = models.document("merge_metrics")["construction"]
    card = (models.root / "out" / "README.md").read_text()
    report = (models.root / "out" / "merge_report.html").read_text()
    assert "The search for σ" in report
    for layer in range(3):
        items = [item for item in made if item["layer"] == layer]
        lines = [x for x in card.splitlines() if x.startswith(f"| {layer} | ")]
        trials = lines[1]
        for k, sigma in enumerate(SIGMAS):
            mean = sum(item["trials"][k]["alignment"] for item in items) / 2
            assert f"{mean:.4f}" in trials
            assert f"{mean:.4f}" in report
            assert (f"{sigma:g}" in trials.split("|")[2]) == (sigma in {i["sigma"] for i in items})


def test_a_merge_without_a_search_has_no_word_of_it(models: Models) -> None:
    models.merge(fda_method(construct={"init": "gaussian"}))
    for name in ("README.md", "merge_report.html"):
        text = (models.root / "out" / name).read_text()
        assert "search for σ" not in text
        assert "plateau ended" not in text
    assert {i["sigma"] for i in models.document("merge_metrics")["construction"]} == {0.01}


def test_an_expert_without_an_update_of_a_layer_is_not_searched_for(models: Models) -> None:
    base = models.tensors("base")
    models.change("a", {name: t for name, t in base.items() if ".layer.1." in name})
    models.merge(fda_method(construct=SEARCH))
    made = models.document("merge_metrics")["construction"]
    (idle,) = [item for item in made if not item["steps_run"]]
    assert (idle["layer"], idle["expert"]) == (1, "a")
    assert idle["trials"] == []
    assert idle["sigma"] is None


# --- the plateau ------------------------------------------------------------------------


def test_a_plateau_stops_where_the_curve_says_and_is_shown(models: Models) -> None:
    models.merge(fda_method(construct=PATIENT))
    plan = models.plan(fda_method(construct=PATIENT), output="elsewhere")
    metrics = models.document("merge_metrics")
    for item in metrics["construction"]:
        values = item["alignment"]["values"]
        bests = [max(values[: k + 1]) for k in range(len(values))]
        flat = [k for k in range(5, len(bests)) if bests[k] - bests[k - 5] < 0.02]
        assert item["settled"]
        assert flat == [len(values) - 1] == [item["steps_run"] - 1]
        unit = plan.unit(f"construct-{item['layer']:03d}-{item['expert']}")
        (took,) = [u for u in metrics["units"] if u["id"] == unit.id]
        assert took["cost"]["flops"] * 200 == unit.flops * item["steps_run"]
    runs = [item["steps_run"] for item in metrics["construction"]]
    said = f"{min(runs)} to {max(runs)} steps"
    for name in ("README.md", "merge_report.html"):
        text = (models.root / "out" / name).read_text()
        assert "A plateau ended 6 of 6 constructions" in text
        assert said in text
    assert f"{runs[0]}, plateau" in (models.root / "out" / "merge_report.html").read_text()


@pytest.mark.parametrize("construct", [PATIENT, SEARCH, {**PATIENT, **SEARCH, "steps": 200}])
def test_progress_reaches_its_total(models: Models, construct: dict[str, Any]) -> None:
    plan = models.plan(fda_method(construct=construct))
    events = _run(plan)
    tally = Tally(plan)
    for event in events:
        tally.take(event)
        if isinstance(event, StepReported):
            assert event.step <= event.steps
            assert tally.steps <= tally.steps_total
    assert tally.steps == tally.steps_total == sum(unit.steps for unit in plan.units)
    assert tally.units == tally.units_total


def _run(plan: Plan, *, cancel_after: int | None = None) -> list[Event]:
    """Run a plan, cancelled when it has asked so many times, which it does at every step."""
    events: list[Event] = []
    asked = count(1)

    def is_cancelled() -> bool:
        return cancel_after is not None and next(asked) > cancel_after

    run_plan(plan, storages(), options=OPTIONS, sink=events.append, is_cancelled=is_cancelled)
    return events


# --- same bytes -------------------------------------------------------------------------


def test_two_workers_change_no_byte(models: Models) -> None:
    method = fda_method(construct={**PATIENT, **SEARCH, "steps": 200})
    models.merge(method, "once")
    path = models.recipe(method, "two")
    succeed("merge", path, "--workers", 2, "--device", "cpu", "--workspace", models.root / "w2")
    assert weights(models.root / "two") == weights(models.root / "once")
    kept = cached_anchors(models.root / ".fda-workspace")
    assert cached_anchors(models.root / "w2") == kept


@pytest.mark.parametrize("construct", [PATIENT, {**PATIENT, **SEARCH, "steps": 200}])
def test_stopping_in_the_middle_changes_no_byte(models: Models, construct: dict[str, Any]) -> None:
    method = fda_method(construct=construct)
    models.merge(method, "once")
    plan = models.plan(method, output=str(models.root / "stopped"))
    plan = plan.model_copy(update={"workspace": str(models.root / "w3")})
    for checks in (45, 110, 140):
        with pytest.raises(Cancelled):
            _run(plan, cancel_after=checks)
    spared = [e for e in _run(plan) if isinstance(e, UnitFinished) and e.source != "run"]
    assert 0 < len(spared) < 6
    assert weights(models.root / "stopped") == weights(models.root / "once")
    kept = cached_anchors(models.root / ".fda-workspace")
    assert cached_anchors(models.root / "w3") == kept


def test_patience_that_never_runs_out_gives_the_bytes_of_none(models: Models) -> None:
    models.merge(fda_method(construct={"steps": 30}), "none")
    models.merge(fda_method(construct={"steps": 30, "patience": 30}), "long")
    assert weights(models.root / "none") == weights(models.root / "long")


# --- the cache --------------------------------------------------------------------------


def _settings(models: Models, **construct: Any) -> dict[str, Any]:
    plan = models.plan(fda_method(construct=construct))
    method = resolve(plan.recipe.method)
    assert isinstance(method, Fda)
    found = cache_alias.settings(plan, method)["construct"]
    assert isinstance(found, dict)
    return found


def test_with_both_off_the_key_is_what_it_was_before_there_were_any(models: Models) -> None:
    published = _settings(models, optimiser="adamw")
    assert set(published) == OLD_KEYS
    assert (published["learning_rate"], published["weight_decay"]) == (0.01, 0.01)
    assert set(_settings(models, optimiser="adamw", init="gaussian", sigma=0.3)) == OLD_KEYS


def test_with_either_on_the_key_has_all_that_counts(models: Models) -> None:
    patient = _settings(models, patience=50)
    assert (patient["patience"], patient["min_gain"]) == (50, ConstructConfig().min_gain)
    searched = _settings(models, **SEARCH)
    assert searched["sigma"] == "search"
    assert searched["trials"] == [SIGMAS, TRIAL_STEPS], "another list is another search"


def test_anchors_of_other_settings_are_not_taken(models: Models) -> None:
    patient = {**PATIENT, "init": "gaussian", "steps": 20}
    others = {
        "patience": {**patient, "patience": 6},
        "gain": {**patient, "min_gain": 0.03},
        "without": {"init": "gaussian", "steps": 20},
        "searched": {**patient, "sigma": "search"},
    }
    taken = {}
    for name, construct in {"one": patient, "same": patient, **others}.items():
        path = models.recipe(fda_method(construct=construct), name)
        taken[name] = succeed("merge", path, *HERE)["units_from_cache"]
    assert taken == {"one": 0, "same": 6, **dict.fromkeys(others, 0)}


def test_an_entry_written_before_there_were_these_metrics_is_still_taken(models: Models) -> None:
    models.merge(fda_method(), "one")
    for file in (models.root / ".fda-workspace" / "anchors").rglob("metrics.json"):
        entry = json.loads(file.read_text())
        for new in ("sigma", "trials", "settled", "optimiser"):
            del entry["metrics"][new]
        file.write_text(json.dumps(entry))
    again = succeed("merge", models.recipe(fda_method(), "two"), *HERE)
    assert again["units_from_cache"] == 6


# --- refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("construct", "words"),
    [
        ({"sigma": "search"}, ("sigma: search", "init: gaussian", "init: weight")),
        ({"sigma": "search", "init": "spectral"}, ("sigma: search", "init: spectral")),
        ({"sigma": "serch", "init": "gaussian"}, ("construct.sigma", "'serch'", "search")),
        ({"sigma": 0, "init": "gaussian"}, ("construct.sigma", "above 0", "not 0")),
        ({"patience": 0}, ("construct.patience", "1", "not 0")),
        ({"patience": -5}, ("construct.patience", "not -5")),
        ({"patience": 2.5}, ("construct.patience", "2.5")),
        ({"patience": 5, "min_gain": 0}, ("construct.min_gain", "greater than 0")),
        ({"patience": 5, "min_gain": 1.5}, ("construct.min_gain", "1.5")),
        ({"min_gain": 0.01}, ("min_gain is 0.01", "patience is unset")),
        ({"patence": 5}, ("construct.patence",)),
    ],
)
def test_bad_combinations_are_refused_when_planning(
    models: Models, construct: dict[str, Any], words: tuple[str, ...]
) -> None:
    before = tree(models.root)
    path = models.recipe(fda_method(construct=construct))
    for command in ("plan", "merge"):
        outcome = fda(command, path, "--json")
        assert outcome.code == 2
        for word in words:
            assert word in outcome.error["message"]
    assert set(tree(models.root)) == {*before, path.name}


def test_the_resolved_recipe_of_either_is_accepted_again(models: Models) -> None:
    for name, construct in (("default", {}), ("patient", PATIENT), ("searched", SEARCH)):
        models.merge(fda_method(construct=construct), name)
        resolved = models.root / name / "merge_recipe.yaml"
        again = succeed("merge", resolved, *HERE, "--output", models.root / f"{name}2")
        assert again["units_from_cache"] == 6
        assert weights(models.root / name) == weights(models.root / f"{name}2")
