"""The whole embedded service as `fda up` starts it, and ways to hurt it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2

from tests.support.processes import children, command_line

ROLES: Mapping[str, str] = {
    "api": "-m api ",
    "controller": "-m api.control",
    "worker": "-m worker",
    "redis": "valkey-server",
}
"""What a process of each role has in its command line."""


@dataclass(kw_only=True)
class Service:
    """A running `fda up`."""

    url: str
    key: str
    data: Path
    process: "subprocess.Popen[str]"
    http: httpx2.Client = field(init=False)

    def __post_init__(self) -> None:
        self.http = httpx2.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {self.key}"}, timeout=30
        )

    def use_key(self, key: str) -> None:
        """Ask with another key from now on."""
        self.key = key
        self.http.headers["Authorization"] = f"Bearer {key}"

    def children(self, role: str) -> list[int]:
        """Return the process ids of one role that live now."""
        wanted = ROLES[role]
        return [pid for pid in children(self.process.pid) if wanted in command_line(pid) + " "]

    def ask(self, method: str, path: str, *, patience: float = 60, **options: Any) -> Any:
        """Return the JSON of an answer, asking again while the api is away."""
        until = time.monotonic() + patience
        while True:
            try:
                answer = self.http.request(method, path, **options)
                if answer.status_code < 500:
                    assert answer.status_code < 400, f"{method} {path}: {answer.text}"
                    return answer.json() if answer.content else None
                problem = answer.text
            except httpx2.TransportError as failure:
                problem = repr(failure)
            assert time.monotonic() < until, f"{method} {path}: {problem}"
            time.sleep(0.1)

    def submit(self, recipe: Mapping[str, Any] | str, **more: Any) -> str:
        """Submit a recipe once, whatever happens on the way, and return the job's id."""
        key = os.urandom(12).hex()
        job = self.ask(
            "POST",
            "/v1/jobs",
            json={"recipe": recipe, **more},
            headers={"Idempotency-Key": key},
        )
        found: str = job["id"]
        return found

    def job(self, job: str) -> dict[str, Any]:
        """Return a job as it is now."""
        found: dict[str, Any] = self.ask("GET", f"/v1/jobs/{job}")
        return found

    def pages(self, path: str, *, patience: float = 60) -> list[dict[str, Any]]:
        """Return every entry of a list."""
        found: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            params = {"limit": 100} | ({"cursor": cursor} if cursor else {})
            page = self.ask("GET", path, params=params, patience=patience)
            found += page["data"]
            cursor = page["next_cursor"]
            if not page["has_more"]:
                return found

    def wait(self, job: str, *, seconds: float = 120) -> dict[str, Any]:
        """Return a job once it is over."""
        over = {"succeeded", "failed", "cancelled", "expired"}
        return wait_for(
            lambda: (found := self.job(job))["state"] in over and found, seconds=seconds
        )


def wait_for(look: Callable[[], Any], *, seconds: float = 30, every: float = 0.05) -> Any:
    """Return what `look` finds as soon as it is true; fail after so many seconds."""
    until = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < until, f"nothing after {seconds} seconds"
        time.sleep(every)
    return found


def seconds_of(moment: str) -> float:
    """Return a moment of the API as Unix seconds."""
    return datetime.fromisoformat(moment).timestamp()


@contextmanager
def running_service(
    data: Path,
    *roots: Path | str,
    workers: int = 1,
    environment: Mapping[str, str] | None = None,
    options: tuple[str, ...] = (),
) -> Iterator[Service]:
    """Start `fda up` on a free port and stop it with SIGTERM at the end."""
    allowed = [option for root in roots for option in ("--allow", str(root))]
    command = [sys.executable, "-m", "fda_core.cli", "up", "--json", "--port", "0"]
    command += ["--data-dir", str(data), "--workers", str(workers), *allowed, *options]
    data.mkdir(parents=True, exist_ok=True)
    with (data / "up.log").open("a") as log:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, f"fda up ended: {(data / 'up.log').read_text()[-2000:]}"
        ready = json.loads(line)
        service = Service(url=ready["url"], key=ready["key"], data=data, process=process)
        with service.http:
            yield service
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
