"""Run a command, and say what it took by the kernel's own count.

The largest resident size of a process that was started from another begins with that one's: Linux
keeps it over exec, so that a command of 300 MB run by a benchmark that holds 1 GB counts as 1 GB. A
small process in between has nothing to hand on.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

STARTER = """
import json, os, sys
said, *command = sys.argv[1:]
pid = os.posix_spawn(command[0], command, os.environ)
_, status, usage = os.wait4(pid, 0)
found = {
    "pid": pid,
    "code": os.waitstatus_to_exitcode(status),
    "cpu_seconds": usage.ru_utime + usage.ru_stime,
    "peak": usage.ru_maxrss * 1024,
}
with open(said, "w") as file:
    json.dump(found, file)
"""


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What a command and all below it took."""

    pid: int
    code: int
    cpu_seconds: float
    wall_seconds: float
    peak: int
    """Bytes resident at most in one process."""


def run(command: Sequence[str], *, log: Path, environment: Mapping[str, str]) -> Taken:
    """Run a command to its end, its words into `log`; `log` with .json has what it took."""
    said = log.with_suffix(".json")
    started = [sys.executable, "-I", "-S", "-c", STARTER, str(said), *command]
    began = time.perf_counter()
    with log.open("w") as words:
        subprocess.run(
            started, stdout=words, stderr=words, env={**os.environ, **environment}, check=True
        )
    seconds = time.perf_counter() - began
    return Taken(**json.loads(said.read_text()), wall_seconds=seconds)
