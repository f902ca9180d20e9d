"""Event streams over real sockets: resumed without loss, ended in time, cheap for many.

`make soak` lets 200 clients read; the default suite is content with fewer.
"""

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import delete, event

from api.auth.service import bootstrap_key
from api.db.tables import EventRow, JobRow
from tests.support.rest import Rest, recipe, served

CLIENTS = int(os.environ.get("FDA_SOAK_CLIENTS", "40"))
EVENTS = int(os.environ.get("FDA_SOAK_EVENTS", "200"))
STREAM = {"Accept": "text/event-stream"}


@pytest.fixture
def rest(tmp_path: Path) -> Iterator[Rest]:
    made = Rest(tmp_path, f"sqlite:///{tmp_path / 'fda.db'}")
    yield made
    made.database.close()


@pytest.fixture
def address(rest: Rest) -> Iterator[str]:
    with served(rest) as address:
        yield address


def submit(rest: Rest, address: str) -> str:
    headers = {"Authorization": f"Bearer {rest.keys['submitter']}"}
    answer = httpx2.post(f"{address}/v1/jobs", json={"recipe": recipe()}, headers=headers)
    return str(answer.json()["id"])


def headers_of(rest: Rest, last: int = 0) -> dict[str, str]:
    headers = {**STREAM, "Authorization": f"Bearer {rest.keys['viewer']}"}
    return {**headers, "Last-Event-ID": str(last)} if last else headers


def tell_many(rest: Rest, job_id: str, number: int, *, pause: float = 0.002) -> threading.Thread:
    """Append events from a thread, then let the job succeed."""

    def work() -> None:
        rest.lead(job_id, "validating", "running")
        for index in range(number):
            rest.tell(job_id, loss=index)
            time.sleep(pause)
        rest.lead(job_id, "publishing", "succeeded")

    thread = threading.Thread(target=work)
    thread.start()
    return thread


async def read_all(
    client: httpx2.AsyncClient, rest: Rest, path: str, *, seed: int, cuts: int
) -> list[int]:
    """Read a stream to its end, cutting the connection a few times, and return all ids seen."""
    chance = random.Random(seed)
    seen: list[int] = []
    while True:
        take = chance.randrange(1, 40) if cuts > 0 else 10**9
        cuts -= 1
        last = seen[-1] if seen else 0
        async with client.stream("GET", path, headers=headers_of(rest, last)) as answer:
            if answer.status_code == 204:
                return seen
            assert answer.status_code == 200
            async for line in answer.aiter_lines():
                if line.startswith("id: "):
                    seen.append(int(line[4:]))
                    take -= 1
                    if take == 0:
                        break
            else:
                return seen


def test_many_clients_with_cuts_lose_nothing_and_see_nothing_twice(rest: Rest, address: str):
    job_id = submit(rest, address)
    statements = 0

    def count(*_: Any) -> None:
        nonlocal statements
        statements += 1

    async def read() -> list[list[int]]:
        limits = httpx2.Limits(max_connections=None)
        async with httpx2.AsyncClient(base_url=address, timeout=60, limits=limits) as client:
            path = f"/v1/jobs/{job_id}/events"
            return await asyncio.gather(
                *(
                    read_all(client, rest, path, seed=number, cuts=number % 4)
                    for number in range(CLIENTS)
                )
            )

    event.listen(rest.database.engine, "before_cursor_execute", count)
    teller = tell_many(rest, job_id, EVENTS)
    found = asyncio.run(read())
    teller.join()
    event.remove(rest.database.engine, "before_cursor_execute", count)
    for seen in found:
        assert seen == list(range(1, EVENTS + 6))
    connections = sum(1 + number % 4 for number in range(CLIENTS))
    told = EVENTS * 4
    assert statements < told + 12 * connections + 400, "readers must share what is read"


def lines(rest: Rest, address: str, job_id: str, last: int = 0) -> list[str]:
    with httpx2.stream(
        "GET", f"{address}/v1/jobs/{job_id}/events", headers=headers_of(rest, last), timeout=20
    ) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-cache"
        return list(answer.iter_lines())


def test_a_stream_ends_after_the_terminal_event_and_is_not_to_be_asked_again(rest, address):
    job_id = submit(rest, address)
    rest.lead(job_id, "validating", "failed")
    got = lines(rest, address, job_id)
    assert [line for line in got if line.startswith("id: ")] == ["id: 1", "id: 2", "id: 3"]
    assert got[0] == "retry: 2000"
    assert any('"state":"failed"' in line for line in got)
    again = httpx2.get(f"{address}/v1/jobs/{job_id}/events", headers=headers_of(rest, 3))
    assert (again.status_code, again.content) == (204, b"")


