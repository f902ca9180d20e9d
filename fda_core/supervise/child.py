"""One process that is kept running, over all its lives."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fda_core.errors import ProcessFailed
from fda_core.supervise import bound
from fda_core.supervise.logs import Log

PUMP_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class Command:
    """A process to run."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    """The whole environment."""
    grace_seconds: float = 10.0
    """How long it may take to end after SIGTERM."""
    may_finish: bool = False
    """Whether ending with 0 is as it should be, and no reason to start it again."""


class Child:
    """A command's process. Start it only from a thread that lives as long as it shall."""

    def __init__(self, command: Command, log: Log) -> None:
        self.command = command
        self.log = log
        self.lives = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._pump: threading.Thread | None = None

    @property
    def pid(self) -> int | None:
        """Return its process id, while it runs."""
        return self._process.pid if self._process is not None and self.is_alive() else None

    def start(self) -> None:
        """Start it in a process group of its own, so that Ctrl-C reaches only us."""
        try:
            self._process = subprocess.Popen(
                _bound(self.command),
                env=dict(self.command.env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        except OSError as problem:
            raise ProcessFailed(
                f"{self.command.name} cannot be started: {problem.strerror}",
                hint="The machine may have too many processes, or too little memory.",
                process=self.command.name,
            ) from problem
        self.lives += 1
        assert self._process.stdout is not None
        self._pump = threading.Thread(
            target=self.log.pump, args=(self._process.stdout,), daemon=True
        )
        self._pump.start()

    def is_alive(self) -> bool:
        """Say whether it runs."""
        return self._process is not None and self._process.poll() is None

    def exit_status(self) -> int | None:
        """Return how its last life ended; negative is a signal's number."""
        return None if self._process is None else self._process.poll()

    def terminate(self) -> None:
        """Ask it to end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it, and what it started, at once."""
        self._signal(signal.SIGKILL)

    def wait(self, timeout_seconds: float) -> bool:
        """Say whether it ended within the time."""
        if self._process is None:
            return True
        try:
            self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def reap(self) -> None:
        """End what it left in its group, and read its last words."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        if self._pump is not None:
            self._pump.join(PUMP_SECONDS)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        try:
            if number is signal.SIGKILL:
                os.killpg(self._process.pid, number)
            else:
                self._process.send_signal(number)
        except ProcessLookupError:
            pass


def once(command: Command, log: Log, *, timeout_seconds: float) -> str:
    """Run a command to its end and return what it printed, which may be a secret.

    Only its stderr is logged. Raises `ProcessFailed` if it ends with anything but 0.
    """
    try:
        done = subprocess.run(
            _bound(command),
            env=dict(command.env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_seconds,
            process_group=0,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ProcessFailed(
            f"{command.name} was not done after {timeout_seconds:g} s",
            hint=f"Its log is {log.path}.",
            process=command.name,
        ) from None
    for line in done.stderr.splitlines():
        log.write(line)
    if done.returncode != 0:
        said = (log.tail() or ["nothing"])[-1]
        raise ProcessFailed(
            f"{command.name} ended with {done.returncode}: {said}",
            hint=f"Its log is {log.path}.",
            process=command.name,
        )
    return done.stdout.decode(errors="replace")


def _bound(command: Command) -> list[str]:
    """Return the command line that runs a command so that it dies with us."""
    head = [sys.executable, "-I", "-S", str(Path(bound.__file__)), str(os.getpid())]
    return [*head, *command.argv]
