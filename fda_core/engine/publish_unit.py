"""The unit `publish`: check every shard, add everything else, let the output appear.

Nothing is loadable at the output's address before the last step.
"""

import datetime
import hashlib
import json
import platform
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version

import torch

from fda_core import __version__
from fda_core.checkpoints.header import read_header
from fda_core.checkpoints.layout import TensorSpec, aligned_order, index_json, plan_header
from fda_core.checkpoints.reader import digest_file
from fda_core.checkpoints.writer import ShardWriter
from fda_core.contract.artifacts import (
    MANIFEST_FILE,
    METRICS_FILE,
    ArtifactFile,
    InputDigest,
    Manifest,
    Metrics,
    Publication,
    UnitCost,
    UnitRecord,
    UnitSummary,
)
from fda_core.contract.plan import PinnedFile, Plan, PlannedExpert, TensorEntry
from fda_core.contract.uris import join
from fda_core.engine import layout
from fda_core.engine.context import UnitContext
from fda_core.engine.layer_tensors import Inputs
from fda_core.engine.plan import is_published
from fda_core.engine.publishing import agreed, finish_publishing
from fda_core.engine.recipes import recipe_yaml
from fda_core.errors import FdaError, OutputCorrupt
from fda_core.methods.fda import Fda
from fda_core.reports.html import render_report
from fda_core.reports.model_card import render_model_card

COPY_BYTES = 8 * 2**20
DIGEST_THREADS = 4


def run_publish(context: UnitContext) -> UnitRecord:
    """Put the output together beside its place, then move it there.

    Where jobs have no lock another process may be faster, and tidy up under our hands: what
    fails because of that is a success.
    """
    plan, storage = context.plan, context.storage
    if not is_published(plan, storage):
        try:
            _Publisher(context).run()
        except FdaError:
            if not is_published(plan, storage):
                raise
    finish_publishing(plan, storage)
    return UnitRecord(
        unit=context.unit.id,
        kind="publish",
        files=(),
        cost=context.cost(),
        worker=context.worker,
        device=context.device_name,
    )


