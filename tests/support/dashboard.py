"""Rows for pages to show: jobs of every state, workers, batches and schedules."""

import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from api.auth.service import Caller
from api.db.session import Database
from api.db.tables import AttemptRow, JobRow, UnitRow
from api.db.types import now
from api.ids import new_id
from api.jobs.service import Origin, insert
from api.jobs.transitions import add_event, add_log, move
from fda_core.contract.artifacts import (
    AdaptMetrics,
    ConstructMetrics,
    Curve,
    Drift,
    UnitCost,
    UnitRecord,
)
from fda_core.contract.rest.jobs import JobRequest
from fda_core.contract.service.messages import WorkerStatus
from fda_core.contract.service.states import JobState
from fda_core.engine import layout
from fda_core.engine.recipes import recipe_of

LAYERS = 6
EXPERTS = ("math", "code", "law")
ROAD = {
    "queued": (),
    "validating": ("validating",),
    "running": ("validating", "running"),
    "publishing": ("validating", "running", "publishing"),
    "succeeded": ("validating", "running", "publishing", "succeeded"),
    "failed": ("validating", "running", "failed"),
    "cancelling": ("validating", "running", "cancelling"),
    "cancelled": ("cancelled",),
    "expired": ("expired",),
}
OUT_OF_MEMORY = {
    "code": "out_of_device_memory",
    "message": "layer 3, expert 'math': 24 GB are needed, the device has 16 GB",
    "hint": "Lower construct.microbatch, or run it on a larger GPU.",
    "blame": "user",
    "retryable": False,
    "context": {"layer": 3, "expert": "math"},
    "unit": "construct-003-math",
    "trace": 'Traceback (most recent call last):\n  File "units.py", line 7\nOutOfDeviceMemory\n',
}


def fda_recipe(output: str, root: str = "/models") -> dict[str, Any]:
    """Return a recipe with a construction and an adaptation."""
    return {
        "base": f"{root}/llama-3-8b",
        "experts": [{"name": name, "model": f"{root}/llama-{name}"} for name in EXPERTS],
        "method": {"name": "fda", "construct": {"anchors": 64, "steps": 240}},
        "output": output,
    }


def put_job(
    database: Database,
    state: str,
    *,
    output: str = "/models/merged",
    recipe: Any = None,
    team: str = "red",
    owner: str = "ann",
    labels: Mapping[str, str] | None = None,
    with_units: bool = True,
) -> str:
    """Put a job that went the usual road to a state, and return its id."""
    document = recipe or fda_recipe(output)
    request = JobRequest(recipe=document, labels=dict(labels or {}))
    road = ROAD[state]
    with database.write() as session:
        row = insert(
            session,
            request,
            recipe_of(document),
            origin=Origin(owner=owner, team=team),
            moment=now() - timedelta(minutes=7),
        )
        for step in road:
            more = {"error": OUT_OF_MEMORY} if step == "failed" else {}
            assert move(session, row.id, JobState(step), **more)
        if "running" in road and with_units:
            put_units(session.get_one(JobRow, row.id, populate_existing=True), session, state)
    return row.id


