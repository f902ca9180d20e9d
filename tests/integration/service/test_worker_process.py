"""`python -m worker` as people start it: settings, figures, traces, refusals."""

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.support.collector import collector
from tests.support.valkey import Valkey
from tests.support.workers import TERM, Job, Worker, fda, save_models, until, workers

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_figures_and_traces_tell_what_was_done(own_valkey: Valkey, tmp_path: Path) -> None:
    job = Job(own_valkey, save_models(tmp_path), method=fda())
    unit = job.plan.units[0].id
    with (
        collector() as heard,
        workers(own_valkey, tmp_path, metrics_port=0, otlp_endpoint=heard.url) as (worker,),
    ):
        port = worker.said("taking_units")[0]["metrics_port"]
        job.send(unit, trace={"traceparent": PARENT})
        until(lambda: worker.said("unit_tried"))
        page = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
        worker.signal(TERM)
        assert worker.wait(10) == 0
    assert 'fda_units_total{kind="construct",outcome="done"} 1.0' in page
    read = job.journal.read(unit).cost.read_bytes
    assert f'fda_bytes_total{{direction="read"}} {float(read)}' in page
    assert 'fda_unit_seconds_count{kind="construct"} 1.0' in page
    (span,) = heard.spans()
    assert (span.service, span.name) == ("fda-worker", f"unit {unit}")
    assert [span.trace, span.parent] == PARENT.split("-")[1:3]
    assert span.attributes["fda.job"] == job.plan.job_id
    assert span.attributes["fda.outcome"] == "done"


def test_the_command_starts_takes_its_options_and_ends(own_valkey: Valkey, tmp_path: Path) -> None:
    log = tmp_path / "log"
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("FDA_")},
        "FDA_REDIS_URL": own_valkey.url,
        "FDA_WORKSPACE": str(tmp_path / "workspace"),
        "FDA_THREADS": "2",
    }
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "worker", "--queues", "cpu", "--device", "cpu"],
            stderr=stream,
            env=environment,
        )
    try:
        until(lambda: "taking_units" in log.read_text() or process.poll() is not None)
        process.send_signal(TERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    (start,) = [line for line in lines if line["event"] == "taking_units"]
    assert (start["threads"], start["queues"]) == (2, ["cpu"])
    assert [line["why"] for line in lines if line["event"] == "ended"] == [f"signal {int(TERM)}"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"queues": "cpu,fast"}, "FDA_QUEUES: Value error, 'fast' is no queue; there are cpu,"),
        ({"device": "cuda:x"}, "bad_parameter: 'cuda:x' is no device"),
        ({"runner": "tests.support.runners:Nobody"}, "bad_parameter: runner"),
        ({"threads": 0}, "FDA_THREADS: Input should be greater than or equal to 1"),
        ({"queues": "gpu"}, "no_device: queues gpu: torch sees no GPU here"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_taken(
    tmp_path: Path, settings: dict[str, object], said: str
) -> None:
    worker = Worker("redis://127.0.0.1:1/0", tmp_path, tmp_path / "log", **settings)
    try:
        assert worker.wait(20) == 2
    finally:
        worker.kill()
    assert said in worker.log.read_text()


def test_a_worker_that_waits_for_redis_can_be_ended(tmp_path: Path) -> None:
    worker = Worker("redis://127.0.0.1:1/0", tmp_path, tmp_path / "log")
    try:
        until(lambda: worker.log.exists() and "Cannot connect" in worker.log.read_text())
        worker.signal(TERM)
        assert worker.wait(15) == 0
    finally:
        worker.kill()
