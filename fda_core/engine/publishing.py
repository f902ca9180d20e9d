"""A publication that was killed halfway, which only object stores know: go on, or tidy up.

A file system renames the staging in one step. An object store copies it, index files last,
under a claim at the output that holds the staging's address until everything is done.
"""

from fda_core.contract.plan import Plan
from fda_core.contract.uris import join
from fda_core.engine import layout
from fda_core.errors import NotFound
from fda_core.storage.base import CLAIM, Storage


def is_half_published(plan: Plan, storage: Storage) -> bool:
    """Say whether what is at the output was begun, and not ended, by this very job."""
    try:
        claimed_for = storage.read(join(plan.output, CLAIM))
    except NotFound:
        return False
    return claimed_for == layout.staging(plan).encode()


def finish_publishing(plan: Plan, storage: Storage) -> None:
    """Remove staging and claim of an output that is whole, if they were left."""
    if is_half_published(plan, storage):
        storage.delete_below(layout.staging(plan))
        storage.delete(join(plan.output, CLAIM))