class _Publisher:
    """One run of the unit; `files` collects what the output has, by relative path."""

    def __init__(self, context: UnitContext) -> None:
        self._context = context
        self._plan = context.plan
        self._storage = context.storage
        self._staging = layout.staging(context.plan)
        self._files: dict[str, ArtifactFile] = {}

    def run(self) -> None:
        records = self._context.journal.read_all()
        pool = ThreadPoolExecutor(max_workers=DIGEST_THREADS)
        try:
            digests = self._begin_input_digests(pool)
            self._weights(records)
            self._side_files()
            if self._plan.recipe.heads == "keep":
                for expert in self._plan.experts:
                    self._heads(expert)
            self._documents(records, [digest.result() for digest in digests])
        finally:
            pool.shutdown(cancel_futures=True)
        self._storage.move_into_place(self._staging, self._plan.output)

    def _weights(self, records: Sequence[UnitRecord]) -> None:
        """Check every shard against its record, and join them if the output is one file."""
        shards = [file for record in records if record.kind == "merge" for file in record.files]
        for record in records:
            if record.kind == "merge":
                self._check(record)
        if self._plan.single_file:
            self._join(shards)
            return
        for planned, file in zip(self._plan.shards, shards, strict=True):
            self._files[planned.file] = file.model_copy(update={"path": planned.file})
        self._write(
            "model.safetensors.index.json",
            index_json(
                {name: shard.file for shard in self._plan.shards for name in shard.tensors},
                total_size=sum(shard.size_bytes for shard in self._plan.shards),
            ),
        )

    def _check(self, record: UnitRecord) -> None:
        for file in record.files:
            digest = hashlib.sha256()
            for piece in self._pieces(file.path, 0, file.size_bytes):
                digest.update(piece)
            if digest.hexdigest() != file.sha256:
                self._context.journal.forget(record.unit)
                raise OutputCorrupt(
                    f"{file.path}: its bytes are not those that unit {record.unit} wrote",
                    hint="The unit's record was removed; start the merge again and it is redone.",
                    unit=record.unit,
                )

    def _join(self, shards: Sequence[ArtifactFile]) -> None:
        """Write model.safetensors from the pieces, tensor by tensor, as raw bytes."""
        where: dict[str, tuple[str, TensorEntry]] = {}
        for file in shards:
            info = self._storage.stat(file.path)
            header = read_header(self._storage, file.path, info.size_bytes, info.etag)
            where.update({name: (file.path, entry) for name, entry in header.items()})
        specs = aligned_order(TensorSpec(t.name, t.dtype, t.shape) for t in self._plan.tensors)
        pieces = (
            piece
            for spec in specs
            for piece in self._pieces(where[spec.name][0], *_span(where[spec.name][1]))
        )
        self._stream("model.safetensors", plan_header(specs), pieces)

    def _pieces(self, uri: str, start: int, end: int) -> Iterator[memoryview]:
        """Yield bytes [start, end) of an object through one reused buffer."""
        buffer = memoryview(bytearray(min(COPY_BYTES, max(end - start, 1))))
        while start < end:
            view = buffer[: min(len(buffer), end - start)]
            self._storage.read_into(uri, view, start=start)
            self._context.moved(read=len(view))
            start += len(view)
            yield view

    def _stream(self, path: str, first: bytes, pieces: Iterator[memoryview]) -> None:
        digest = hashlib.sha256(first)
        size = len(first)
        with self._storage.create(join(self._staging, path)) as writer:
            writer.write(first)
            for piece in pieces:
                writer.write(piece)
                digest.update(piece)
                size += len(piece)
                self._context.moved(write=len(piece))
            writer.commit()
        self._files[path] = ArtifactFile(path=path, size_bytes=size, sha256=digest.hexdigest())

    def _write(self, path: str, data: bytes) -> None:
        self._storage.put(join(self._staging, path), data)
        self._context.moved(write=len(data))
        self._files[path] = ArtifactFile(
            path=path, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest()
        )

    def _side_files(self) -> None:
        """Copy the base's config, tokenizer and other side files."""
        base = self._plan.base
        config = self._side_file("config.json", base.config_file)
        wanted = self._plan.recipe.dtype.output
        if wanted != "as_base":
            changed = {**json.loads(config), "dtype": wanted}
            changed.pop("torch_dtype", None)
            config = (json.dumps(changed, indent=2) + "\n").encode()
        self._write("config.json", config)
        for name, pin in base.sidecars.items():
            self._write(name, self._side_file(name, pin))

    def _side_file(self, name: str, pin: PinnedFile | None) -> bytes:
        """Return a side file of the base, which must be the one that was planned with."""
        return self._storage.read(join(self._plan.base.uri, name), etag=pin.etag if pin else None)

    def _heads(self, expert: PlannedExpert) -> None:
        """Write an expert's own heads, as they are, to heads/<expert>.safetensors."""
        if not expert.heads:
            return
        inputs = Inputs(self._context)
        entries = {name: inputs.head_entry(name, expert.name) for name in expert.heads}
        specs = aligned_order(TensorSpec(n, e.dtype, e.shape) for n, e in entries.items())
        path = f"heads/{expert.name}.safetensors"
        with ShardWriter(self._storage, join(self._staging, path), specs) as writer:
            for spec in specs:
                writer.add(spec.name, inputs.head(spec.name, expert.name))
                self._context.moved(write=spec.size_bytes)
            done = writer.commit()
        self._files[path] = ArtifactFile(path=path, size_bytes=done.size_bytes, sha256=done.sha256)

    def _documents(self, records: Sequence[UnitRecord], inputs: Sequence[InputDigest]) -> None:
        """Write recipe, metrics, report, model card and, last, the manifest."""
        plan, context = self._plan, self._context
        mine = Publication(
            metrics=collect_metrics(plan, records, context.cost(), context.device_name),
            manifest=self._manifest(inputs),
        )
        told = agreed(plan, self._storage, mine)
        self._write("merge_recipe.yaml", recipe_yaml(plan.recipe).encode())
        self._write(METRICS_FILE, told.metrics.model_dump_json(indent=1).encode())
        manifest = self._with_outputs(told.manifest)
        self._write("merge_report.html", render_report(plan, told.metrics, manifest).encode())
        self._write("README.md", render_model_card(plan, told.metrics, manifest).encode())
        manifest = self._with_outputs(manifest)
        self._storage.put(
            join(self._staging, MANIFEST_FILE), manifest.model_dump_json(indent=1).encode()
        )

    def _with_outputs(self, manifest: Manifest) -> Manifest:
        return manifest.model_copy(update={"outputs": dict(self._files)})

    def _manifest(self, inputs: Sequence[InputDigest]) -> Manifest:
        plan = self._plan
        return Manifest(
            job_id=plan.job_id,
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            versions=versions(),
            seed=plan.recipe.seed,
            device=self._context.device_name,
            threads=torch.get_num_threads(),
            method=plan.recipe.method.name,
            parameters=plan.recipe.method.parameters,
            inputs=tuple(inputs),
            outputs={},
            notes=plan.notes,
            warnings=plan.warnings,
        )

    def _begin_input_digests(self, pool: Executor) -> list[Future[InputDigest]]:
        """Begin to read and digest all inputs, while the output is checked and written."""
        plan = self._plan
        sources = [("base", plan.base), *((e.name, e.checkpoint) for e in plan.experts)]
        return [
            pool.submit(self._input_digest, role, join(checkpoint.uri, file), pin)
            for role, checkpoint in sources
            for file, pin in checkpoint.files.items()
        ]

    def _input_digest(self, role: str, uri: str, pin: PinnedFile) -> InputDigest:
        digest = digest_file(self._storage, uri, pin)
        return InputDigest(role=role, uri=uri, size_bytes=pin.size_bytes, sha256=digest)


