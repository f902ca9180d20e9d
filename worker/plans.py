"""The plans a worker has read lately: every unit of a job needs the same one."""

from collections import OrderedDict

from pydantic import ValidationError

from fda_core.contract.plan import Plan
from fda_core.errors import InternalError
from fda_core.storage.base import Storage

MOST_PLANS = 8


class Plans:
    """Plans by address and tag: a retried job may be planned anew at the same address."""

    def __init__(self, storage: Storage, *, most: int = MOST_PLANS) -> None:
        self._storage = storage
        self._most = most
        self._plans: OrderedDict[tuple[str, str], Plan] = OrderedDict()

    def get(self, address: str) -> Plan:
        """Return the plan that is there now, or raise `NotFound` if its job was deleted."""
        key = (address, self._storage.stat(address).etag)
        if key not in self._plans:
            self._plans[key] = self._read(address)
            while len(self._plans) > self._most:
                self._plans.popitem(last=False)
        self._plans.move_to_end(key)
        return self._plans[key]

    def _read(self, address: str) -> Plan:
        try:
            return Plan.model_validate_json(self._storage.read(address))
        except ValidationError as problem:
            raise InternalError(
                f"{address}: not a plan this version can read "
                f"({problem.error_count()} faults, first: {problem.errors()[0]['msg']})",
                hint="Let api and workers be of one version.",
                plan=address,
            ) from problem
