"""What a worker says of itself: who it is, what it does, what it has done."""

import os
import secrets
import socket
import threading
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fda_core import __version__
from fda_core.contract.events import BytesMoved
from fda_core.contract.service.messages import WorkerStatus
from worker.devices import Devices, host_memory


def new_worker_id() -> str:
    """Return an id unique to this process: host, process id and a random part."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"


@dataclass(frozen=True, kw_only=True)
class Busy:
    """The unit that runs."""

    job: str
    unit: str
    started: float


class Status:
    """Counts of one process. Safe to share by threads."""

    def __init__(
        self,
        worker: str,
        *,
        devices: Devices,
        queues: Sequence[str],
        threads: int,
        started: float,
        metrics_port: int | None = None,
    ) -> None:
        self.worker = worker
        self._devices = devices
        self._facts: dict[str, Any] = {
            "id": worker,
            "host": socket.gethostname(),
            "process": os.getpid(),
            "version": __version__,
            "device": devices.name,
            "device_kind": devices.kind,
            "threads": threads,
            "queues": tuple(queues),
            "started": started,
            "metrics_port": metrics_port,
        }
        self._lock = threading.Lock()
        self._busy: Busy | None = None
        self._counts: Counter[str] = Counter()
        self._seconds: defaultdict[str, float] = defaultdict(float)

    def begin(self, busy: Busy) -> None:
        """Note the unit that runs now."""
        with self._lock:
            self._busy = busy

    def end(self) -> None:
        """Note that none runs."""
        with self._lock:
            self._busy = None

    def count(self, what: str) -> None:
        """Add one to `units_done`, `units_failed`, `cache_hits` or `leases_lost`."""
        with self._lock:
            self._counts[what] += 1

    def add_seconds(self, kind: str, seconds: float) -> None:
        """Add to the time spent in finished units of a kind."""
        with self._lock:
            self._seconds[kind] += seconds

    def moved(self, event: BytesMoved) -> None:
        """Add bytes read and written."""
        with self._lock:
            self._counts["bytes_read"] += event.read_bytes
            self._counts["bytes_written"] += event.write_bytes

    def tell(self, *, at: float, draining: bool) -> WorkerStatus:
        """Return everything as of now."""
        total, used = host_memory()
        device_total, device_used = self._devices.memory()
        with self._lock:
            busy, counts = self._busy, dict[str, Any](self._counts)
            return WorkerStatus(
                **self._facts,
                at=at,
                state="draining" if draining else "busy" if busy else "idle",
                job=busy.job if busy else None,
                unit=busy.unit if busy else None,
                unit_started=busy.started if busy else None,
                host_memory_bytes=total,
                host_used_bytes=used,
                device_memory_bytes=device_total,
                device_used_bytes=device_used,
                seconds_by_kind={kind: round(s, 3) for kind, s in self._seconds.items()},
                **counts,
            )
