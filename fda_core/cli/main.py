"""The `fda` command: what it is called with, and how its errors end."""

import os
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from fda_core import __version__
from fda_core.cli import resource_commands, service_commands
from fda_core.cli.console import (
    err,
    escape_unknown_letters,
    give_up,
    is_read,
    print_error,
    print_json,
)
from fda_core.cli.exit_codes import INTERRUPTED, NOBODY_READS, exit_code
from fda_core.cli.options import AsJson, Debug, On, Output, RecipePath, Set, here, read_text
from fda_core.cli.system_errors import shortage
from fda_core.errors import BadParameter, Cancelled, FdaError, InternalError, OutOfHostMemory

app = typer.Typer(
    help="Merge fine-tuned checkpoints into one model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

Workspace = Annotated[
    str | None, typer.Option(help="Journal and anchor cache; default: beside the output.")
]
Workers = Annotated[int | None, typer.Option(help="Processes; default: one per core.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:i.")]
Threads = Annotated[int, typer.Option(help="Threads in each process.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")]


@app.command()
def merge(
    recipe: RecipePath,
    output: Output = None,
    settings: Set = None,
    workspace: Workspace = None,
    workers: Workers = None,
    device: Device = "auto",
    threads: Threads = 1,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,  # noqa: ARG001 - `run` reads it, since it sees earlier errors too
) -> None:
    """Run a recipe here. Interrupted and started again, it goes on where it stopped."""
    from fda_core.cli.merge import MergeSettings
    from fda_core.cli.merge import merge as run_merge
    from fda_core.engine.recipes import read_recipe
    from fda_core.storage.resolve import storages

    run_merge(
        read_recipe(read_text(recipe), settings=settings or [], output=output),
        storages(),
        MergeSettings(
            workspace=workspace,
            workers=workers,
            threads=threads,
            device=device,
            as_json=as_json,
            quiet=quiet or as_json,
        ),
    )


@app.command()
def add(
    expert: Annotated[str, typer.Argument(help="The new expert's checkpoint.")],
    to: Annotated[str, typer.Option(help="The output of a finished merge; it stays as it is.")],
    name: Annotated[str | None, typer.Option(help="Its name; default: its folder's.")] = None,
    output: Annotated[str | None, typer.Option(help="Default: OUTPUT-NAME, beside it.")] = None,
    workspace: Workspace = None,
    workers: Workers = None,
    device: Device = "auto",
    threads: Threads = 1,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,  # noqa: ARG001 - `run` reads it, since it sees earlier errors too
) -> None:
    """Merge again with one more expert; the others' anchors come from the cache."""
    from fda_core.cli.add import recipe_with
    from fda_core.cli.merge import MergeSettings
    from fda_core.cli.merge import merge as run_merge
    from fda_core.storage.resolve import storages

    storage = storages()
    recipe = recipe_with(expert, storage, to=to, name=name, output=output, cwd=here())
    run_merge(
        recipe,
        storage,
        MergeSettings(
            workspace=workspace,
            workers=workers,
            threads=threads,
            device=device,
            as_json=as_json,
            quiet=quiet or as_json,
        ),
    )


@app.command()
def plan(
    recipe: RecipePath,
    output: Output = None,
    settings: Set = None,
    workspace: Workspace = None,
    on: On = None,
    as_json: AsJson = False,
    debug: Debug = False,  # noqa: ARG001 - `run` reads it, since it sees earlier errors too
) -> None:
    """Show what a merge would do, from headers alone: units, bytes, memory, FLOPs, seconds."""
    from fda_core.cli.show_costs import devices_for
    from fda_core.cli.show_plan import show_plan
    from fda_core.engine.plan import make_plan
    from fda_core.engine.recipes import read_recipe
    from fda_core.storage.resolve import storages

    read = read_recipe(read_text(recipe), settings=settings or [], output=output)
    made = make_plan(read, storages(), cwd=here(), workspace=workspace)
    show_plan(made, devices_for(on, made), as_json=as_json)


@app.command()
def inspect(
    uri: Annotated[str, typer.Argument(help="A checkpoint.")],
    as_json: AsJson = False,
    debug: Debug = False,  # noqa: ARG001 - `run` reads it, since it sees earlier errors too
) -> None:
    """Show a checkpoint from its headers: family, layers, tensors, heads, ties."""
    from fda_core.cli.inspect import inspect_checkpoint
    from fda_core.storage.resolve import storages

    inspect_checkpoint(uri, storages(), as_json=as_json)


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(help="One method, in full.")] = None,
    as_json: AsJson = False,
    debug: Debug = False,  # noqa: ARG001 - `run` reads it, since it sees earlier errors too
) -> None:
    """List the methods, or one method's parameters with ranges and defaults."""
    from fda_core.cli.show_methods import show_method, show_methods

    if name is None:
        show_methods(as_json=as_json)
    else:
        show_method(name, as_json=as_json)


