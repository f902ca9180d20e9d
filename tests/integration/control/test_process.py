"""The controller as a process: it leads, it is quick, and it ends when told to."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.control import Bench, HandWorker

SECONDS = 20.0


@contextmanager
def _controller(bench: Bench, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    environment = {
        **os.environ,
        "FDA_DATABASE_URL": str(bench.database.engine.url),
        "FDA_REDIS_URL": bench.server.url,
        "FDA_WORKSPACE": bench.workspace,
        "FDA_ROOTS": f'["{bench.folder.root}"]',
    }
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "api.control"], env=environment, stdout=out, stderr=out
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _until(true: Callable[[], bool], log: Path) -> None:
    end = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < end, log.read_text()[-3000:]
        time.sleep(0.005)


def test_a_tiny_job_takes_less_than_a_second_and_sigterm_ends_the_process(
    bench: Bench, tmp_path: Path
):
    log = tmp_path / "log"
    worker = HandWorker(bench)
    with _controller(bench, log) as process:
        first = bench.submit(bench.folder.recipe("warm", method="linear"))
        _until(lambda: bool(worker.work()) or bench.state(first) == "succeeded", log)
        _until(lambda: bool(worker.work()) or bench.state(first) == "succeeded", log)
        began = time.monotonic()
        job = bench.submit(bench.folder.recipe("quick", method="linear"))
        while bench.state(job) != "succeeded":
            worker.work()
            assert time.monotonic() - began < SECONDS, log.read_text()[-3000:]
        took = time.monotonic() - began
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0
    text = log.read_text()
    assert '"event": "controller_stopped"' in text
    assert '"level": "error"' not in text
    assert took < 2.0, "on a machine that does nothing else it is a third of a second"


def test_a_second_controller_takes_over_from_one_that_was_killed(bench: Bench, tmp_path: Path):
    log = tmp_path / "log"
    with _controller(bench, log) as first:
        _until(lambda: "controller_started" in log.read_text(), log)
        job = bench.submit(bench.folder.recipe(method="linear"))
        _until(lambda: bench.messages() > 0, log)
        first.kill()
    HandWorker(bench).work()
    assert bench.state(job) == "running"
    bench.client.flushall()
    successor = bench.new_controller()
    successor.leader.renew()
    assert successor.leader.leads("dispatcher"), "it sees that the first is dead"
    bench.controller = successor
    assert bench.settle(job, HandWorker(bench)) == "succeeded"


@pytest.mark.parametrize("level", ["warning"])
def test_it_logs_nothing_while_nothing_happens(bench: Bench, tmp_path: Path, level: str):
    log = tmp_path / "log"
    with _controller(bench, log) as process:
        _until(lambda: "controller_started" in log.read_text(), log)
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 0
    assert f'"level": "{level}"' not in log.read_text()
