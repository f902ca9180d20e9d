"""Figures for Prometheus, served from a thread."""

from prometheus_client import CollectorRegistry, start_http_server

from fda_core.errors import BadParameter


def serve_figures(registry: CollectorRegistry, *, host: str, port: int) -> int:
    """Answer Prometheus from a thread until the process ends; return the port, also for 0."""
    try:
        server, _ = start_http_server(port, addr=host, registry=registry)
    except OSError as problem:
        raise BadParameter(
            f"FDA_METRICS_PORT: {host}:{port}: {problem.strerror}",
            hint="Give every process on a host a port of its own, or 0 for any.",
        ) from problem
    return int(server.server_port)
