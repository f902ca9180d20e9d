"""What Prometheus reads: requests as they were counted, and a look at jobs, queues, workers."""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

Samples = dict[tuple[str, str, str], list[tuple[tuple[str, ...], float]]]
"""(name, help, label names with commas) to (label values, value)."""

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class HttpCounts:
    """Requests by route and status; one registry per application, none shared."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._requests = Counter(
            "fda_http_requests",
            "Requests answered.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "fda_http_request_seconds",
            "Time until an answer was complete.",
            ("method", "route"),
            buckets=BUCKETS,
            registry=self.registry,
        )

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        known = method if method in _METHODS else "other"
        self._requests.labels(known, route, str(status)).inc()
        self._seconds.labels(known, route).observe(seconds)

    def text(self, look: Callable[[], Samples]) -> bytes:
        """Return everything in Prometheus' text format; `look` is asked once."""
        registry = CollectorRegistry()
        registry.register(LookCollector(look))
        return generate_latest(self.registry) + generate_latest(registry)


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class LookCollector(Collector):
    """Shows what one look finds, taken at every scrape."""

    def __init__(self, look: Callable[[], Samples]) -> None:
        self._look = look

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Yield what is there now."""
        return self._gauges()

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Say nothing beforehand, so that registering does not look."""
        return ()

    def _gauges(self) -> Iterator[GaugeMetricFamily]:
        for (name, text, labels), samples in self._look().items():
            family = GaugeMetricFamily(name, text, labels=labels.split(",") if labels else ())
            for values, value in samples:
                family.add_metric(values, value)
            yield family
