"""Spans of requests: what they are named, whose children they are, what they never tell."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
import structlog
from fastapi.testclient import TestClient
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from api.db.tables import JobRow
from api.main import create_app
from api.requests import shown_path
from api.tracing import Tracing, make_tracing
from fda_core.errors import BadParameter
from tests.support.rest import Caller, Rest, recipe

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def kept() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def traced(rest: Rest, kept: InMemorySpanExporter) -> Iterator[Caller]:
    """The same service as `rest`, with a collector."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    context = rest.app.state.context
    app = create_app(
        context.settings,
        database=context.database,
        redis=context.redis,
        storage=context.storage,
        tracing=Tracing(provider),
    )
    with TestClient(app) as client:
        yield Caller(client, rest.submitter.key)
    provider.shutdown()


def only(kept: InMemorySpanExporter) -> ReadableSpan:
    (span,) = kept.get_finished_spans()
    return span


def test_a_request_is_a_span_that_the_job_goes_on_from(
    rest: Rest, traced: Caller, kept: InMemorySpanExporter
) -> None:
    answer = traced.post("/v1/jobs", json={"recipe": recipe()}, headers={"traceparent": PARENT})
    span = only(kept)
    assert span.name == "POST /v1/jobs"
    assert span.context is not None
    assert span.parent is not None
    assert f"{span.context.trace_id:032x}" == PARENT.split("-")[1]
    assert f"{span.parent.span_id:016x}" == PARENT.split("-")[2]
    assert answer.headers["traceparent"].split("-")[2] == f"{span.context.span_id:016x}"
    assert span.attributes is not None
    assert span.attributes["http.response.status_code"] == 202
    assert span.attributes["fda.request_id"] == answer.headers["x-request-id"]
    with rest.database.read() as session:
        row = session.get_one(JobRow, answer.json()["id"])
    assert row.trace["traceparent"] == answer.headers["traceparent"]


def test_jobs_of_a_batch_go_on_from_its_request(
    rest: Rest, traced: Caller, kept: InMemorySpanExporter
) -> None:
    body = {"name": "two", "recipes": [recipe()]}
    answer = traced.post("/v1/batches", json=body)
    assert answer.status_code < 300, answer.text
    with rest.database.read() as session:
        rows = session.query(JobRow).all()
    assert {row.trace["traceparent"] for row in rows} == {answer.headers["traceparent"]}
    assert only(kept).name == "POST /v1/batches"


def test_questions_about_health_are_no_spans(traced: Caller, kept: InMemorySpanExporter) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        traced.get(path)
    assert kept.get_finished_spans() == ()


def test_a_signature_is_in_no_span_and_no_log_line(
    traced: Caller, kept: InMemorySpanExporter
) -> None:
    with structlog.testing.capture_logs() as lines:
        traced.get("/v1/files/j1/1900000000/topsecret/config.json")
    assert [line["path"] for line in lines] == ["/v1/files/j1/1900000000/***/config.json"]
    assert "topsecret" not in str(lines)
    span = only(kept)
    assert "topsecret" not in span.to_json()
    assert span.attributes is not None
    assert span.attributes["url.path"] == "/v1/files/j1/1900000000/***/config.json"
    assert shown_path("/v1/files/j1/19/topsecret") == "/v1/files/j1/19/***"
    assert shown_path("/v1/jobs/j1/files/x") == "/v1/jobs/j1/files/x"


def test_without_a_collector_nothing_of_the_sdk_is_loaded() -> None:
    # Redis' client loads `opentelemetry.sdk.metrics` by itself where that is installed.
    look = (
        "import sys, api.__main__, api.control.__main__, worker.__main__, worker.serve\n"
        "from api.main import create_app\n"
        "from api.settings import Settings\n"
        "create_app(Settings(database_url='sqlite:///none.db'))\n"
        "from worker.tracing import make_tracing\n"
        "make_tracing('', worker='w').close()\n"
        "print([m for m in sys.modules if m.startswith(('opentelemetry.sdk.trace',"
        " 'opentelemetry.exporter', 'opentelemetry.proto'))])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", look], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"


def test_a_collector_without_the_sdk_is_refused_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace.export", None)
    with pytest.raises(BadParameter, match="FDA_OTLP_ENDPOINT") as refused:
        make_tracing("http://127.0.0.1:1", service="fda-api")
    assert refused.value.hint == "Install fda-merge[otel]."
