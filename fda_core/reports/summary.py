"""Metrics summed up: one row a layer, one row a kind of unit, one row for the whole merge."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from fda_core.contract.artifacts import AdaptMetrics, ConstructMetrics, Metrics, UnitSummary
from fda_core.contract.plan import UnitKind
from fda_core.reports.averages import mean
from fda_core.reports.task_vectors import norm_ratios, pair_cosines, vectors_by_layer

KINDS: tuple[UnitKind, ...] = ("construct", "merge", "publish")


@dataclass(frozen=True, kw_only=True)
class LayerRow:
    """One layer, its means over experts; None where there is nothing to average."""

    layer: int | None
    """None for everything outside of layers."""
    alignment_start: float | None
    alignment_best: float | None
    drift_start: float | None
    drift_result: float | None
    task_vector_ratio: float | None
    """Norm of the task vector divided by the norm of the base."""
    sign_conflict_ratio: float | None
    construct_steps: float | None
    """Of the anchors kept; trials of σ are not in it."""
    construct_seconds: float
    adapt_seconds: float

    @property
    def name(self) -> str:
        """Return how the layer is called in tables."""
        return "outside" if self.layer is None else str(self.layer)


@dataclass(frozen=True, kw_only=True)
class KindTotal:
    """All units of one kind together; the peak is the largest of any one."""

    kind: UnitKind
    units: int
    cached: int
    """How many came from the anchor cache."""
    seconds: float
    peak_memory_bytes: int
    flops: int
    read_bytes: int
    write_bytes: int


@dataclass(frozen=True, kw_only=True)
class Totals:
    """The whole merge in one row; means are over every (layer, expert) that has a value."""

    alignment_start: float | None
    alignment_best: float | None
    drift_start: float | None
    drift_result: float | None
    task_vector_ratio: float | None
    task_vector_cosine: float | None
    sign_conflict_ratio: float | None
    seconds: float
    """Summed over units; with several workers less time passed on the clock."""
    peak_memory_bytes: int
    flops: int
    read_bytes: int
    write_bytes: int
    units: int
    cached: int
    kinds: tuple[KindTotal, ...]


def layer_rows(metrics: Metrics) -> list[LayerRow]:
    """Return a row for every layer in order, then one for outside if it was measured."""
    layers: list[int | None] = list(range(metrics.layers))
    if any(vectors.layer is None for vectors in metrics.task_vectors):
        layers.append(None)
    return [_layer_row(metrics, layer) for layer in layers]


def totals(metrics: Metrics) -> Totals:
    """Return the whole merge in one row."""
    drifts = [drift for adapted in metrics.adaptation for drift in adapted.drift.values()]
    vectors = [item for item in vectors_by_layer(metrics) if item.layer is not None]
    return Totals(
        alignment_start=mean(item.alignment_start for item in metrics.construction),
        alignment_best=mean(item.alignment_best for item in metrics.construction),
        drift_start=mean(drift.start for drift in drifts),
        drift_result=mean(drift.result for drift in drifts),
        task_vector_ratio=mean(ratio for item in vectors for ratio in norm_ratios(item).values()),
        task_vector_cosine=mean(value for item in vectors for value in pair_cosines(item)),
        sign_conflict_ratio=mean(item.sign_conflict_ratio for item in vectors),
        seconds=metrics.totals.seconds,
        peak_memory_bytes=metrics.totals.peak_memory_bytes,
        flops=metrics.totals.flops,
        read_bytes=metrics.totals.read_bytes,
        write_bytes=metrics.totals.write_bytes,
        units=len(metrics.units),
        cached=sum(unit.source == "cache" for unit in metrics.units),
        kinds=tuple(_kind_total(metrics, kind) for kind in KINDS if _of_kind(metrics, kind)),
    )


def plateau_sentence(metrics: Metrics, *, before: str = "") -> str:
    """Return how many constructions a plateau ended, and when; nothing if none."""
    moved = _moved(metrics.construction)
    settled = [item.steps_run for item in moved if item.settled]
    if not settled:
        return ""
    average = math.fsum(item.steps_run for item in moved) / len(moved)
    return (
        f"{before}A plateau ended {len(settled):,} of {len(moved):,} constructions, after "
        f"{min(settled):,} to {max(settled):,} steps; the mean over all is {average:,.0f}."
    )


def _moved(items: Iterable[ConstructMetrics]) -> list[ConstructMetrics]:
    """Return those that there was something to construct for."""
    return [item for item in items if item.steps_run]


def distance_moved(metrics: Metrics, expert: str) -> float | None:
    """Return an expert's task-vector norm divided by the base's, mean over layers."""
    return mean(
        norm_ratios(item).get(expert)
        for item in vectors_by_layer(metrics)
        if item.layer is not None
    )


def _layer_row(metrics: Metrics, layer: int | None) -> LayerRow:
    constructed = [item for item in metrics.construction if item.layer == layer]
    adapted = [item for item in metrics.adaptation if item.layer == layer]
    drifts = [drift for item in adapted for drift in item.drift.values()]
    vectors = [item for item in vectors_by_layer(metrics) if item.layer == layer]
    return LayerRow(
        layer=layer,
        alignment_start=mean(item.alignment_start for item in constructed),
        alignment_best=mean(item.alignment_best for item in constructed),
        drift_start=mean(drift.start for drift in drifts),
        drift_result=mean(drift.result for drift in drifts),
        task_vector_ratio=mean(ratio for item in vectors for ratio in norm_ratios(item).values()),
        sign_conflict_ratio=mean(item.sign_conflict_ratio for item in vectors),
        construct_steps=mean(item.steps_run for item in _moved(constructed)),
        construct_seconds=_construct_seconds(metrics, layer),
        adapt_seconds=_adapt_seconds(adapted),
    )


def _construct_seconds(metrics: Metrics, layer: int | None) -> float:
    units = (unit for unit in _of_kind(metrics, "construct") if unit.layer == layer)
    return math.fsum(unit.cost.seconds for unit in units)


def _adapt_seconds(adapted: Iterable[AdaptMetrics]) -> float:
    return math.fsum(item.seconds for item in adapted)


def _kind_total(metrics: Metrics, kind: UnitKind) -> KindTotal:
    units = _of_kind(metrics, kind)
    return KindTotal(
        kind=kind,
        units=len(units),
        cached=sum(unit.source == "cache" for unit in units),
        seconds=math.fsum(unit.cost.seconds for unit in units),
        peak_memory_bytes=max((unit.cost.peak_memory_bytes for unit in units), default=0),
        flops=sum(unit.cost.flops for unit in units),
        read_bytes=sum(unit.cost.read_bytes for unit in units),
        write_bytes=sum(unit.cost.write_bytes for unit in units),
    )


def _of_kind(metrics: Metrics, kind: UnitKind) -> list[UnitSummary]:
    return [unit for unit in metrics.units if unit.kind == kind]
