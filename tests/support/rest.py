"""The REST service for tests: the real application on a database of its own, and callers."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import structlog
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from redis import Redis

from api.auth.service import create_key
from api.db.migrate import migrate
from api.db.session import Database, open_engine
from api.db.types import now
from api.jobs.transitions import add_event, move
from api.main import create_app
from api.settings import Settings
from fda_core.contract.rest.keys import KeyRequest
from fda_core.contract.service.states import JobState

SECRET = "not a secret but thirty-two characters long"


def quiet_logs() -> None:
    """Make every log line, so that none can fail, and print none."""
    structlog.configure(
        processors=[structlog.processors.format_exc_info, structlog.processors.JSONRenderer()],
        logger_factory=structlog.ReturnLoggerFactory(),
    )


class Clock:
    """The real time, moved forward by hand."""

    def __init__(self) -> None:
        self._ahead = timedelta()

    def __call__(self) -> datetime:
        return now() + self._ahead

    def forward(self, **by: float) -> None:
        self._ahead += timedelta(**by)


class Caller:
    """A client that sends one key with every request."""

    def __init__(self, client: Any, key: str | None) -> None:
        self._client = client
        self.key = key

    def request(self, method: str, path: str, **more: Any) -> Any:
        headers = dict(more.pop("headers", {}))
        if self.key is not None:
            headers.setdefault("Authorization", f"Bearer {self.key}")
        return self._client.request(method, path, headers=headers, **more)

    def get(self, path: str, **more: Any) -> Any:
        return self.request("GET", path, **more)

    def post(self, path: str, **more: Any) -> Any:
        return self.request("POST", path, **more)

    def patch(self, path: str, **more: Any) -> Any:
        return self.request("PATCH", path, **more)

    def delete(self, path: str, **more: Any) -> Any:
        return self.request("DELETE", path, **more)

    def submit(self, **changes: Any) -> dict[str, Any]:
        """Submit a recipe that can be parsed, and return the job."""
        answer = self.post("/v1/jobs", json={"recipe": recipe(), **changes})
        assert answer.status_code == 202, answer.text
        return dict(answer.json())


class Rest:
    """The application, what it stands on, and callers of every role and of two teams."""

    def __init__(
        self, folder: Path, database_url: str, *, redis: Redis | None = None, **settings: Any
    ) -> None:
        quiet_logs()
        self.folder = folder
        self.clock = Clock()
        self.settings = Settings(
            database_url=database_url,
            redis_url="redis://127.0.0.1:1/0",
            workspace=str(folder / "workspace"),
            roots=("/models", str(folder / "storage"), "s3://models"),
            secret=SECRET,
            **settings,
        )
        engine = open_engine(database_url)
        migrate(engine)
        self.database = Database(engine)
        self.app: FastAPI = create_app(
            self.settings, database=self.database, redis=redis, clock=self.clock
        )
        self.client: Any = TestClient(self.app, raise_server_exceptions=False)
        self.keys = {
            who: self.key(role, team)
            for who, role, team in (
                ("viewer", "viewer", "red"),
                ("submitter", "submitter", "red"),
                ("admin", "admin", "ops"),
                ("stranger", "submitter", "blue"),
            )
        }

    def key(self, role: Any, team: str) -> str:
        request = KeyRequest(name=f"{role} of {team}", role=role, owner=f"ann-{role}", team=team)
        return create_key(self.database, request).key

    def caller(self, who: str | None) -> Caller:
        return Caller(self.client, None if who is None else self.keys[who])

    @property
    def viewer(self) -> Caller:
        return self.caller("viewer")

    @property
    def submitter(self) -> Caller:
        return self.caller("submitter")

    @property
    def admin(self) -> Caller:
        return self.caller("admin")

    @property
    def stranger(self) -> Caller:
        """A submitter of another team."""
        return self.caller("stranger")

    @property
    def nobody(self) -> Caller:
        return self.caller(None)

    def lead(self, job_id: str, *states: str, **changes: Any) -> None:
        """Lead a job through states, as the controller does."""
        with self.database.write() as session:
            for state in states:
                assert move(session, job_id, JobState(state), **changes), state

    def tell(self, job_id: str, kind: str = "progress", **data: Any) -> int:
        """Append an event to a job."""
        with self.database.write() as session:
            return add_event(session, job_id, kind, data)


@contextmanager
def served(rest: Rest) -> Iterator[str]:
    """Serve the application over real sockets until the block ends; yield its address."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        rest.app, log_config=None, access_log=False, timeout_graceful_shutdown=2
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        end = time.monotonic() + 15
        while not server.started and time.monotonic() < end:
            time.sleep(0.01)
        assert server.started
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(15)
        listener.close()


@contextmanager
def over_sockets(rest: Rest) -> Iterator[Any]:
    """Yield a client of the served application."""
    with served(rest) as address, httpx2.Client(base_url=address, timeout=30) as client:
        yield client


def recipe(**changes: Any) -> dict[str, Any]:
    """Return a recipe that can be parsed; nothing in it is there."""
    return {
        "base": "/models/base",
        "experts": [
            {"name": "one", "model": "/models/one"},
            {"name": "two", "model": "/models/two"},
        ],
        "method": {"name": "task_arithmetic", "scale": 0.5},
        "output": "/models/merged",
        **changes,
    }


PROBLEM_KEYS = {
    "type",
    "title",
    "status",
    "detail",
    "instance",
    "code",
    "hint",
    "context",
    "errors",
    "request_id",
}


def problem(answer: Any, status: int, code: str | None = None) -> dict[str, Any]:
    """Check that an answer is a problem of our one shape, and return it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found = dict(answer.json())
    assert set(found) == PROBLEM_KEYS
    assert found["status"] == status
    assert found["type"] == f"/docs/errors#{found['code']}"
    assert found["request_id"] == answer.headers["x-request-id"]
    assert found["detail"]
    if code is not None:
        assert found["code"] == code
    return found
