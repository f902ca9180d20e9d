"""`fda merge`: run a recipe here, show how it goes, and say where the result is."""

import dataclasses
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from rich.markup import escape
from rich.table import Table

from fda_core.cli.console import err, out, print_json, seconds, size
from fda_core.cli.options import here
from fda_core.cli.progress import Tally, view_for
from fda_core.contract.artifacts import METRICS_FILE, Metrics
from fda_core.contract.events import Event
from fda_core.contract.plan import Plan
from fda_core.contract.recipe import Recipe
from fda_core.contract.uris import join
from fda_core.engine.plan import make_plan
from fda_core.engine.resources import suggested_workers
from fda_core.engine.run import RunOptions, run_plan
from fda_core.errors import BadParameter, Cancelled
from fda_core.reports.summary import LayerRow, layer_rows
from fda_core.storage.base import Storage


@dataclass(frozen=True, kw_only=True)
class MergeSettings:
    """What the command line says of a merge beside the recipe."""

    workspace: str | None
    workers: int | None
    threads: int
    device: str
    as_json: bool
    quiet: bool


class Stopper:
    """Remembers that someone asked to stop; a second request ends the process at once."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self) -> bool:
        """Say whether someone did."""
        return self.asked

    def handle(self, _number: int, _frame: FrameType | None) -> None:
        """Take a signal."""
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen to Ctrl-C and SIGTERM for a while."""
        before = {
            number: signal.signal(number, self.handle) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def merge(recipe: Recipe, storage: Storage, settings: MergeSettings) -> None:
    """Plan and run a recipe. Raises `Cancelled` after Ctrl-C, with the journal kept."""
    plan = make_plan(recipe, storage, cwd=here(), workspace=settings.workspace)
    options = _options(plan, settings)
    if not settings.quiet:
        _introduce(plan, options)
    tally, stopper, started = Tally(plan), Stopper(), time.monotonic()
    with stopper.listening(), view_for(plan, quiet=settings.quiet) as view:

        def sink(event: Event) -> None:
            tally.take(event)
            view.show(tally, event)

        try:
            ran = run_plan(plan, storage, options=options, sink=sink, is_cancelled=stopper)
        except Cancelled:
            raise Cancelled(
                f"stopped; {tally.units} of {tally.units_total} units are kept in "
                f"{plan.workspace}. Run the same command again to go on."
            ) from None
    elapsed = time.monotonic() - started
    _conclude(plan, storage, tally, elapsed, ran=ran, settings=settings)


def _options(plan: Plan, settings: MergeSettings) -> RunOptions:
    if settings.workers is not None and settings.workers < 1:
        raise BadParameter(
            f"--workers {settings.workers}: at least one is needed",
            hint="Leave --workers out for one per core.",
        )
    if settings.threads < 1:
        raise BadParameter(
            f"--threads {settings.threads}: at least one is needed",
            hint="Leave --threads out for one in each process.",
        )
    workers = settings.workers
    if workers is None:
        workers = suggested_workers(plan, cuda=_has_cuda(settings.device))
    return RunOptions(workers=workers, threads=settings.threads, device=settings.device)


def _has_cuda(device: str) -> bool:
    """Say whether units will run on an accelerator, without loading torch where none can be."""
    if device == "cpu" or (device == "auto" and not Path("/dev/nvidia0").exists()):
        return False
    import torch

    return torch.cuda.is_available()


def _introduce(plan: Plan, options: RunOptions) -> None:
    reading = sum(unit.read_bytes for unit in plan.units)
    err.print(
        f"[bold]{plan.recipe.method.name}[/] of {len(plan.experts)} experts, {plan.family}, "
        f"{plan.layers} layers: {len(plan.units)} units, {size(reading)} to read, "
        f"{options.workers} worker{'s' if options.workers > 1 else ''}"
    )
    for note in plan.notes:
        err.print(f"  [dim]{escape(note)}[/]", soft_wrap=True)
    for warning in plan.warnings:
        err.print(f"  [yellow]warning[/] {escape(warning)}", soft_wrap=True)


def _conclude(
    plan: Plan,
    storage: Storage,
    tally: Tally,
    elapsed: float,
    *,
    ran: bool,
    settings: MergeSettings,
) -> None:
    metrics = Metrics.model_validate_json(storage.read(join(plan.output, METRICS_FILE)))
    rows = layer_rows(metrics)
    if settings.as_json:
        print_json(
            {
                "status": "succeeded",
                "job_id": plan.job_id,
                "output": plan.output,
                "report": join(plan.output, "merge_report.html"),
                "already_done": not ran,
                "seconds": round(elapsed, 3),
                "units": tally.units_total,
                "units_from_journal": tally.from_journal,
                "units_from_cache": tally.from_cache,
                "layers": [row_data(row) for row in rows],
            }
        )
        return
    if settings.quiet:
        return
    if not ran:
        out.print("This very merge is finished already; nothing was done.")
    elif metrics.adaptation:
        out.print(layer_table(metrics))
    kept = f", {tally.from_journal} units from an earlier run" if tally.from_journal else ""
    cached = f", {tally.from_cache} from the anchor cache" if tally.from_cache else ""
    out.print(f"[bold green]done[/] in {seconds(elapsed)}{kept}{cached}")
    out.print(f"output  {escape(plan.output)}", soft_wrap=True)
    out.print(f"report  {escape(join(plan.output, 'merge_report.html'))}", soft_wrap=True)


def row_data(row: LayerRow) -> dict[str, object]:
    """Return a dataclass row as plain data."""
    return dataclasses.asdict(row)


def layer_table(metrics: Metrics) -> Table:
    """Return the short table: per layer, alignment, drift before and after, seconds."""
    table = Table(title=None, header_style="bold", box=None, pad_edge=False)
    for name in ("layer", "alignment", "drift before", "drift after", "seconds"):
        table.add_column(name, justify="right")
    for row in layer_rows(metrics):
        if row.layer is None:
            continue
        table.add_row(
            str(row.layer),
            _number(row.alignment_best),
            _number(row.drift_start),
            _number(row.drift_result),
            f"{row.construct_seconds + row.adapt_seconds:.1f}",
        )
    return table


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"
