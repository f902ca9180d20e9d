"""Traces of the api's processes: spans of requests and of planning."""

import os
import socket

from opentelemetry import propagate
from opentelemetry.trace import Span, TracerProvider, format_span_id, format_trace_id

from fda_core.processes import tracing


class Tracing(tracing.Tracing):
    """Makes spans of the api, or nothing where no collector is named."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        super().__init__(provider, library="fda.api")


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


def make_tracing(endpoint: str, *, service: str) -> Tracing:
    """Return tracing to a collector, or none for an empty address."""
    instance = f"{socket.gethostname()}:{os.getpid()}"
    return Tracing(tracing.provider_of(endpoint, service=service, instance=instance))