def put_units(row: JobRow, session: Any, state: str) -> None:
    """Give a job a plan of layers and shards, done as far as its state says."""
    done = LAYERS if state in ("succeeded", "publishing") else LAYERS // 2
    place = 0
    for layer in range(LAYERS):
        for index, expert in enumerate(EXPERTS):
            unit_state = "done" if layer < done else "pending"
            if state == "running" and layer == done:
                unit_state = ("running", "ready", "pending")[index]
            if state == "failed" and layer == done and index == 0:
                unit_state = "failed"
            session.add(
                UnitRow(
                    job_id=row.id,
                    id=f"construct-{layer:03d}-{expert}",
                    place=(place := place + 1),
                    kind="construct",
                    state=unit_state,
                    layer=layer,
                    expert=expert,
                    steps=240,
                    step=240 if unit_state == "done" else 60,
                    alignment=0.93 - 0.01 * layer - 0.02 * index if unit_state == "done" else None,
                    seconds=12.5 if unit_state == "done" else None,
                    read_bytes=4 * 10**8,
                    write_bytes=10**7,
                    tries=1 if unit_state != "pending" else 0,
                )
            )
    for shard in range(2):
        layers = range(shard * LAYERS // 2, (shard + 1) * LAYERS // 2)
        session.add(
            UnitRow(
                job_id=row.id,
                id=f"merge-{shard:03d}",
                place=(place := place + 1),
                kind="merge",
                shard=shard,
                state="done" if state in ("succeeded", "publishing") else "pending",
                needs=[f"construct-{layer:03d}-{expert}" for layer in layers for expert in EXPERTS],
                read_bytes=8 * 10**9,
                write_bytes=5 * 10**9,
                loss=0.0123 if state == "succeeded" else None,
                seconds=88.0 if state == "succeeded" else None,
            )
        )
    session.add(
        UnitRow(
            job_id=row.id,
            id="publish",
            place=place + 1,
            kind="publish",
            needs=["merge-000", "merge-001"],
            state="done" if state == "succeeded" else "pending",
            read_bytes=10**10,
            write_bytes=10**6,
        )
    )
    row.units_total = LAYERS * len(EXPERTS) + 3
    row.units_done = row.units_total if state == "succeeded" else done * len(EXPERTS)
    row.stage = {"publishing": "publish", "succeeded": "publish"}.get(state, "construct")
    row.resolved = recipe_of(row.recipe).model_dump(mode="json", by_alias=True)
    row.plan = {
        "family": "llama",
        "layers": LAYERS,
        "width": 4096,
        "method": row.method,
        "experts": list(EXPERTS),
        "units": row.units_total,
        "units_cached": 0,
        "units_by_kind": {"construct": 18, "merge": 2, "publish": 1},
        "read_bytes": 10**11,
        "write_bytes": 16 * 10**9,
        "peak_memory_bytes": 9 * 10**9,
        "flops": 10**15,
    }
    if state == "failed":
        session.add(
            AttemptRow(
                id=new_id(),
                job_id=row.id,
                attempt=1,
                unit="construct-003-math",
                token=new_id(),
                worker="gpu-box-1",
                outcome="failed",
                started_at=now(),
                finished_at=now(),
                error=OUT_OF_MEMORY,
            )
        )
    session.flush()
    if state == "running":
        view = progress_at(0.41)
        add_event(session, row.id, "progress", view, progress=view)
    add_log(session, row.id, "took unit construct-000-math", unit="construct-000-math", worker="a")
    add_log(session, row.id, "sigma fell back to 0.1", level="warning", worker="a")
    if state == "failed":
        add_log(session, row.id, OUT_OF_MEMORY["message"], level="error", worker="a")


def progress_at(ratio: float, **changes: Any) -> dict[str, Any]:
    """Return a progress event's data."""
    return {
        "units_done": 9,
        "units_total": 21,
        "bytes_done": int(ratio * 10**11),
        "bytes_total": 10**11,
        "ratio": ratio,
        "layer": 3,
        "expert": "math",
        "step": 61,
        "steps": 240,
        "loss": 0.2,
        "alignment": 0.81,
        "seconds_left": 754.0,
        "reckoned_by": "speed of this attempt so far",
        **changes,
    }


def put_records(
    workspace: Path, job_id: str, *, layers: int = LAYERS // 2, epochs: int = 100
) -> None:
    """Write records of finished units with curves, as workers do."""
    steps = tuple(range(0, epochs + 1, max(1, epochs // 10)))
    folder = Path(layout.job_folder(str(workspace), job_id)) / "records"
    folder.mkdir(parents=True, exist_ok=True)
    for layer in range(layers):
        for index, expert in enumerate(EXPERTS):
            record = _record(layer, expert, 0.06 * index + 0.01 * layer)
            (folder / f"{record.unit}.json").write_text(record.model_dump_json())
    adapted = UnitRecord(
        unit="merge-000",
        kind="merge",
        files=(),
        cost=COST,
        worker="a",
        device="cpu",
        adaptation=tuple(
            AdaptMetrics(
                layer=layer,
                epochs=epochs,
                variables="elements",
                loss=Curve(
                    steps=steps,
                    values=tuple(0.4 / (1 + n + layer) for n, _ in enumerate(steps)),
                ),
                drift={expert: Drift(start=1.0, result=0.4) for expert in EXPERTS},
                seconds=3.0,
            )
            for layer in range(layers)
        ),
    )
    (folder / "merge-000.json").write_text(adapted.model_dump_json())


COST = UnitCost(
    seconds=12.5, peak_memory_bytes=10**9, flops=10**12, read_bytes=10**8, write_bytes=10**7
)


def _record(layer: int, expert: str, less: float) -> UnitRecord:
    steps = tuple(range(0, 241, 12))
    reached = tuple(0.93 - less - 0.8 * 2.0 ** (-step / 30) for step in steps)
    return UnitRecord(
        unit=f"construct-{layer:03d}-{expert}",
        kind="construct",
        files=(),
        cost=COST,
        worker="a",
        device="cpu",
        construction=ConstructMetrics(
            layer=layer,
            expert=expert,
            anchors=64,
            tokens=16,
            init="spectral",
            steps_run=240,
            best_step=240,
            alignment_start=reached[0],
            alignment_best=reached[-1],
            alignment=Curve(steps=steps, values=reached),
            loss=Curve(steps=steps, values=tuple(1 - value for value in reached)),
            tensor_cosines={},
            zero_tensors=(),
            spectrum_start=(1.0,),
            spectrum_end=(1.0,),
        ),
    )


def worker_status(name: str, *, at: float, **changes: Any) -> str:
    """Return what a worker tells Redis."""
    told = {
        "id": f"{name}-4711-abcd",
        "host": name,
        "process": 4711,
        "version": "0.1.0",
        "device": "NVIDIA H100",
        "device_kind": "gpu",
        "device_memory_bytes": 80 * 10**9,
        "device_used_bytes": 31 * 10**9,
        "host_memory_bytes": 512 * 10**9,
        "host_used_bytes": 44 * 10**9,
        "threads": 16,
        "queues": ["gpu", "gpu-large"],
        "started": at - 86_000,
        "at": at,
        "state": "idle",
        "units_done": 1204,
        "units_failed": 2,
        **changes,
    }
    return WorkerStatus.model_validate(told).model_dump_json()


def caller(role: Any = "submitter", team: str = "red") -> Caller:
    """Return somebody to call services as."""
    return Caller(key_id="0", name="test", role=role, owner="ann", team=team)


def as_text(document: Any) -> str:
    """Return a document as the JSON text that is also YAML."""
    return json.dumps(document, indent=2)
