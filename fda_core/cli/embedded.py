"""The whole service on this machine: which processes, with which settings, in which order.

Names modules and environment variables only: the processes are Python's own, started with
`python -m`, so nothing of the service, and no torch, is loaded here.
"""

import http.client
import json
import os
import queue
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fda_core.cli.profile import database_url
from fda_core.errors import Cancelled, ProcessFailed
from fda_core.supervise.child import Child, Command, once
from fda_core.supervise.leftovers import command_line, end_leftovers
from fda_core.supervise.lock import note, only_one, read_note, write_private
from fda_core.supervise.logs import Log, Mirror
from fda_core.supervise.ports import check_free
from fda_core.supervise.supervisor import Restarts, Supervisor, Tell, died
from fda_core.supervise.valkey import Valkey

PYTHON = (sys.executable, "-m")
POLL_SECONDS = 0.1
KEY_FILE = "admin.key"
ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}


@dataclass(frozen=True, kw_only=True)
class Programs:
    """How each process is started; other ones in tests."""

    api: tuple[str, ...] = (*PYTHON, "api")
    controller: tuple[str, ...] = (*PYTHON, "api.control")
    worker: tuple[str, ...] = (*PYTHON, "worker")
    admin: tuple[str, ...] = (*PYTHON, "api.admin")
    redis: str | None = None
    """Default: looked for."""


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """One worker: the queues it serves, its device, and what its environment says beside."""

    queues: str = "cpu"
    device: str = "auto"
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class EmbeddedSettings:
    """A service to run here."""

    data_dir: Path
    roots: tuple[str, ...]
    workers: tuple[WorkerSettings, ...]
    host: str = "127.0.0.1"
    port: int = 8080
    environment: Mapping[str, str]
    """What processes inherit. FDA_ variables in it win over ours, but for FDA_HOST, FDA_PORT
    and FDA_ROOTS, which options of the command say."""
    grace_seconds: float = 30.0
    """How long workers may go on with their units when the service ends."""
    ready_seconds: float = 90.0
    programs: Programs = Programs()
    restarts: Restarts = field(default_factory=Restarts)


@dataclass(frozen=True, kw_only=True)
class Running:
    """A service that is ready."""

    url: str
    key: str
    key_file: Path
    data_dir: Path
    logs: Path
    redis: str
    workers: int


