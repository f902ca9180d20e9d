"""Every line that a process of ours writes is JSON with the same fields, and tells no secret."""

import json
import subprocess
import sys
from typing import Any

import pytest

SPEAK = """
import logging, sys, threading, warnings
{set_up}
import structlog
log = structlog.get_logger("test")

def breaks(url):
    password = url.split("@")[0]
    raise ValueError("no way to " + url)

with structlog.contextvars.bound_contextvars(job="j1"):
    log.info("said", unit="u1", attempt=1)
logging.getLogger("some.library").warning("cannot reach %s", "redis://:hush@host/0")
logging.getLogger("botocore.auth").debug("hush")
warnings.warn("careful")
try:
    breaks("redis://:hush@host/0")
except ValueError:
    log.exception("broke")
thread = threading.Thread(target=breaks, args=("redis://:hush@host/1",), name="t")
thread.start()
thread.join()
breaks("redis://:hush@host/2")
"""
SET_UP = {
    "api": "from api.logs import set_up_logging as s; s('debug', process='api')",
    "controller": "from api.logs import set_up_logging as s; s('debug', process='controller')",
    "worker": "from worker.logs import set_up_logs as s; s('debug', worker='w', as_json=True)",
}


@pytest.mark.parametrize("process", sorted(SET_UP))
def test_whoever_speaks_the_line_is_json_and_without_secrets(process: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SPEAK.format(set_up=SET_UP[process])],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert "hush" not in done.stderr
    lines: list[dict[str, Any]] = [json.loads(line) for line in done.stderr.splitlines()]
    for line in lines:
        assert {"event", "level", "time", "process", "pid"} <= set(line)
        assert line["process"] == process
    said = {line["event"]: line for line in lines}
    assert (said["said"]["job"], said["said"]["unit"], said["said"]["attempt"]) == ("j1", "u1", 1)
    assert said["cannot reach redis://***@host/0"]["level"] == "warning"
    for event in ("broke", "uncaught_in_thread", "uncaught"):
        assert "ValueError: no way to redis://***@host" in said[event]["exception"]
    assert any("careful" in line["event"] for line in lines)
