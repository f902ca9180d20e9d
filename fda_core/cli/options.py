"""Arguments and options that several commands have, and reading a recipe's file."""

import sys
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from fda_core.errors import NotFound, RecipeError

RecipePath = Annotated[str, typer.Argument(help="The recipe, YAML or JSON; - reads stdin.")]
Output = Annotated[str | None, typer.Option(help="Where to write, over the recipe's output.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="Change a key of the recipe; repeatable."),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
On = Annotated[
    list[str] | None,
    typer.Option(
        metavar="DEVICE",
        help="Predict for h100, a100, l4, rtx4090, or here: this processor, measured for two "
        "seconds. Repeatable; default: the four GPUs.",
    ),
]
Url = Annotated[
    str | None,
    typer.Option(envvar="FDA_URL", help="The service; default: the one `fda up` runs here."),
]
Key = Annotated[
    str | None,
    typer.Option(envvar="FDA_KEY", help="API key; better as FDA_KEY, which lists do not show."),
]
JobId = Annotated[str, typer.Argument(help="The job's id.")]
Label = Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Repeatable.")]


def read_text(path: str) -> str:
    """Return a document's text, from a file or stdin; UTF-8 whatever the locale."""
    try:
        if path == "-":
            return _stdin().read().decode("utf-8")
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFound(f"there is no recipe at {path}", hint="Check the path.", uri=path) from None
    except (OSError, UnicodeDecodeError) as problem:
        raise RecipeError(
            f"{'stdin' if path == '-' else path} cannot be read as text: {problem}",
            hint="Give a YAML or JSON file in UTF-8 that you may read.",
            uri=path,
        ) from None


def _stdin() -> BinaryIO:
    if sys.stdin is None:  # closed by whoever started us
        raise RecipeError("stdin is closed", hint="Give the recipe's path, or pipe it in.")
    return sys.stdin.buffer


def here() -> str:
    """Return the current folder, or raise `NotFound` if it was removed under us."""
    try:
        return str(Path.cwd())
    except FileNotFoundError:
        raise NotFound("the current folder is gone", hint="Go to one that is there.") from None