class Embedded:
    """The service's processes. `start` and `run` belong to one thread, which must live on."""

    def __init__(
        self,
        settings: EmbeddedSettings,
        *,
        tell: Tell = lambda _text: None,
        mirror: Mirror | None = None,
    ) -> None:
        self.settings = settings
        self.stop = threading.Event()
        self.stop_now = threading.Event()
        self._tell = tell
        self._mirror = mirror
        self._folder = settings.data_dir
        self._url = ""
        self._missing = ""
        """What the service last said it was not ready for."""
        self._supervisor = Supervisor(restarts=settings.restarts, tell=tell, on_change=self._note)

    @contextmanager
    def running(self) -> Iterator[Running]:
        """Hold the folder, start everything, yield when it is ready; at the end stop it all."""
        with only_one(self._folder):
            end_leftovers(read_note(self._folder).get("children", []))
            try:
                yield self._start()
            finally:
                self._end()

    def run(self) -> None:
        """Look after the processes until `stop` is set."""
        self._supervisor.run(self.stop)

    def _start(self) -> Running:
        settings = self.settings
        port = check_free(settings.host, settings.port)
        shown = ANY_HOST.get(settings.host, settings.host)
        self._url = f"http://{shown}:{port}"
        environment = self._environment(port)
        redis = "FDA_REDIS_URL"
        if "FDA_REDIS_URL" not in environment:
            valkey = Valkey(self._folder / "valkey", server=settings.programs.redis)
            environment["FDA_REDIS_URL"] = valkey.url
            redis = f"127.0.0.1:{valkey.port}"
            child = self._add("valkey", valkey.argv(), environment)
            self._wait(valkey.answers, child, "answer")
        self._key(environment)
        api = self._add("api", settings.programs.api, environment)
        self._add(
            "controller", settings.programs.controller, environment | _metrics_port(environment, 0)
        )
        for number, worker in enumerate(settings.workers, 1):
            argv = (*settings.programs.worker, "--queues", worker.queues)
            self._add(
                f"worker-{number}",
                (*argv, "--device", worker.device),
                {**environment, **_metrics_port(environment, number), **worker.env},
                grace_seconds=settings.grace_seconds,
                may_finish=True,
            )
        self._wait(self._is_ready, api, "become ready")
        running = Running(
            url=self._url,
            key=self._valid_key(environment),
            key_file=self._folder / KEY_FILE,
            data_dir=self._folder,
            logs=self._folder / "logs",
            redis=redis,
            workers=len(settings.workers),
        )
        self._note()
        return running

    def _environment(self, port: int) -> dict[str, str]:
        """Return what all processes are told."""
        here, settings = self._folder, self.settings
        for name in ("storage", "workspace"):
            (here / name).mkdir(exist_ok=True)
        ours = {
            "FDA_DATABASE_URL": database_url(here),
            "FDA_WORKSPACE": str(here / "workspace"),
            "FDA_SECRET": self._remembered("secret", lambda: secrets.token_hex(32)),
            "FDA_PUBLIC_URL": self._url,
            # Workers share the cores; idle threads that spin slow all of them down.
            "OMP_NUM_THREADS": "1",
            "OMP_WAIT_POLICY": "PASSIVE",
            "KMP_BLOCKTIME": "0",
            "PYTHONUNBUFFERED": "1",
            # They give units back before we lose patience.
            "FDA_GRACE_SECONDS": f"{settings.grace_seconds * 0.8:g}",
        }
        said = {
            "FDA_HOST": settings.host,
            "FDA_PORT": str(port),
            "FDA_ROOTS": json.dumps(settings.roots),
        }
        return {**ours, **settings.environment, **said}

    def _key(self, environment: dict[str, str]) -> str:
        """Return the key of an admin: made once, tables and all, and kept."""

        def make() -> str:
            said = self._once("create-key", ("create-key", "--name", "fda up"), environment)
            lines = said.split()
            if not lines:
                raise ProcessFailed("create-key printed no key", hint="Update the package.")
            return lines[-1]

        return self._remembered(KEY_FILE, make)

    def _valid_key(self, environment: dict[str, str]) -> str:
        """Return the key; another one if the database is not the one it was made for."""
        path = self._folder / KEY_FILE
        if self._get("/v1/keys?limit=1", key=self._key(environment))[0] == 401:
            self._tell(f"{path} is not valid for this database; made anew")
            path.unlink()
        return self._key(environment)

    def _remembered(self, name: str, make: Callable[[], str]) -> str:
        path = self._folder / name
        if not path.exists():
            write_private(path, make() + "\n")
        return path.read_text().strip()

    def _once(self, name: str, arguments: Sequence[str], environment: Mapping[str, str]) -> str:
        self._check_stop()
        log = self._log("admin")
        try:
            return once(
                Command(
                    name=name,
                    argv=(*self.settings.programs.admin, *arguments),
                    env=environment,
                ),
                log,
                timeout_seconds=self.settings.ready_seconds,
            )
        finally:
            log.close()

    def _add(
        self,
        name: str,
        argv: tuple[str, ...],
        env: Mapping[str, str],
        *,
        grace_seconds: float = 10.0,
        may_finish: bool = False,
    ) -> Child:
        self._check_stop()
        command = Command(
            name=name,
            argv=argv,
            env=dict(env),
            grace_seconds=grace_seconds,
            may_finish=may_finish,
        )
        child = Child(command, self._log(name))
        self._supervisor.add(child)
        return child

    def _log(self, name: str) -> Log:
        return Log(name, self._folder / "logs" / f"{name}.log", mirror=self._mirror)

    def _wait(self, is_so: Callable[[], bool], child: Child, what: str) -> None:
        """Wait until something is so, starting again what dies meanwhile."""
        until = time.monotonic() + self.settings.ready_seconds
        while not is_so():
            self._check_stop()
            if time.monotonic() > until:
                why = f": {self._missing}" if self._missing else ""
                raise died(child, f"did not {what} in {self.settings.ready_seconds:g} s{why}")
            self._supervisor.step()
            self.stop.wait(POLL_SECONDS)

    def _check_stop(self) -> None:
        if self.stop.is_set():
            raise Cancelled("stopped before it was ready")

    def _is_ready(self) -> bool:
        """Say whether everything the service needs answers; tell what does not."""
        status, body = self._get("/readyz")
        missing = _detail(body) if status == 503 else ""
        if missing and missing != self._missing:
            self._tell(missing)
        self._missing = missing
        return status == 200

    def _get(self, path: str, *, key: str | None = None) -> tuple[int | None, bytes]:
        """Return status and body of an answer of our own api; None if there was none."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        address = self._url.removeprefix("http://")
        connection = http.client.HTTPConnection(address, timeout=5.0)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return None, b""
        finally:
            connection.close()

    def _note(self) -> None:
        """Tell the folder who we are: the next start, and commands that look for a service."""
        children = [
            {"name": child.command.name, "pid": child.pid, "argv": command_line(child.pid)}
            for child in self._supervisor.children
            if child.pid is not None
        ]
        data: dict[str, Any] = {
            "process": os.getpid(),
            "url": self._url,
            "key_file": str(self._folder / KEY_FILE),
            "children": children,
        }
        try:
            note(self._folder, data)
        except OSError as problem:  # who runs here is not known then, but it runs
            self._tell(f"{self._folder} cannot be written: {problem.strerror}")

    def _end(self) -> None:
        workers = [
            child.command.name
            for child in self._supervisor.children
            if child.command.name.startswith("worker-")
        ]
        self._supervisor.end(
            [workers, ["controller"], ["api"], ["valkey"]], at_once=self.stop_now.is_set
        )


@dataclass(frozen=True)
class Background:
    """A service that is looked after by a thread."""

    running: Running
    _failure: list[BaseException]

    def check(self) -> None:
        """Raise what ended the service, if something did."""
        if self._failure:
            raise self._failure[0]


@contextmanager
def in_background(service: Embedded) -> Iterator[Background]:
    """Run a service in a thread while the caller does something with it."""
    ready: queue.Queue[Running | None] = queue.Queue()
    failure: list[BaseException] = []

    def look_after() -> None:
        try:
            with service.running() as running:
                ready.put(running)
                service.run()
        except BaseException as problem:
            failure.append(problem)
        ready.put(None)

    thread = threading.Thread(target=look_after, name="service")
    thread.start()
    try:
        running = ready.get()
        if running is not None:
            yield Background(running, failure)
    finally:
        service.stop.set()
        thread.join()
    if failure:
        raise failure[0]


def _detail(body: bytes) -> str:
    """Return what a problem document says."""
    try:
        return str(json.loads(body)["detail"])
    except (ValueError, KeyError, TypeError):
        return ""


def _metrics_port(environment: Mapping[str, str], place: int) -> dict[str, str]:
    """Return the port of one process's figures: the given one and those after it, or any for 0."""
    told = environment.get("FDA_METRICS_PORT", "")
    if not told.isdigit() or told == "0":
        return {}
    return {"FDA_METRICS_PORT": str(int(told) + place)}
