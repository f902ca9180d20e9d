"""Processes that outlived a supervisor that was killed, where the kernel does not end them.

Named by the note of the last run, and only ended if they still run the very command it
names: process ids are used again.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

LONGEST_SECONDS = 5.0
POLL_SECONDS = 0.05


def end_leftovers(told: Iterable[Any]) -> list[int]:
    """Kill what still runs of `{"pid": …, "argv": […]}` notes; return the ids that did."""
    found = [
        int(one["pid"])
        for one in told
        if isinstance(one, dict)
        and isinstance(one.get("pid"), int)
        and one["pid"] > 1
        and _runs(one["pid"], one.get("argv"))
    ]
    for pid in found:
        try:
            os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue
    until = time.monotonic() + LONGEST_SECONDS
    while any(command_line(pid) for pid in found) and time.monotonic() < until:
        time.sleep(POLL_SECONDS)
    return found


def _runs(pid: int, argv: Any) -> bool:
    command = command_line(pid)
    if not isinstance(argv, list) or not argv or command is None:
        return False
    # The command line as it was told may still be that of the program that becomes it.
    told = [str(part) for part in argv]
    return command in (told, told[-len(command) :])


def command_line(pid: int) -> list[str] | None:
    """Return the command line of a process that runs, or None. The dead have none."""
    proc = Path(f"/proc/{pid}/cmdline")
    if proc.parent.parent.joinpath("self").exists():
        try:
            parts = proc.read_bytes().split(b"\0")
        except OSError:
            return None
        return [part.decode(errors="replace") for part in parts if part] or None
    done = subprocess.run(
        ["ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return done.stdout.split() or None
