"""The `fda` command, run inside the test's process."""

import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fda_core.cli.main import run


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How the command ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """Return what `--json` printed: one document and nothing else."""
        return json.loads(self.out, parse_constant=_refuse)

    @property
    def error(self) -> dict[str, Any]:
        """Return the error that `--json` printed."""
        return self.data["error"]


def fda(*arguments: object) -> Outcome:
    """Run the command with these arguments."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run([str(argument) for argument in arguments])
            code: Any = 0
        except SystemExit as ending:
            code = ending.code
    assert isinstance(code, int), f"the command ended with {code!r}"
    return Outcome(code=code, out=out.getvalue(), err=err.getvalue())


def succeed(*arguments: object) -> Any:
    """Run the command with `--json`, expect success and return what it printed."""
    outcome = fda(*arguments, "--json")
    assert outcome.code == 0, f"exit code {outcome.code}: {outcome.out}{outcome.err}"
    return outcome.data


def tree(folder: Path) -> dict[str, bytes | None]:
    """Return everything below a folder: files with their bytes, folders and links as None."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        if path.is_file() and not path.is_symlink()
        else None
        for path in folder.rglob("*")
    }


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