def test_the_end_of_an_earlier_attempt_does_not_end_the_stream(rest: Rest, address: str):
    job_id = submit(rest, address)
    rest.lead(job_id, "validating", "failed", "queued", "validating")
    timer = threading.Timer(0.4, rest.lead, (job_id, "succeeded"))
    timer.start()
    got = lines(rest, address, job_id)
    timer.join()
    assert [line for line in got if line.startswith("id: ")] == [f"id: {n}" for n in range(1, 7)]


def test_events_that_are_no_longer_kept_do_not_hold_a_stream_up(rest: Rest, address: str):
    job_id = submit(rest, address)
    rest.lead(job_id, "validating", "failed")
    with rest.database.write() as session:
        session.execute(delete(EventRow))
    assert not [line for line in lines(rest, address, job_id) if line.startswith("id: ")]


def test_a_quiet_stream_is_kept_alive(rest: Rest, address: str, monkeypatch):
    monkeypatch.setattr("api.events.routes.PING_SECONDS", 0.1)
    job_id = submit(rest, address)
    timer = threading.Timer(0.8, rest.lead, (job_id, "cancelled"))
    timer.start()
    got = lines(rest, address, job_id)
    timer.join()
    assert got.count(": ping") >= 3


def test_the_stream_of_a_removed_job_ends(rest: Rest, address: str):
    job_id = submit(rest, address)

    def remove() -> None:
        with rest.database.write() as session:
            session.execute(delete(JobRow).where(JobRow.id == job_id))

    timer = threading.Timer(0.4, remove)
    timer.start()
    got = lines(rest, address, job_id)
    timer.join()
    assert "id: 1" in got


def test_the_stream_of_a_job_removed_right_after_its_end_has_the_end(rest: Rest, address: str):
    job_id = submit(rest, address)
    rest.app.state.context.hub._poll_seconds = 60.0  # it has not seen the end yet
    stream = f"{address}/v1/jobs/{job_id}/events"
    with httpx2.stream("GET", stream, headers=headers_of(rest), timeout=20) as answer:
        read = answer.iter_lines()
        assert next(line for line in read if line.startswith("id: ")) == "id: 1"
        rest.lead(job_id, "validating", "failed")
        headers = {"Authorization": f"Bearer {rest.keys['submitter']}"}
        httpx2.delete(f"{address}/v1/jobs/{job_id}", headers=headers).raise_for_status()
        rest_of_it = list(read)
    assert [line for line in rest_of_it if line.startswith("id: ")] == ["id: 2", "id: 3"]
    assert any('"state":"failed"' in line for line in rest_of_it)


def test_the_process_stops_at_once_though_streams_are_open(tmp_path: Path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"sqlite:///{tmp_path / 'fda.db'}"
    environment = {
        **os.environ,
        "FDA_DATABASE_URL": url,
        "FDA_WORKSPACE": str(tmp_path / "w"),
        "FDA_ROOTS": '["/models"]',
        "FDA_PORT": str(port),
        "FDA_REDIS_URL": "redis://127.0.0.1:1/0",
        "FDA_SECRET": "s" * 32,
    }
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "api"], env=environment, stderr=log, stdout=log
        )
    try:
        _wait_for(f"http://127.0.0.1:{port}/healthz", process)
        rest = Rest(tmp_path, url)
        rest.keys["viewer"] = bootstrap_key(rest.database)
        address = f"http://127.0.0.1:{port}"
        job_id = submit(rest, address)
        with httpx2.stream(
            "GET", f"{address}/v1/jobs/{job_id}/events", headers=headers_of(rest), timeout=20
        ) as answer:
            rows = answer.iter_lines()
            assert next(rows) == "retry: 2000"
            process.send_signal(signal.SIGTERM)
            list(rows)
        assert process.wait(5) in (0, -signal.SIGTERM)
        rest.database.close()
    finally:
        process.kill()
        process.wait()
    text = (tmp_path / "log").read_text()
    assert '"event": "request"' in text
    assert "Traceback" not in text
    assert "fda_" not in text.replace("fda_core", "").replace("fda_merge", ""), "no keys in logs"


def _wait_for(url: str, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end and process.poll() is None:
        try:
            if httpx2.get(url).status_code == 200:
                return
        except httpx2.TransportError:
            time.sleep(0.05)
    raise AssertionError("the api did not come up")
