"""Where a job keeps its things: addresses below the workspace and beside the output."""

import hashlib

from fda_core.contract.plan import Plan, PlannedShard
from fda_core.contract.uris import basename, inside, join, parent, scheme

WORKSPACE_NAME = ".fda-workspace"


def default_workspace(output: str) -> str:
    """Return the workspace beside an output: on its disk, or in its bucket."""
    return join(parent(output), WORKSPACE_NAME)


def job_folder(workspace: str, job_id: str) -> str:
    """Return where a job's plan and records are."""
    return join(workspace, "jobs", job_id)


def record(plan: Plan, unit_id: str) -> str:
    """Return the address of a unit's record."""
    return join(records(plan), f"{unit_id}.json")


def records(plan: Plan) -> str:
    """Return the folder of a job's records."""
    return join(job_folder(plan.workspace, plan.job_id), "records")


def staging(plan: Plan) -> str:
    """Return where the output is put together before it appears.

    On a file system the job's lock is in the workspace, so another workspace than usual has a
    staging of its own: two processes of one job would write into one another's. On object
    stores publishers of a job share it, and agree (`engine.publishing`).
    """
    of = plan.job_id
    if scheme(plan.output) == "file" and plan.workspace != default_workspace(plan.output):
        of += "-" + hashlib.sha256(plan.workspace.encode()).hexdigest()[:8]
    return join(parent(plan.output), f".{basename(plan.output)}.{of}.partial")


def publication(plan: Plan) -> str:
    """Return where publishers of one job agree on what its documents say."""
    return f"{staging(plan)}.publication.json"


def lock(plan: Plan) -> str:
    """Return the lock of a job whose output is on a file system and whose workspace is not."""
    return f"{staging(plan)}.lock"


def longest_beside(plan: Plan) -> str:
    """Return the longest address of what is put beside an output."""
    return max(publication(plan), lock(plan), *probes(plan), key=lambda uri: len(basename(uri)))


def longest_written(plan: Plan) -> str:
    """Return the longest address that a merge writes, apart from the anchor cache's."""
    heads = (
        f"heads/{expert.name}.safetensors"
        for expert in plan.experts
        if expert.heads and plan.recipe.heads == "keep"
    )
    files = ("model.safetensors.index.json", *plan.base.sidecars, *heads)
    written = (
        publication(plan),
        *(join(staging(plan), file) for file in files),
        *(shard(plan, planned) for planned in plan.shards),
        *(record(plan, unit.id) for unit in plan.units),
    )
    return max(written, key=lambda uri: len(uri.encode()))


def parts(plan: Plan) -> str:
    """Return the folder of the pieces that publishing joins into one file."""
    return join(job_folder(plan.workspace, plan.job_id), "parts")


def probes(plan: Plan) -> tuple[str, ...]:
    """Return what to write in order to see that it can be: in the workspace, by the output."""
    first = join(job_folder(plan.workspace, plan.job_id), "probe")
    beside = f"{staging(plan)}.probe"
    return (first,) if inside(plan.workspace, parent(plan.output)) else (first, beside)


def shard(plan: Plan, shard_: PlannedShard) -> str:
    """Return where a merge unit writes: a final shard, or a piece of the one file."""
    if plan.single_file:
        return join(parts(plan), shard_.file)
    return join(staging(plan), shard_.file)


def anchors(workspace: str, key: str) -> str:
    """Return the folder of one entry of the anchor cache."""
    return join(workspace, "anchors", key[:2], key)


def anchor_alias(workspace: str, alias: str) -> str:
    """Return the note that says which cache entry pinned inputs lead to."""
    return join(anchor_aliases(workspace), f"{alias}.json")


def anchor_aliases(workspace: str) -> str:
    """Return the folder of all such notes."""
    return join(workspace, "anchors", "aliases")
