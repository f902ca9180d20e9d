"""Figures for Prometheus, in a registry of their own."""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fda_core.contract.events import BytesMoved
from fda_core.contract.service.names import QUEUES

Memory = Mapping[str, tuple[int | None, int | None]]
"""Where (host, device) to what there is and what is used, in bytes."""
KINDS = ("construct", "merge", "publish")
SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)


class Metrics:
    """What this worker did."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.units = Counter(
            "fda_units",
            "Messages about units, by how they ended.",
            ["kind", "outcome"],
            registry=registry,
        )
        self.seconds = Histogram(
            "fda_unit_seconds",
            "Seconds in units done.",
            ["kind"],
            buckets=SECONDS,
            registry=registry,
        )
        self.bytes = Counter(
            "fda_bytes", "Bytes read and written.", ["direction"], registry=registry
        )
        self.failures = Counter(
            "fda_unit_failures", "Failed tries, by code.", ["code"], registry=registry
        )
        self.leases_lost = Counter("fda_leases_lost", "Leases that others took.", registry=registry)
        self.cache_hits = Counter(
            "fda_cache_hits", "Anchors found in the cache.", registry=registry
        )
        self.reports_dropped = Counter(
            "fda_reports_dropped",
            "Reports thrown away while Redis was away.",
            registry=registry,
        )
        self.sent = Counter(
            "fda_units_sent", "Messages about units put into queues.", ["queue"], registry=registry
        )
        self.busy = Gauge("fda_worker_busy", "1 while a unit runs.", registry=registry)
        _begin(self.bytes, ("read", "write"))
        _begin(self.sent, QUEUES)
        _begin(self.seconds, KINDS)

    def watch_memory(self, look: Callable[[], Memory]) -> None:
        """Show what a look at the memory finds, at every scrape."""
        self.registry.register(_MemoryCollector(look))

    def moved(self, event: BytesMoved) -> None:
        """Add bytes read and written."""
        self.bytes.labels("read").inc(event.read_bytes)
        self.bytes.labels("write").inc(event.write_bytes)


class _MemoryCollector(Collector):
    """Memory of the host (the container's where it is limited) and of the accelerator."""

    def __init__(self, look: Callable[[], Memory]) -> None:
        self._look = look

    def describe(self) -> Iterable[Metric]:
        """Say nothing beforehand, so that registering does not look."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Yield what is there now."""
        total = GaugeMetricFamily("fda_memory_bytes", "Memory there is.", labels=["where"])
        used = GaugeMetricFamily("fda_memory_used_bytes", "Memory in use.", labels=["where"])
        for where, (there, in_use) in self._look().items():
            if there is not None and in_use is not None:
                total.add_metric([where], there)
                used.add_metric([where], in_use)
        return total, used


def _begin(family: Counter | Histogram, values: Iterable[str]) -> None:
    """Show label values before anything happens."""
    for value in values:
        family.labels(value)
