"""Rows and totals are what their definitions say."""

import dataclasses
import math

import pytest
from report_factory import NAMES, MergeShape, make_metrics

from fda_core.contract.artifacts import TaskVectorMetrics
from fda_core.reports.averages import mean, quantile
from fda_core.reports.summary import distance_moved, layer_rows, totals
from fda_core.reports.task_vectors import norm_ratios, pair_cosines, vectors_by_layer


def test_rows_are_the_layers_in_order_then_outside():
    assert [row.name for row in layer_rows(make_metrics(MergeShape(layers=3)))] == [
        *"012", "outside"
    ]  # fmt: skip
    inside = layer_rows(make_metrics(MergeShape(layers=3, outside=False)))
    assert [row.layer for row in inside] == [0, 1, 2]


def test_a_row_is_the_mean_over_experts():
    metrics = make_metrics(MergeShape(layers=3))
    row = layer_rows(metrics)[1]
    best = [item.alignment_best for item in metrics.construction if item.layer == 1]
    drifts = metrics.adaptation[1].drift.values()
    assert row.alignment_best == pytest.approx(sum(best) / 3)
    assert row.drift_start == pytest.approx(sum(drift.start for drift in drifts) / 3)
    assert row.drift_result == pytest.approx(sum(drift.result for drift in drifts) / 3)
    assert row.adapt_seconds == metrics.adaptation[1].seconds


def test_construct_seconds_of_all_layers_are_those_of_all_units():
    metrics = make_metrics(MergeShape(layers=3))
    spent = sum(row.construct_seconds for row in layer_rows(metrics))
    kinds = {kind.kind: kind for kind in totals(metrics).kinds}
    assert spent == pytest.approx(kinds["construct"].seconds)
    assert kinds["construct"].units == 9


def test_values_that_are_missing_do_not_count():
    shape = MergeShape(layers=2, missing=frozenset({(0, NAMES[0])}))
    metrics = make_metrics(shape)
    best = [c.alignment_best for c in metrics.construction if c.layer == 0 and c.alignment_best]
    assert len(best) == 2
    assert layer_rows(metrics)[0].alignment_best == pytest.approx(sum(best) / 2)


def test_a_method_without_anchors_has_none_and_no_seconds():
    rows = layer_rows(make_metrics(MergeShape(method="ties")))
    assert {row.alignment_best for row in rows} == {None}
    assert {row.drift_result for row in rows} == {None}
    assert sum(row.construct_seconds + row.adapt_seconds for row in rows) == 0
    assert all(row.task_vector_ratio for row in rows)


def test_rows_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        layer_rows(make_metrics(MergeShape(layers=1)))[0].layer = 7


def test_totals_are_means_over_pairs_and_leave_outside_out():
    metrics = make_metrics(MergeShape(layers=4))
    whole = totals(metrics)
    best = [item.alignment_best for item in metrics.construction]
    ratios = [
        norm / item.base_norm
        for item in metrics.task_vectors
        if item.layer is not None
        for norm in item.norms.values()
    ]
    assert whole.alignment_best == pytest.approx(sum(best) / len(best))
    assert whole.task_vector_ratio == pytest.approx(sum(ratios) / len(ratios))
    assert whole.seconds == metrics.totals.seconds
    assert whole.units == 12 + 4 + 1
    assert sum(kind.units for kind in whole.kinds) == whole.units


def test_every_pair_counts_once():
    vectors = make_metrics(MergeShape(layers=1)).task_vectors[0]
    assert pair_cosines(vectors) == [
        vectors.cosines[0][1], vectors.cosines[0][2], vectors.cosines[1][2]
    ]  # fmt: skip


def test_a_base_of_norm_zero_has_no_ratio():
    vectors = make_metrics(MergeShape(layers=1)).task_vectors[0]
    flat = vectors.model_copy(update={"base_norm": 0.0})
    assert set(norm_ratios(flat).values()) == {None}


def test_distance_moved_is_the_mean_over_layers():
    metrics = make_metrics(MergeShape(layers=2))
    inside = [item for item in metrics.task_vectors if item.layer is not None]
    expected = sum(item.norms["kanji"] / item.base_norm for item in inside) / 2
    assert distance_moved(metrics, "kanji") == pytest.approx(expected)
    assert distance_moved(metrics, "nobody") is None


def test_mean_ignores_none_and_what_is_not_finite():
    assert mean([1.0, None, 3.0, float("nan"), float("inf")]) == 2.0
    assert mean([None]) is None


def test_quantiles_run_from_smallest_to_largest():
    values = [4.0, 1.0, 3.0, 2.0]
    assert [quantile(values, share) for share in (0, 0.5, 1)] == [1.0, 2.5, 4.0]


def measured(layer, base, vectors):
    """Return what one would measure on vectors given as lists of numbers."""

    def norm(values):
        return math.sqrt(sum(value * value for value in values))

    def cosine(a, b):
        size = norm(a) * norm(b)
        return sum(x * y for x, y in zip(a, b, strict=True)) / size if size else None

    rows = list(vectors.values())
    return TaskVectorMetrics(
        layer=layer,
        base_norm=norm(base),
        norms={name: norm(values) for name, values in vectors.items()},
        cosines=tuple(tuple(cosine(a, b) for b in rows) for a in rows),
        sign_conflict_ratio=0.5,
        rounded_away_ratio=0.0,
    )


def test_pieces_of_outside_join_to_what_the_whole_would_measure():
    pieces = [
        measured(None, [1.0, 2.0], {"a": [0.5, -1.0], "b": [0.25, 1.0]}),
        measured(None, [3.0], {"a": [0.0], "b": [2.0]}),
    ]
    whole = measured(None, [1.0, 2.0, 3.0], {"a": [0.5, -1.0, 0.0], "b": [0.25, 1.0, 2.0]})
    metrics = make_metrics(MergeShape(layers=1, experts=("a", "b"), outside=False))
    metrics = metrics.model_copy(update={"task_vectors": (*pieces, *metrics.task_vectors)})
    inside, joined = vectors_by_layer(metrics)
    assert inside.layer == 0
    assert joined.base_norm == pytest.approx(whole.base_norm)
    assert joined.norms == pytest.approx(whole.norms)
    assert joined.cosines[0] == pytest.approx(whole.cosines[0])
    assert joined.sign_conflict_ratio == pytest.approx(0.5)
    assert [row.name for row in layer_rows(metrics)] == ["0", "outside"]
