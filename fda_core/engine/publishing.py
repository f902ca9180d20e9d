"""What publishing needs where there is no lock and no rename: on object stores.

A file system has one publisher of a job at a time, who renames the staging in one step. On an
object store several may be at it, and each copies the same staging, index files last, under a
claim at the output that holds the staging's address until everything is done. Weights are the
same whoever wrote them; documents have times and costs in them, so all publishers make them
from what the first one wrote down.
"""

from pydantic import ValidationError

from fda_core.contract.artifacts import MANIFEST_FILE, Manifest, Publication
from fda_core.contract.plan import Plan
from fda_core.contract.uris import join, scheme
from fda_core.engine import layout
from fda_core.errors import NotFound
from fda_core.storage.base import CLAIM, Storage


def manifest_at(output: str, storage: Storage) -> Manifest | None:
    """Return the manifest of an output, None if there is none or it cannot be read."""
    try:
        return Manifest.model_validate_json(storage.read(join(output, MANIFEST_FILE)))
    except (NotFound, ValidationError):
        return None


def is_half_published(plan: Plan, storage: Storage) -> bool:
    """Say whether what is at the output was begun, and not ended, by this very job."""
    try:
        claimed_for = storage.read(join(plan.output, CLAIM))
    except NotFound:
        return False
    return claimed_for == layout.staging(plan).encode()


def agreed(plan: Plan, storage: Storage, mine: Publication) -> Publication:
    """Return what the first publisher of the job wrote down; ours, if that is us.

    Raises `NotFound` if another has published everything just now and tidied up.
    """
    if scheme(plan.output) == "file":
        return mine
    address, data = layout.publication(plan), mine.model_dump_json().encode()
    if storage.put(address, data, if_absent=True):
        return mine
    try:
        return Publication.model_validate_json(storage.read(address))
    except ValidationError:
        storage.put(address, data)
        return mine


def finish_publishing(plan: Plan, storage: Storage) -> None:
    """Remove what publishers left beside an output that is whole."""
    claimed = is_half_published(plan, storage)
    storage.delete_below(layout.staging(plan))
    if claimed:
        storage.delete(join(plan.output, CLAIM))
    storage.delete(layout.publication(plan))
    if plan.single_file:
        storage.delete_below(layout.parts(plan))
