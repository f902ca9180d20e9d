"""`fda up`: the whole service on this machine in one command, to its end."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

from rich.markup import escape

from fda_core.cli.console import err
from fda_core.cli.embedded import (
    Embedded,
    EmbeddedSettings,
    Programs,
    Running,
    WorkerSettings,
)
from fda_core.cli.options import here
from fda_core.contract.uris import normalise
from fda_core.engine.resources import free_memory_bytes, usable_cores
from fda_core.errors import BadParameter
from fda_core.supervise.supervisor import Restarts

WORKER_BYTES = 2 * 2**30
"""What a worker on a processor should have to itself before another one is started."""
GPU_QUEUES = "gpu-large,gpu,cpu"


@dataclass(frozen=True, kw_only=True)
class UpSettings:
    """What the command line says."""

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 8080
    workers: int | None = None
    device: str = "auto"
    allow: tuple[str, ...] = ()
    grace_seconds: float = 30.0
    as_json: bool = False
    verbose: bool = False


def up(
    settings: UpSettings,
    *,
    programs: Programs | None = None,
    restarts: Restarts | None = None,
) -> None:
    """Run the service until Ctrl-C or SIGTERM."""
    roots, remark = allowed_roots(settings)
    service = Embedded(
        EmbeddedSettings(
            data_dir=settings.data_dir,
            roots=roots,
            workers=planned_workers(settings.workers, device=settings.device),
            host=settings.host,
            port=settings.port,
            environment=os.environ,
            grace_seconds=settings.grace_seconds,
            programs=programs or Programs(),
            restarts=restarts or Restarts(),
        ),
        tell=_tell,
        mirror=_mirror if settings.verbose else None,
    )
    with _listening(service), service.running() as running:
        if settings.as_json:
            print(json.dumps({"url": running.url, "key": running.key}), flush=True)
        else:
            _introduce(running, roots, remark)
        service.run()
        _tell("ending: workers first; Ctrl-C again ends everything at once")
    _tell("ended")


def allowed_roots(settings: UpSettings) -> tuple[tuple[str, ...], str]:
    """Return what recipes may name, and why. The storage folder always; else the current one.

    Not the whole disk or a whole home, though: that must be said.
    """
    cwd = Path(here())
    storage = str(settings.data_dir / "storage")
    if settings.allow:
        told = tuple(normalise(root, cwd=str(cwd)) for root in settings.allow)
        return (storage, *told), "given by --allow"
    if cwd in (Path("/"), Path.home()):
        return (storage,), f"--allow ROOT adds others; {cwd} is too much to allow unasked"
    return (storage, str(cwd)), "the storage folder and where you are; --allow ROOT says others"


def planned_workers(asked: int | None, *, device: str) -> tuple[WorkerSettings, ...]:
    """Return one worker per GPU, else one per core as far as memory reaches."""
    if asked is not None and asked < 0:
        raise BadParameter(f"--workers {asked}: not fewer than 0", hint="Leave it out.")
    gpus = [] if device == "cpu" else _gpus()
    if gpus:
        count = len(gpus) if asked is None else asked
        one = WorkerSettings(queues=GPU_QUEUES, device="auto")
        return tuple(
            replace(one, env={"CUDA_VISIBLE_DEVICES": gpus[index % len(gpus)]})
            for index in range(count)
        )
    if asked is None:
        free = free_memory_bytes()
        fitting = usable_cores() if free is None else max(1, free // WORKER_BYTES)
        asked = min(usable_cores(), fitting)
    return (WorkerSettings(queues="cpu", device="cpu" if device == "cpu" else "auto"),) * asked


def _gpus() -> list[str]:
    """Return the GPUs that may be used, without loading what could use them."""
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    if told is not None:
        return [name.strip() for name in told.split(",") if name.strip() not in ("", "-1")]
    found = (path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*"))
    return [str(index) for index, _ in enumerate(sorted(found))]


@contextmanager
def _listening(service: Embedded) -> Iterator[None]:
    """Take the first Ctrl-C or SIGTERM as a wish, the second as an order."""

    def handle(number: int, _frame: FrameType | None) -> None:
        if service.stop.is_set() and number == signal.SIGINT:
            service.stop_now.set()
        service.stop.set()

    here = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if here else ()
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _introduce(running: Running, roots: tuple[str, ...], remark: str) -> None:
    lines = [
        f"url       [bold]{running.url}[/]  dashboard and API; documentation at {running.url}/docs",
        f"key       {escape(str(running.key_file))}",
        f"data      {escape(str(running.data_dir))}",
        f"logs      {escape(str(running.logs))}",
        f"redis     {running.redis}",
        f"workers   {running.workers}",
        f"allowed   {escape(', '.join(roots))}",
        f"          [dim]{escape(remark)}[/]",
        "",
        "In another shell:",
        "  fda submit recipe.yaml --wait",
        "  fda jobs",
        f"  export FDA_URL={running.url} FDA_KEY=$(cat {escape(str(running.key_file))})",
        "",
        "Ctrl-C lets running units end, then stops everything.",
    ]
    # No box around it: lines are copied, and a box cuts them.
    err.print("\n".join(["[bold green]fda is up[/]", *lines]), soft_wrap=True)


def _tell(text: str) -> None:
    err.print(f"[dim]fda up:[/] {escape(text)}", soft_wrap=True)


def _mirror(name: str, line: str) -> None:
    err.print(f"[dim]{name:>10}[/] {escape(line)}", soft_wrap=True)
