"""The journal as the controller reads it: one listing, and a close look only where it matters."""

from collections.abc import Collection
from contextlib import suppress

from pydantic import ValidationError

from fda_core.contract.artifacts import UnitRecord
from fda_core.contract.plan import Plan
from fda_core.contract.service import names
from fda_core.contract.uris import inside, join
from fda_core.engine import layout
from fda_core.errors import NotFound
from fda_core.storage.base import Storage


def forget_records(plan: Plan, storage: Storage) -> None:
    """Remove all that units of a plan left, because it no longer holds; the cache stays."""
    folder = layout.job_folder(plan.workspace, plan.job_id)
    storage.delete_below(join(folder, "records"))
    storage.delete_below(join(folder, "parts"))
    _delete_staging(plan, storage)


def clean_staging(plan: Plan, storage: Storage, *, keep: Collection[UnitRecord] = ()) -> None:
    """Remove what is put together beside the output, but the files of records to keep."""
    staging = layout.staging(plan)
    kept = {file.path for record in keep for file in record.files}
    if not any(inside(path, staging) for path in kept):
        _delete_staging(plan, storage)
        return
    storage.delete(layout.publication(plan))
    for info in list(storage.list(staging)):
        if info.uri not in kept:
            storage.delete(info.uri)


def remove_job(workspace: str, job_id: str, storage: Storage) -> None:
    """Remove all that a job which ended left beside its output: for deleting jobs."""
    with suppress(NotFound, ValidationError):
        address = names.plan_file(workspace, job_id)
        _delete_staging(Plan.model_validate_json(storage.read(address)), storage)
    storage.delete_below(layout.job_folder(workspace, job_id))


def _delete_staging(plan: Plan, storage: Storage) -> None:
    """Remove what is put together, and what its publishers agreed on: others may not agree."""
    storage.delete_below(layout.staging(plan))
    storage.delete(layout.publication(plan))
