"""OpenTelemetry: spans that continue a trace; nothing of its SDK is loaded without a collector."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from fda_core import __version__
from fda_core.errors import BadParameter

SEND_SECONDS = 2.0
"""A collector that hangs must not keep a process from ending."""

Attributes = Mapping[str, str | int]


class Tracing:
    """Makes spans in a package's name, or nothing where no collector is named."""

    def __init__(self, provider: TracerProvider | None = None, *, library: str) -> None:
        self._provider = provider
        self._tracer: Tracer | None = None
        if provider is not None:
            self._tracer = provider.get_tracer(library, __version__)

    @contextmanager
    def span(
        self,
        name: str,
        trace: Mapping[str, str],
        attributes: Attributes,
        *,
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> Iterator[Span | None]:
        """Make a span that continues a W3C trace context; yield None where there are none."""
        if self._tracer is None:
            yield None
            return
        parent = TraceContextTextMapPropagator().extract(trace)
        with self._tracer.start_as_current_span(
            name, context=parent, kind=kind, attributes=dict(attributes)
        ) as span:
            yield span

    def close(self) -> None:
        """Send what is left."""
        shutdown = getattr(self._provider, "shutdown", None)
        if shutdown is not None:
            shutdown()


def note_error(span: Span | None, error: str) -> None:
    """Note that what a span is about went wrong."""
    if span is not None:
        span.set_status(Status(StatusCode.ERROR, error))


def provider_of(endpoint: str, *, service: str, instance: str) -> TracerProvider | None:
    """Return what sends spans to a collector (OTLP over HTTP), or None for an empty address."""
    if not endpoint:
        return None
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
    resource = Resource.create(
        {
            "service.name": service,
            "service.version": __version__,
            "service.instance.id": instance,
        }
    )
    provider = Provider(resource=resource)
    address = f"{endpoint.rstrip('/')}/v1/traces"
    provider.add_span_processor(
        BatchSpanProcessor(OTLPSpanExporter(endpoint=address, timeout=SEND_SECONDS))
    )
    return provider
