"""The two streams of the command: results on stdout, everything else on stderr."""

import errno
import io
import json
import os
import select
import sys
from contextlib import suppress
from typing import Any, Final, TextIO

from rich.console import Console, ConsoleDimensions
from rich.markup import escape

from fda_core.errors import FdaError

FILE_COLUMNS: Final = 1000


class Stream(Console):
    """A console that breaks lines for people at a terminal and for nobody else.

    In a pipe or a log a line stays one line, unless COLUMNS says how long lines are.
    """

    @property
    def size(self) -> ConsoleDimensions:
        """Return the terminal's size, or lines that are long enough."""
        found = super().size
        if self.is_terminal or self._width is not None:
            return found
        return ConsoleDimensions(FILE_COLUMNS, found.height)

    @size.setter
    def size(self, new_size: tuple[int, int]) -> None:
        self._width, self._height = new_size

    def on_broken_pipe(self) -> None:
        """Leave it to the command; the library would end the process with 1 and without stdout."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


out = Stream(highlight=False)
err = Stream(stderr=True, highlight=False)


def print_json(data: Any) -> None:
    """Print one JSON document to stdout, unstyled; escaped where UTF-8 is not understood."""
    unicode = "utf" in (getattr(sys.stdout, "encoding", None) or "utf-8").lower()
    print(json.dumps(data, ensure_ascii=not unicode, indent=2))


def escape_unknown_letters() -> None:
    """Show letters that a terminal's encoding lacks as escapes, where they would end us."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def print_error(problem: FdaError, *, as_json: bool) -> None:
    """Print code, what happened and what to do; what nobody can be told changes no exit code."""
    try:
        err.print(
            f"[bold red]error[/] [bold]{problem.code}[/]: {escape(problem.message)}",
            soft_wrap=True,
        )
        if problem.hint:
            err.print(f"[cyan]hint[/]: {escape(problem.hint)}", soft_wrap=True)
    except OSError:
        give_up(sys.stderr)
    if as_json:
        try:
            print_json({"error": problem.as_dict()})
            sys.stdout.flush()
        except OSError:
            give_up(sys.stdout)


def give_up(stream: TextIO) -> None:
    """Let what could not be written go: trying again at the end would hide the exit code."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def is_read(stream: TextIO) -> bool:
    """Say whether somebody may still read what is written: not if it is a pipe to nobody."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        return not any(said & select.POLLERR for _, said in poll.poll(0))
    except (OSError, ValueError):
        return True


def size(count: int) -> str:
    """Return a number of bytes for people."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def flops(count: int) -> str:
    """Return a number of multiply-adds for people."""
    value = float(count)
    for unit in ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP"):
        if value < 1000 or unit == "PFLOP":
            return f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} PFLOP"


def seconds(value: float) -> str:
    """Return a duration for people."""
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
