"""Figures for Prometheus, in a registry of their own."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    start_http_server,
)

from fda_core.contract.events import BytesMoved

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
        self.busy = Gauge("fda_worker_busy", "1 while a unit runs.", registry=registry)

    def moved(self, event: BytesMoved) -> None:
        """Add bytes read and written."""
        self.bytes.labels("read").inc(event.read_bytes)
        self.bytes.labels("write").inc(event.write_bytes)


def serve_metrics(metrics: Metrics, *, host: str, port: int) -> int:
    """Answer Prometheus from a thread until the process ends; return the port, also for 0."""
    server, _ = start_http_server(port, addr=host, registry=metrics.registry)
    return int(server.server_port)
