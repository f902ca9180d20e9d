"""A job's metrics: from its output, or from its journal while it is under way."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pydantic import ValidationError

from fda_core.contract.artifacts import (
    METRICS_FILE,
    ConstructMetrics,
    Curve,
    Metrics,
    UnitRecord,
    UnitSummary,
)
from fda_core.contract.rest.metrics import JobMetrics
from fda_core.contract.uris import join
from fda_core.engine import layout
from fda_core.errors import NotFound
from fda_core.storage.base import Storage

READERS = 8
T = TypeVar("T")


def read_metrics(
    storage: Storage,
    *,
    job_id: str,
    method: str,
    experts: Sequence[str],
    output: str | None,
    workspace: str,
) -> JobMetrics:
    """Return what a job measured. `output` is where it published, None if it has not."""
    found = None if output is None else _published(storage, output, job_id)
    if found is not None:
        return JobMetrics(
            job=job_id,
            method=method,
            experts=list(experts),
            source="output",
            construction=list(found.construction),
            adaptation=list(found.adaptation),
            task_vectors=list(found.task_vectors),
            units=list(found.units),
        )
    records = read_records(storage, workspace, job_id)
    adaptation = [item for record in records for item in record.adaptation]
    vectors = [item for record in records for item in record.task_vectors]
    return JobMetrics(
        job=job_id,
        method=method,
        experts=list(experts),
        source="journal",
        construction=sorted(_given(r.construction for r in records), key=_by_layer_and_expert),
        adaptation=sorted(adaptation, key=lambda item: item.layer),
        task_vectors=sorted(vectors, key=lambda item: (item.layer is None, item.layer or 0)),
        units=[_summary(record) for record in records],
    )


def _published(storage: Storage, output: str, job_id: str) -> Metrics | None:
    """Return an output's metrics, unless it is gone or another job's by now."""
    try:
        found = Metrics.model_validate_json(storage.read(join(output, METRICS_FILE)))
    except (NotFound, ValidationError):
        return None
    return found if found.job_id == job_id else None


def read_records(storage: Storage, workspace: str, job_id: str) -> list[UnitRecord]:
    """Return the records of a job's finished units; one that cannot be read counts as none."""
    folder = join(layout.job_folder(workspace, job_id), "records")
    addresses = [info.uri for info in storage.list(folder)]
    with ThreadPoolExecutor(READERS, "fda-records") as pool:
        return list(_given(pool.map(lambda uri: _record(storage, uri), addresses)))


def _record(storage: Storage, uri: str) -> UnitRecord | None:
    try:
        return UnitRecord.model_validate_json(storage.read(uri))
    except (NotFound, ValidationError):
        return None


def _given(items: Iterable[T | None]) -> Iterable[T]:
    return (item for item in items if item is not None)


def _by_layer_and_expert(item: ConstructMetrics) -> tuple[int, str]:
    return item.layer, item.expert


def _summary(record: UnitRecord) -> UnitSummary:
    construction = record.construction
    return UnitSummary(
        id=record.unit,
        kind=record.kind,
        layer=construction.layer if construction else None,
        expert=construction.expert if construction else None,
        source=record.source,
        device=record.device,
        cost=record.cost,
    )


def narrowed(
    found: JobMetrics, *, layer: int | None, expert: str | None, points: int
) -> JobMetrics:
    """Return the metrics of one layer or expert, curves with so many points at most."""
    construction = [
        item.model_copy(
            update={
                "alignment": thinned(item.alignment, points),
                "loss": thinned(item.loss, points),
            }
        )
        for item in found.construction
        if (layer is None or item.layer == layer) and (expert is None or item.expert == expert)
    ]
    adaptation = [
        item.model_copy(update={"loss": thinned(item.loss, points)})
        for item in found.adaptation
        if layer is None or item.layer == layer
    ]
    vectors = [item for item in found.task_vectors if layer is None or item.layer == layer]
    return found.model_copy(
        update={
            "construction": construction,
            "adaptation": adaptation,
            "task_vectors": vectors,
        }
    )


def thinned(curve: Curve, points: int) -> Curve:
    """Return a curve with so many points at most, evenly spread, its ends kept."""
    count = len(curve.steps)
    if count <= points:
        return curve
    kept = [round(index * (count - 1) / (points - 1)) for index in range(points)]
    return Curve(
        steps=tuple(curve.steps[i] for i in kept), values=tuple(curve.values[i] for i in kept)
    )
