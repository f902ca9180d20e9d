"""What finished jobs came to, from the metrics beside their outputs, for comparing them."""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pydantic import ValidationError

from fda_core.contract.artifacts import METRICS_FILE, Metrics
from fda_core.contract.uris import join, normalise
from fda_core.errors import FdaError
from fda_core.reports.summary import totals
from fda_core.storage.base import Storage

KEPT = 10_000
READERS = 8


@dataclass(frozen=True, kw_only=True)
class Result:
    """One finished merge in one row."""

    alignment: float | None
    drift: float | None
    compute_seconds: float
    read_bytes: int
    write_bytes: int


class Results:
    """Reads results and remembers them: a finished job's never change. Safe for threads."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._known: OrderedDict[str, Result] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, outputs: Mapping[str, str]) -> dict[str, Result]:
        """Return results by job, for jobs and their outputs; jobs without one are left out."""
        with self._lock:
            found = {job: self._known[job] for job in outputs if job in self._known}
        missing = [job for job in outputs if job not in found]
        if not missing:
            return found
        with ThreadPoolExecutor(max_workers=min(READERS, len(missing))) as pool:
            read = pool.map(lambda job: self._read(job, outputs[job]), missing)
            new = {job: got for job, got in zip(missing, read, strict=True) if got is not None}
        with self._lock:
            self._known.update(new)
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
        return {**found, **new}

    def _read(self, job: str, output: str) -> Result | None:
        try:
            data = self._storage.read(join(normalise(output, cwd="/"), METRICS_FILE))
            metrics = Metrics.model_validate_json(data)
        except (FdaError, ValidationError):
            return None  # moved or removed since; a table with a gap says so
        if metrics.job_id != job:
            return None
        row = totals(metrics)
        return Result(
            alignment=row.alignment_best,
            drift=row.drift_result,
            compute_seconds=row.seconds,
            read_bytes=row.read_bytes,
            write_bytes=row.write_bytes,
        )