def _span(entry: TensorEntry) -> tuple[int, int]:
    return entry.start, entry.end


def versions() -> dict[str, str]:
    """Return the versions of what a result depends on."""
    found = {"fda-merge": __version__, "python": platform.python_version()}
    for package in ("torch", "transformers", "pydantic"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def collect_metrics(
    plan: Plan, records: Sequence[UnitRecord], publish: UnitCost, device: str
) -> Metrics:
    """Return the metrics of all units, in plan order, publishing's cost so far included."""
    units = {unit.id: unit for unit in plan.units}
    rows = [
        UnitSummary(
            id=record.unit,
            kind=record.kind,
            layer=units[record.unit].layer,
            expert=units[record.unit].expert,
            source=record.source,
            device=record.device,
            cost=record.cost,
        )
        for record in records
    ]
    rows.append(
        UnitSummary(
            id="publish",
            kind="publish",
            layer=None,
            expert=None,
            source="run",
            device=device,
            cost=publish,
        )
    )
    start = plan.recipe.method.parameters.get("start")
    return Metrics(
        job_id=plan.job_id,
        method=plan.recipe.method.name,
        start=start["name"] if plan.recipe.method.name == Fda.name and start else None,
        family=plan.family,
        layers=plan.layers,
        experts=tuple(e.name for e in plan.experts),
        construction=tuple(r.construction for r in records if r.construction is not None),
        adaptation=tuple(a for r in records for a in r.adaptation),
        task_vectors=tuple(t for r in records for t in r.task_vectors),
        units=tuple(rows),
        totals=_totals([row.cost for row in rows]),
    )


def _totals(costs: Sequence[UnitCost]) -> UnitCost:
    taken = [c.cpu_seconds for c in costs if c.cpu_seconds is not None]
    return UnitCost(
        seconds=round(sum(c.seconds for c in costs), 3),
        cpu_seconds=round(sum(taken), 3) if len(taken) == len(costs) else None,
        peak_memory_bytes=max(c.peak_memory_bytes for c in costs),
        flops=sum(c.flops for c in costs),
        read_bytes=sum(c.read_bytes for c in costs),
        write_bytes=sum(c.write_bytes for c in costs),
    )
