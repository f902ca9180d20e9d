"""OpenTelemetry: spans of requests and of planning; nothing of its SDK is loaded without one."""

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import propagate
from opentelemetry.trace import (
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    TracerProvider,
    format_span_id,
    format_trace_id,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from fda_core import __version__
from fda_core.errors import BadParameter

SEND_SECONDS = 2.0
"""A collector that hangs must not keep a process from ending."""

Attributes = Mapping[str, str | int]


class Tracing:
    """Makes spans, or nothing where no collector is named."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._provider = provider
        self._tracer: Tracer | None = None
        if provider is not None:
            self._tracer = provider.get_tracer("fda.api", __version__)

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


def traceparent_of(span: Span) -> str:
    """Return the W3C header of a span."""
    found = span.get_span_context()
    return (
        f"00-{format_trace_id(found.trace_id)}-{format_span_id(found.span_id)}"
        f"-{found.trace_flags:02x}"
    )


def current_trace() -> dict[str, str]:
    """Return the context of the span under way, to be continued elsewhere; empty without one."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier


def note_error(span: Span | None, error: str) -> None:
    """Note that what a span is about went wrong."""
    if span is not None:
        span.set_status(Status(StatusCode.ERROR, error))


def make_tracing(endpoint: str, *, service: str) -> Tracing:
    """Return tracing to a collector (OTLP over HTTP), or none for an empty address."""
    if not endpoint:
        return Tracing()
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
            "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
        }
    )
    provider = Provider(resource=resource)
    address = f"{endpoint.rstrip('/')}/v1/traces"
    provider.add_span_processor(
        BatchSpanProcessor(OTLPSpanExporter(endpoint=address, timeout=SEND_SECONDS))
    )
    return Tracing(provider)
