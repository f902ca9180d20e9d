"""OpenTelemetry: a span per unit, child of the request that submitted the job."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from fda_core import __version__
from fda_core.errors import BadParameter

SEND_SECONDS = 2.0
"""A collector that hangs must not keep a worker from ending."""


class Tracing:
    """Makes spans, or nothing where no collector is named."""

    def __init__(self, provider: TracerProvider | None) -> None:
        self._provider = provider
        self._tracer: Tracer | None = None
        if provider is not None:
            self._tracer = provider.get_tracer("fda.worker", __version__)

    @contextmanager
    def unit(
        self, name: str, trace: Mapping[str, str], attributes: Mapping[str, str | int]
    ) -> Iterator[None]:
        """Make a span for a unit that continues the trace of its message."""
        if self._tracer is None:
            yield
            return
        parent = TraceContextTextMapPropagator().extract(trace)
        named = {f"fda.{key}": value for key, value in attributes.items()}
        with self._tracer.start_as_current_span(
            name, context=parent, kind=SpanKind.CONSUMER, attributes=named
        ):
            yield

    def note(self, *, outcome: str, error: str | None) -> None:
        """Note how the unit of the current span ended."""
        if self._tracer is None:
            return
        from opentelemetry.trace import get_current_span

        span = get_current_span()
        span.set_attribute("fda.outcome", outcome)
        if error is not None:
            span.set_status(Status(StatusCode.ERROR, error))

    def close(self) -> None:
        """Send what is left."""
        shutdown = getattr(self._provider, "shutdown", None)
        if shutdown is not None:
            shutdown()


def make_tracing(endpoint: str, *, worker: str) -> Tracing:
    """Return tracing to a collector (OTLP over HTTP), or none for an empty address."""
    if not endpoint:
        return Tracing(None)
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider as Provider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as problem:
        raise BadParameter(
            f"FDA_OTLP_ENDPOINT is set, and {problem.name} is not installed",
            hint="Install fda-merge[otel].",
        ) from problem
    provider = Provider(
        resource=Resource.create(
            {
                "service.name": "fda-worker",
                "service.version": __version__,
                "service.instance.id": worker,
            }
        )
    )
    address = f"{endpoint.rstrip('/')}/v1/traces"
    provider.add_span_processor(
        BatchSpanProcessor(OTLPSpanExporter(endpoint=address, timeout=SEND_SECONDS))
    )
    return Tracing(provider)
