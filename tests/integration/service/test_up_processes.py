"""`fda up` with a real Valkey and stand-ins for the service's own processes."""

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from fda_core.cli.profile import database_url
from fda_core.supervise.leftovers import command_line
from tests.support.stand_in_processes import until

Start = Callable[..., "Up"]
ODD_NAME = 'data "dir" \\ [7]%3F?x=1#*'
"""Nothing that the name of a folder may have means anything else to Valkey or SQLite."""


class Up:
    """A running `fda up`."""

    def __init__(self, folder: Path, *options: str, **environment: str) -> None:
        self.data, self._diary = folder / ODD_NAME, folder / "diary"
        self._diary.touch()
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("FDA_")}
        command = [sys.executable, "-m", "tests.support.stand_in_processes", "up", "--json"]
        self.process = subprocess.Popen(
            [*command, "--data-dir", str(self.data), "--port", "0", *options],
            env={**inherited, "STANDIN_DIARY": str(self._diary), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.url = self.key = ""

    def ready(self) -> "Up":
        """Wait for the line on stdout, and until every stand-in listens to signals."""
        assert self.process.stdout is not None
        told = json.loads(self.process.stdout.readline())
        assert list(told) == ["url", "key"]
        self.url, self.key = told["url"], told["key"]
        until(lambda: self._running() <= self._listening(), "all stand-ins listen")
        return self

    def _running(self) -> set[int]:
        return {pid for name, pid in self.children().items() if name != "valkey"}

    def _listening(self) -> set[int]:
        return {int(line.split()[2]) for line in self.diary() if " started " in line}

    def diary(self) -> list[str]:
        return self._diary.read_text().splitlines()

    def started(self, name: str) -> list[int]:
        """Return the process ids of all lives of a process, oldest first."""
        return [int(x.split()[2]) for x in self.diary() if x.startswith(f"{name} started")]

    def environment(self, name: str) -> dict[str, str]:
        line = next(x for x in self.diary() if x.startswith(f"{name} started"))
        found: dict[str, str] = json.loads(line.split(" ", 3)[3])
        return found

    def note(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.data / "running.json").read_text())
        return found

    def children(self) -> dict[str, int]:
        return {child["name"]: child["pid"] for child in self.note()["children"]}

    def redis(self) -> "redis.Redis":
        return redis.Redis.from_url(
            self.environment("worker")["FDA_REDIS_URL"], decode_responses=True
        )

    def end(self, number: signal.Signals = signal.SIGINT) -> tuple[int, str, str]:
        """Send a signal; return exit code and what else was printed."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out, err


def gone(pids: list[int]) -> bool:
    return all(command_line(pid) is None for pid in pids)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start it in a folder of the test; nothing is left at the end."""
    made: list[Up] = []

    def begin(*options: str, **environment: str) -> Up:
        made.append(Up(tmp_path, "--workers", "2", *options, **environment))
        return made[-1]

    yield begin
    for one in made:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One for the tests that leave it running."""
    one = Up(tmp_path_factory.mktemp("up"), "--workers", "2").ready()
    yield one
    one.end()


def test_the_key_is_kept_for_its_owner_alone(shared: Up):
    path = shared.data / "admin.key"
    assert path.read_text() == shared.key + "\n"
    private = [path, shared.data / "secret", *shared.data.glob("valkey/p*")]
    assert {stat.S_IMODE(one.stat().st_mode) for one in private} == {0o600}
    assert stat.S_IMODE(shared.data.stat().st_mode) == 0o700
    logs = "".join(log.read_text() for log in (shared.data / "logs").iterdir())
    assert shared.key not in logs
    assert "a warning of a library" in logs


def test_processes_are_told_one_story(shared: Up):
    told = shared.environment("api")
    assert told["FDA_DATABASE_URL"] == database_url(shared.data)
    assert told["FDA_WORKSPACE"] == f"{shared.data}/workspace"
    assert json.loads(told["FDA_ROOTS"]) == [f"{shared.data}/storage", os.getcwd()]  # noqa: PTH109
    assert shared.url == told["FDA_PUBLIC_URL"] == f"http://127.0.0.1:{told['FDA_PORT']}"
    assert len(told["FDA_SECRET"]) >= 32
    for name in ("controller", "worker"):
        other = shared.environment(name)
        assert {k: v for k, v in other.items() if k.startswith("FDA_")} == {
            k: v for k, v in told.items() if k.startswith("FDA_")
        }
    assert len(shared.started("worker")) >= 2


def test_valkey_keeps_what_it_was_told_and_wants_a_password(shared: Up):
    with shared.redis() as server:
        assert server.config_get("appendonly", "appendfsync", "maxmemory-policy", "bind") == {
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "bind": "127.0.0.1",
        }
        port = server.connection_pool.connection_kwargs["port"]
        password = server.connection_pool.connection_kwargs["password"]
    stranger = redis.Redis(port=port, retry=Retry(NoBackoff(), 0))
    with stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()
    commands = [command_line(pid) or [] for pid in shared.children().values()]
    assert all(password not in part for command in commands for part in command)


def test_output_of_processes_is_in_files(shared: Up):
    assert "worker says hello" in (shared.data / "logs" / "worker-1.log").read_text()
    assert "api was asked /readyz" in (shared.data / "logs" / "api.log").read_text()


def test_a_second_one_on_the_same_folder_is_refused_with_the_address(shared: Up):
    second = Up(shared.data.parent)
    out, _ = second.process.communicate(timeout=20)
    error = json.loads(out)["error"]
    assert second.process.returncode == 7
    assert error["code"] == "already_running"
    assert error["context"] == {"url": shared.url, "process": shared.process.pid}


def test_a_port_that_is_taken_is_named(shared: Up, start: Start):
    port = shared.url.rpartition(":")[2]
    second = start("--port", port)
    out, _ = second.process.communicate(timeout=20)
    error = json.loads(out)["error"]
    assert (error["code"], error["context"]["port"]) == ("port_taken", int(port))
    assert "--port" in error["hint"]


@pytest.mark.parametrize("name", ["worker", "api", "controller"])
def test_a_killed_process_is_started_again(shared: Up, name: str):
    child = "worker-2" if name == "worker" else name
    before = until(lambda: shared.children().get(child), f"{child} runs")
    lives = len(shared.started(name))
    os.kill(before, signal.SIGKILL)
    until(lambda: len(shared.started(name)) > lives, f"{name} runs again")
    until(lambda: shared.children().get(child, before) != before, "and is noted")


def test_a_killed_valkey_comes_back_with_its_data(shared: Up):
    with shared.redis() as server:
        server.set("kept", "yes")
        server.execute_command("WAITAOF", 1, 0, 5000)
        before = shared.children()["valkey"]
        os.kill(before, signal.SIGKILL)

        def back() -> bool:
            try:
                return bool(server.get("kept") == "yes")
            except redis.ConnectionError:
                return False

        until(back, "valkey answers")
    assert until(lambda: shared.children().get("valkey", before) != before, "it is another one")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_at_the_end_workers_go_first_and_nothing_is_left(start: Start, number: signal.Signals):
    running = start().ready()
    children = running.children()
    assert set(children) == {"valkey", "api", "controller", "worker-1", "worker-2"}
    code, out, err = running.end(number)
    assert (code, out) == (0, ""), err
    steps = [x for x in running.diary() if x.endswith((" asked", " ended", " interrupted"))]
    assert steps == [
        *["worker asked"] * 2,
        *["worker ended"] * 2,
        "controller asked",
        "controller ended",
        "api asked",
        "api ended",
    ]
    assert gone(list(children.values()))


def test_what_does_not_end_in_its_grace_is_killed(start: Start):
    running = start("--grace", "0.3", STANDIN_HANGS="worker").ready()
    children = running.children()
    code, _, err = running.end()
    assert code == 0
    assert err.count("worker-1 did not end in time and is killed") == 1
    assert running.diary()[-1] == "api ended"
    assert gone(list(children.values()))


def test_a_second_ctrl_c_ends_everything_at_once(start: Start):
    running = start("--grace", "600", STANDIN_HANGS="worker").ready()
    children = running.children()
    running.process.send_signal(signal.SIGINT)
    until(lambda: running.diary().count("worker asked") == 2, "workers are asked")
    code, _, _ = running.end()
    assert code == 0
    assert gone(list(children.values()))


def test_a_killed_supervisor_leaves_nothing_and_can_be_started_again(start: Start):
    running = start().ready()
    children = running.children()
    with running.redis() as server:
        server.set("kept", "yes")
    running.process.kill()
    running.process.communicate()
    until(lambda: gone(list(children.values())), "children are gone", seconds=5)
    again = start().ready()
    assert again.key == running.key
    with again.redis() as server:
        assert server.get("kept") == "yes"
    assert again.diary().count("admin create-key") == 1
    assert again.end()[0] == 0


def test_a_process_that_dies_again_and_again_is_given_up_with_its_last_words(start: Start):
    running = start(STANDIN_DIES="api")
    out, _ = running.process.communicate(timeout=20)
    error = json.loads(out)["error"]
    assert running.process.returncode == 7
    assert error["code"] == "process_failed"
    assert "api died 3 times" in error["message"]
    assert "api has no luck" in error["message"]
    assert error["context"]["log"].endswith("logs/api.log")
    assert running.diary()[-1] == "controller ended"


def test_what_it_is_not_ready_for_is_in_the_last_error(start: Start):
    missing = "not ready: broker (AuthenticationError)"
    running = start(STANDIN_MISSING=missing, STANDIN_PATIENCE="4")
    out, err = running.process.communicate(timeout=40)
    error = json.loads(out)["error"]
    assert (running.process.returncode, error["code"]) == (7, "process_failed")
    assert f"api did not become ready in 4 s: {missing}; it" in error["message"]
    assert err.count(f"fda up: {missing}\n") == 1


def test_a_worker_that_was_drained_stays_away(start: Start):
    running = start().ready()
    os.kill(running.children()["worker-1"], signal.SIGTERM)
    until(lambda: "worker-1" not in running.children(), "it is gone")
    os.kill(running.children()["worker-2"], signal.SIGKILL)
    until(lambda: len(running.started("worker")) == 3, "the other one is started again")
    _, _, err = running.end()
    assert "worker-1 has finished and is not started again" in err
    assert len(running.started("worker")) == 3


def test_a_key_of_another_database_is_made_anew(start: Start):
    first = start().ready()
    first.end()
    (first.data / "fda.db").unlink()
    second = start().ready()
    assert second.key != first.key
    assert (second.data / "admin.key").read_text() == second.key + "\n"
    second.end()


def test_a_redis_of_ones_own_is_used(shared: Up, start: Start):
    url = shared.environment("worker")["FDA_REDIS_URL"]
    running = start("--allow", "models", "--allow", "s3://b/p", FDA_REDIS_URL=url).ready()
    assert running.environment("worker")["FDA_REDIS_URL"] == url
    assert "valkey" not in running.children()
    roots = json.loads(running.environment("worker")["FDA_ROOTS"])
    assert roots == [f"{running.data}/storage", f"{Path.cwd()}/models", "s3://b/p"]
    running.end()


def test_a_fixed_port_of_figures_is_counted_up_so_that_no_two_processes_collide(start: Start):
    running = start(FDA_METRICS_PORT="9200").ready()
    lines = [line.split(" ", 3) for line in running.diary() if " started " in line]
    ports = {(name, json.loads(told)["FDA_METRICS_PORT"]) for name, _, _, told in lines}
    assert ports >= {("controller", "9200"), ("worker", "9201"), ("worker", "9202")}
    running.end()
