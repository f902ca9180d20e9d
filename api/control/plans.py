"""Plans that were written to the workspace, a few kept at hand."""

from collections import OrderedDict
from threading import Lock

from pydantic import ValidationError

from fda_core.contract.plan import Plan
from fda_core.contract.service import names
from fda_core.errors import NotFound
from fda_core.storage.base import Storage

KEPT = 32


class Plans:
    """Plans by job, read once each. Safe to share by threads."""

    def __init__(self, storage: Storage, workspace: str) -> None:
        self.storage = storage
        self.workspace = workspace
        self._kept: OrderedDict[tuple[str, str], Plan] = OrderedDict()
        self._lock = Lock()

    def find(self, job_id: str, digest: str | None) -> Plan | None:
        """Return a job's plan, or None if there is none of that digest."""
        if digest is None:
            return None
        with self._lock:
            if (job_id, digest) in self._kept:
                self._kept.move_to_end((job_id, digest))
                return self._kept[job_id, digest]
        found = self.read(job_id)
        if found is None or found.digest != digest:
            return None
        self.keep(found)
        return found

    def read(self, job_id: str) -> Plan | None:
        """Return the plan that is in the workspace, whatever its digest."""
        try:
            return Plan.model_validate_json(
                self.storage.read(names.plan_file(self.workspace, job_id))
            )
        except (NotFound, ValidationError):
            return None

    def keep(self, plan: Plan) -> None:
        """Keep a plan at hand."""
        with self._lock:
            self._kept[plan.job_id, plan.digest] = plan
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
