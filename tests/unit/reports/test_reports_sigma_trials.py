"""The search for σ and plateaus in report and model card."""

import pytest
from report_factory import NAMES, MergeShape, make_manifest, make_metrics, make_plan

from fda_core.contract.artifacts import Metrics, SigmaTrial
from fda_core.reports.html import render_report
from fda_core.reports.model_card import render_model_card
from fda_core.reports.sigma_trials import trial_table
from fda_core.reports.summary import layer_rows, plateau_sentence

SHAPE = MergeShape(layers=2, experts=NAMES[:3])
SIGMAS = (1.0, 0.1, 0.001)


def _searched(*, idle: frozenset[tuple[int, str]] = frozenset()) -> Metrics:
    """Return metrics where expert k of layer l chose σ number (k + l) // 2."""
    metrics = make_metrics(SHAPE)
    items = []
    for item in metrics.construction:
        k = NAMES.index(item.expert)
        trials = tuple(
            SigmaTrial(sigma=sigma, steps=120, alignment=0.3 + 0.1 * number + 0.01 * k)
            for number, sigma in enumerate(SIGMAS)
        )
        update = {"sigma": SIGMAS[(k + item.layer) // 2], "trials": trials}
        if (item.layer, item.expert) in idle:
            update = {"steps_run": 0}
        items.append(item.model_copy(update=update))
    return metrics.model_copy(update={"construction": tuple(items)})


def _settled(*steps: int) -> Metrics:
    """Return metrics whose first runs stopped at these steps; 0 stands for no run."""
    metrics = make_metrics(SHAPE)
    items = list(metrics.construction)
    for k, count in enumerate(steps):
        items[k] = items[k].model_copy(update={"steps_run": count, "settled": count > 0})
    return metrics.model_copy(update={"construction": tuple(items)})


def _card(metrics: Metrics) -> str:
    return render_model_card(make_plan(SHAPE), metrics, make_manifest(SHAPE, metrics))


def _page(metrics: Metrics) -> str:
    return render_report(make_plan(SHAPE), metrics, make_manifest(SHAPE, metrics))


def test_a_layer_is_one_line_with_its_choices_and_means_over_experts():
    table = trial_table(_searched())
    assert table.head == ("layer", "σ chosen", "σ 1", "σ 0.1", "σ 0.001")
    assert table.rows == [
        ("0", "1 × 2, 0.1 × 1", "0.3100", "0.4100", "0.5100"),
        ("1", "0.1 × 2, 1 × 1", "0.3100", "0.4100", "0.5100"),
    ]


def test_a_layer_whose_experts_agree_names_the_sigma_once_and_one_without_runs_none():
    idle = frozenset({(0, "kanji"), (0, "terrain"), *((1, name) for name in NAMES[:3])})
    table = trial_table(_searched(idle=idle))
    assert table.rows == [
        ("0", "0.1", "0.3200", "0.4200", "0.5200"),
        ("1", "", "n/a", "n/a", "n/a"),
    ]


def test_card_and_report_have_the_table_only_after_a_search():
    assert "| 0 | 1 × 2, 0.1 × 1 | 0.3100 | 0.4100 | 0.5100 |" in _card(_searched())
    page = _page(_searched())
    assert '<figure id="sigma">' in page
    assert "1 × 2, 0.1 × 1" in page
    assert trial_table(make_metrics(SHAPE)) is None
    assert "σ chosen" not in _card(make_metrics(SHAPE)) + _page(make_metrics(SHAPE))


@pytest.mark.parametrize(
    ("steps", "sentence"),
    [
        ((), ""),
        ((0,), ""),
        ((90,), "A plateau ended 1 of 6 constructions, after 90 to 90 steps; the mean over all"),
        ((90, 0, 60), "A plateau ended 2 of 5 constructions, after 60 to 90 steps; the mean"),
    ],
)
def test_plateaus_are_counted_among_constructions_that_ran(steps, sentence):
    said = plateau_sentence(_settled(*steps))
    assert said.startswith(sentence)
    assert bool(said) == bool(sentence)


def test_the_card_has_mean_steps_by_layer_only_where_a_plateau_ended_any():
    metrics = _settled(90, 0, 60)
    assert layer_rows(metrics)[0].construct_steps == 75
    lines = _card(metrics).splitlines()
    (head,) = [line for line in lines if line.startswith("| layer")]
    assert head.endswith("| steps |")
    (first,) = [line for line in lines if line.startswith("| 0 |")]
    assert first.endswith("| 75 |")
    (last,) = [line for line in lines if line.startswith("| **mean**")]
    assert last.endswith(f"| **{(75 + 240) / 2:.0f}** |")
    assert "| steps |" not in _card(make_metrics(SHAPE))


def test_the_report_marks_every_run_that_a_plateau_ended():
    page = _page(_settled(90, 0, 60))
    assert page.count(", plateau<") == 2
    assert "90, plateau" in page
    assert "A plateau ended 2 of 5" in page
