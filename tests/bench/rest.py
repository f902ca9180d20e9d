"""How long submitting and listing take at a steady rate among many jobs: `make bench-rest`.

The real `python -m api` on SQLite; requests are sent on time whether or not earlier ones are
answered, so that waiting in a queue counts.
"""

import asyncio
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx2
from sqlalchemy import update

from api.auth.service import bootstrap_key
from api.db.migrate import migrate
from api.db.session import Database, open_engine
from api.db.tables import JobRow
from api.db.types import now
from api.jobs.service import Origin, insert
from api.recipes import read_recipe
from fda_core.contract.rest.jobs import JobRequest
from tests.support.rest import recipe
from tests.support.valkey import valkey_server

JOBS = 10_000
RATE = 50
SECONDS = 20


def fill(database: Database) -> None:
    """Add many jobs, most of them over, as years of use leave them."""
    request = JobRequest(recipe=recipe(), labels={"run": "1", "kind": "nightly"})
    parsed = read_recipe(request.recipe, roots=("/models",), workspace="/workspace")
    origin = Origin(owner="ann", team="default")
    with database.write() as session:
        for _ in range(JOBS):
            insert(session, request, parsed, origin=origin, moment=now())
        session.flush()
        session.execute(update(JobRow).values(state="succeeded"))


async def drive(address: str, headers: dict[str, str], *, path: str, body: Any) -> list[float]:
    """Send requests at the rate; return how long each took, from when it was due."""
    took: list[float] = []

    async def one(client: httpx2.AsyncClient, due: float) -> None:
        if body is None:
            answer = await client.get(path, headers=headers)
        else:
            answer = await client.post(path, headers=headers, json=body)
        assert answer.status_code in (200, 202), answer.text
        took.append(time.perf_counter() - due)

    async with httpx2.AsyncClient(base_url=address, timeout=30) as client:
        began = time.perf_counter()
        tasks = []
        for number in range(RATE * SECONDS):
            due = began + number / RATE
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.append(asyncio.create_task(one(client, due)))
        await asyncio.gather(*tasks)
    return took


def show(name: str, took: list[float]) -> None:
    """Print one row."""
    cuts = statistics.quantiles(took, n=100)
    print(
        f"{name:24} {len(took)} requests  median {1000 * statistics.median(took):6.1f} ms  "
        f"p99 {1000 * cuts[98]:6.1f} ms  most {1000 * max(took):6.1f} ms"
    )


def main() -> None:
    """Fill, serve, drive, print."""
    with (
        tempfile.TemporaryDirectory() as folder,
        socket.socket() as probe,
        valkey_server() as valkey,
    ):
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        url = f"sqlite:///{Path(folder) / 'fda.db'}"
        engine = open_engine(url)
        migrate(engine)
        database = Database(engine)
        fill(database)
        key = bootstrap_key(database)
        environment = {
            **os.environ,
            "FDA_DATABASE_URL": url,
            "FDA_WORKSPACE": str(Path(folder) / "workspace"),
            "FDA_ROOTS": '["/models"]',
            "FDA_PORT": str(port),
            "FDA_REDIS_URL": valkey.url,
            "FDA_LOG_LEVEL": "error",
            "FDA_MAX_ACTIVE_JOBS_PER_TEAM": "100000",
            "FDA_SECRET": "s" * 32,
        }
        process = subprocess.Popen([sys.executable, "-m", "api"], env=environment)
        try:
            address = f"http://127.0.0.1:{port}"
            _wait(address)
            headers = {"Authorization": f"Bearer {key}"}
            body = {"recipe": recipe()}
            httpx2.post(f"{address}/v1/jobs", headers=headers, json=body)  # loads the method
            for name, path, sent in (
                ("POST /v1/jobs", "/v1/jobs", body),
                ("GET /v1/jobs", "/v1/jobs", None),
                ("GET /v1/jobs?label", "/v1/jobs?label=kind=nightly&state=succeeded", None),
            ):
                show(name, asyncio.run(drive(address, headers, path=path, body=sent)))
        finally:
            process.terminate()
            process.wait()
            database.close()


def _wait(address: str) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            httpx2.get(f"{address}/healthz")
            return
        except httpx2.TransportError:
            time.sleep(0.05)
    raise SystemExit("the api did not come up")


if __name__ == "__main__":
    main()
