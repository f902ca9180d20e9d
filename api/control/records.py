"""The journal as the controller reads it: one listing, and a close look only where it matters."""

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from pydantic import ValidationError

from fda_core.contract.artifacts import UnitRecord
from fda_core.contract.plan import Plan
from fda_core.contract.service import names
from fda_core.contract.uris import basename, inside, join
from fda_core.engine import layout
from fda_core.engine.journal import Journal
from fda_core.errors import NotFound
from fda_core.storage.base import Storage

AT_ONCE = 8


def listed_units(workspace: str, job_id: str, storage: Storage) -> set[str]:
    """Return the units that have a record, whole or not."""
    folder = join(layout.job_folder(workspace, job_id), "records")
    files = (basename(info.uri) for info in storage.list(folder))
    return {file.removesuffix(".json") for file in files if file.endswith(".json")}


def find_records(plan: Plan, storage: Storage, *, among: Collection[str]) -> dict[str, UnitRecord]:
    """Return the whole records of some units; publishing is told by the output, never by these."""
    there = listed_units(plan.workspace, plan.job_id, storage)
    asked = [u for u in plan.units if u.id in among and u.id in there and u.kind != "publish"]
    if not asked:
        return {}
    journal = Journal(plan, storage)
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        found = pool.map(journal.find, asked)
        return {unit.id: record for unit, record in zip(asked, found, strict=True) if record}


def forget_records(plan: Plan, storage: Storage) -> None:
    """Remove all that units of a plan left, because it no longer holds; the cache stays."""
    folder = layout.job_folder(plan.workspace, plan.job_id)
    storage.delete_below(join(folder, "records"))
    storage.delete_below(join(folder, "parts"))
    storage.delete_below(layout.staging(plan))


def clean_staging(plan: Plan, storage: Storage, *, keep: Collection[UnitRecord] = ()) -> None:
    """Remove what is put together beside the output, but the files of records to keep."""
    staging = layout.staging(plan)
    kept = {file.path for record in keep for file in record.files}
    if not any(inside(path, staging) for path in kept):
        storage.delete_below(staging)
        return
    for info in list(storage.list(staging)):
        if info.uri not in kept:
            storage.delete(info.uri)


def remove_job(workspace: str, job_id: str, storage: Storage) -> None:
    """Remove all that a job which ended left beside its output: for deleting jobs."""
    with suppress(NotFound, ValidationError):
        address = names.plan_file(workspace, job_id)
        storage.delete_below(layout.staging(Plan.model_validate_json(storage.read(address))))
    storage.delete_below(layout.job_folder(workspace, job_id))
