"""Traces of a worker: a span per unit, child of the request that submitted the job."""

from collections.abc import Mapping
from contextlib import AbstractContextManager

from opentelemetry.trace import Span, SpanKind, TracerProvider

from fda_core.processes import tracing
from fda_core.processes.tracing import Attributes, note_error


class Tracing(tracing.Tracing):
    """Makes spans of units, or nothing where no collector is named."""

    def __init__(self, provider: TracerProvider | None) -> None:
        super().__init__(provider, library="fda.worker")

    def unit(
        self, name: str, trace: Mapping[str, str], attributes: Attributes
    ) -> AbstractContextManager[Span | None]:
        """Make a span for a unit that continues the trace of its message."""
        named = {f"fda.{key}": value for key, value in attributes.items()}
        return self.span(name, trace, named, kind=SpanKind.CONSUMER)


def note_end(span: Span | None, *, outcome: str, error: str | None) -> None:
    """Note how the unit of a span ended."""
    if span is not None:
        span.set_attribute("fda.outcome", outcome)
        if error is not None:
            note_error(span, error)


def make_tracing(endpoint: str, *, worker: str) -> Tracing:
    """Return tracing to a collector, or none for an empty address."""
    return Tracing(tracing.provider_of(endpoint, service="fda-worker", instance=worker))