@app.command()
def verify(
    output: Annotated[str, typer.Argument(help="A merged checkpoint.")],
    as_json: AsJson = False,
    debug: Debug = False,  # noqa: ARG001 - `run` reads it, since it sees earlier errors too
) -> None:
    """Check every file of a merged checkpoint against its manifest."""
    from fda_core.cli.verify import verify_output
    from fda_core.storage.resolve import storages

    verify_output(output, storages(), as_json=as_json)


@app.command()
def diff(
    a: Annotated[str, typer.Argument(help="A checkpoint.")],
    b: Annotated[str, typer.Argument(help="Another of the same base.")],
    as_json: AsJson = False,
    debug: Debug = False,  # noqa: ARG001 - `run` reads it, since it sees earlier errors too
) -> None:
    """Show how far B is from A, layer by layer: ‖B − A‖ / ‖A‖."""
    from fda_core.cli.diff import diff_checkpoints
    from fda_core.storage.resolve import storages

    diff_checkpoints(a, b, storages(), as_json=as_json)


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="A folder with pytorch_model*.bin.")],
    target: Annotated[Path, typer.Argument(help="A new folder.")],
    model_type: Annotated[
        str | None, typer.Option(help="For old configs that do not say, such as bert.")
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,  # noqa: ARG001 - `run` reads it, since it sees earlier errors too
) -> None:
    """Convert pickled weights to safetensors without running code from the pickle."""
    from fda_core.cli.convert import convert_checkpoint

    convert_checkpoint(source, target, model_type=model_type, as_json=as_json)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where models and result go.")] = Path(
        "demo-output"
    ),
    local: Annotated[
        bool, typer.Option("--local", help="Merge in this process, without the service.")
    ] = False,
    debug: Debug = False,  # noqa: ARG001 - `run` reads it, since it sees earlier errors too
) -> None:
    """Fetch a real base and two real fine-tunes; start a service and merge them with FDA."""
    from fda_core.cli.demo import run_demo, run_demo_here

    if local:
        run_demo_here(folder)
    else:
        run_demo(folder)


service_commands.register(app)
resource_commands.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"fda {__version__}")
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Merge fine-tuned checkpoints into one model."""


def run(arguments: list[str] | None = None) -> None:
    """Run the command and end the process with the exit code that fits."""
    # Threads that spin while they wait slow every other process on the machine down; this
    # must be said before torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("KMP_BLOCKTIME", "0")
    escape_unknown_letters()
    given = sys.argv[1:] if arguments is None else arguments
    sys.exit(_flushed(_ended(given), as_json="--json" in given))


def _ended(given: list[str]) -> str | int | None:
    """Run the command; return its exit code once whoever can be told knows why."""
    debug, as_json = "--debug" in given, "--json" in given
    try:
        app(given, standalone_mode=True)
    except SystemExit as ending:
        if isinstance(ending.__context__, BrokenPipeError):  # typer takes any for an end
            return _broken(ending.__context__, as_json=as_json)
        misused = _misused(ending)
        if as_json and misused is not None:
            print_json({"error": misused.as_dict()})
        return ending.code
    except FdaError as problem:
        if debug:
            traceback.print_exc()
        elif "trace" in problem.context:
            with suppress(OSError):
                err.print("The full traceback is shown with --debug.")
        print_error(problem, as_json=as_json)
        return exit_code(problem)
    except (Cancelled, KeyboardInterrupt) as stop:
        said = str(stop) or "stopped; run the same command again to go on"
        with suppress(OSError):
            if as_json:
                print_json({"error": {"code": "interrupted", "message": str(stop)}})
            err.print(escape(said), soft_wrap=True)
        return INTERRUPTED
    except Exception as problem:
        if debug:
            traceback.print_exc()
        what = _named(problem)
        print_error(what, as_json=as_json)
        return exit_code(what)
    return None


def _flushed(code: str | int | None, *, as_json: bool) -> str | int | None:
    """Write out what is still held; return the exit code, which that may change from 0."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as problem:
            give_up(stream)
            code = code or _broken(problem, as_json=as_json)
    return code


def _broken(problem: OSError, *, as_json: bool) -> int:
    """Return the exit code of a stream that broke: nobody reads ours any more, or an error."""
    if isinstance(problem, BrokenPipeError):
        unread = [stream for stream in (sys.stdout, sys.stderr) if not is_read(stream)]
        for stream in unread:
            give_up(stream)
        if unread:
            return NOBODY_READS
    what = _named(problem)
    print_error(what, as_json=as_json)
    return exit_code(what)


def _misused(ending: SystemExit) -> FdaError | None:
    """Return the error that stands for wrong arguments, which people have been told of already."""
    message = getattr(ending.__context__, "format_message", None)
    if message is None:
        return None
    return BadParameter(message(), hint="--help shows arguments and options.")


def _named(problem: Exception) -> FdaError:
    """Return the error that stands for one that is not ours."""
    from fda_core.engine.resources import is_out_of_memory

    if is_out_of_memory(problem):
        return OutOfHostMemory(
            f"main memory ran out: {problem}", hint="Use a larger machine, or close other programs."
        )
    if (named := shortage(problem)) is not None:
        return named
    return InternalError(
        f"{type(problem).__name__}: {problem}",
        hint="This is a bug of ours. Run again with --debug and report what it prints.",
    )
