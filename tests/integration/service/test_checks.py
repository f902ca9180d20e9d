"""The health checks of containers: what they call well, and what not."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

import api.check
import worker.check
from api.control.leader import Leader
from api.db.migrate import migrate
from api.db.session import Database, open_engine
from api.db.types import now
from api.settings import Settings as ApiSettings
from fda_core.contract.service import names
from fda_core.contract.service.messages import WorkerStatus
from fda_core.errors import BadParameter
from tests.support.valkey import Valkey
from worker.settings import Settings as WorkerSettings

HERE = socket.gethostname()


def tell(valkey: Valkey, *, host: str = HERE, process: int | None = None, age: float = 0) -> None:
    """Do what a worker's heartbeat does."""
    status = WorkerStatus(
        id=f"{host}:1:abc",
        host=host,
        process=os.getpid() if process is None else process,
        version="0",
        device="cpu",
        device_kind="cpu",
        device_memory_bytes=None,
        device_used_bytes=None,
        host_memory_bytes=1,
        host_used_bytes=1,
        threads=1,
        queues=("cpu",),
        started=0,
        at=time.time() - age,
        state="idle",
    )
    valkey.client.set(
        names.worker(status.id), status.model_dump_json(), px=int(names.STATUS_SECONDS * 1000)
    )


@pytest.fixture
def told(valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> Valkey:
    monkeypatch.setenv("FDA_REDIS_URL", valkey.url)
    return valkey


def test_a_worker_that_beats_here_is_well(told: Valkey) -> None:
    tell(told)
    assert worker.check.main([]) == 0


@pytest.mark.parametrize(
    "status",
    [
        pytest.param({"host": "another"}, id="of another host"),
        pytest.param({"host": f"{HERE}-2"}, id="of a host whose name begins alike"),
        pytest.param({"age": names.STATUS_SECONDS + 1}, id="too old"),
        pytest.param({"process": 2**22 + 1}, id="of a process that is no more"),
        pytest.param(None, id="none"),
    ],
)
def test_without_a_fresh_status_of_this_host_a_worker_is_not_well(
    told: Valkey, status: dict[str, object] | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if status is not None:
        tell(told, **status)  # type: ignore[arg-type]
    assert worker.check.main([]) == 1
    assert HERE in capsys.readouterr().err


def test_what_another_version_wrote_is_no_status(told: Valkey) -> None:
    told.client.set(names.worker(f"{HERE}:1:abc"), '{"hello": 1}')
    assert worker.check.main([]) == 1


def test_without_redis_a_worker_is_not_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FDA_REDIS_URL", "redis://:hush@127.0.0.1:1/0")
    assert worker.check.main([]) == 1
    said = capsys.readouterr().err
    assert "Redis: ConnectionError" in said
    assert "hush" not in said


def test_arguments_nobody_knows_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert worker.check.main(["--all"]) == 2
    assert api.check.main(["--all"]) == 2
    assert "python -m worker.check" in capsys.readouterr().err


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    url = f"sqlite:///{tmp_path / 'fda.db'}"
    monkeypatch.setenv("FDA_DATABASE_URL", url)
    opened = Database(open_engine(url))
    migrate(opened.engine)
    yield opened
    opened.close()


def test_a_controller_is_well_while_every_loop_is_led(database: Database) -> None:
    assert api.check.main(["--controller"]) == 1, "there are no loops yet"
    leader = Leader(database, ["planner", "clock"], holder="one", clock=now)
    leader.renew()
    assert api.check.main(["--controller"]) == 0
    late = Leader(database, ["courier"], holder="two", clock=lambda: now() - timedelta(seconds=60))
    late.renew()
    assert api.check.main(["--controller"]) == 1, "nobody leads the courier"
    late.release()
    leader.release()
    assert api.check.main(["--controller"]) == 1


def test_without_a_database_a_controller_is_not_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FDA_DATABASE_URL", f"sqlite:///{tmp_path / 'none' / 'fda.db'}")
    assert api.check.main(["--controller"]) == 1
    assert "database: OperationalError" in capsys.readouterr().err


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1), (404, 1)])
def test_the_api_is_well_if_it_answers_200(status: int, code: int) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert api.check.main([f"http://127.0.0.1:{server.server_port}/readyz"]) == code
        thread.join()
    assert api.check.main([f"http://127.0.0.1:{server.server_port}/readyz"]) == 1


@pytest.mark.parametrize("settings", [ApiSettings, WorkerSettings])
def test_secrets_are_read_from_the_folder_that_is_named(
    settings: type[ApiSettings] | type[WorkerSettings],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("FDA_REDIS_URL", raising=False)
    (tmp_path / "fda_redis_url").write_text("redis://:hush@redis:6379/0\n")
    monkeypatch.setenv("FDA_SECRETS_DIR", str(tmp_path))
    assert settings().redis_url.get_secret_value() == "redis://:hush@redis:6379/0"
    monkeypatch.setenv("FDA_REDIS_URL", "redis://here:1/0")
    assert settings().redis_url.get_secret_value() == "redis://here:1/0"
    monkeypatch.setenv("FDA_SECRETS_DIR", str(tmp_path / "none"))
    with pytest.raises(BadParameter, match="FDA_SECRETS_DIR"):
        settings()
