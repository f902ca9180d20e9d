"""The journal: one small record per finished unit, written last. The record is the truth."""

from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor

from pydantic import ValidationError

from fda_core.contract.artifacts import UnitRecord
from fda_core.contract.plan import Plan, Unit
from fda_core.contract.uris import join
from fda_core.engine import layout
from fda_core.errors import LostResult, NotFound
from fda_core.storage.base import Storage

THREADS = 8


class Journal:
    """The records of one job."""

    def __init__(self, plan: Plan, storage: Storage) -> None:
        self._plan = plan
        self._storage = storage

    def save_plan(self) -> None:
        """Keep the plan in the workspace, for people and for other processes."""
        folder = layout.job_folder(self._plan.workspace, self._plan.job_id)
        self._storage.put(
            join(folder, "plan.json"), self._plan.model_dump_json(by_alias=True).encode()
        )

    def write(self, record: UnitRecord) -> None:
        """Write a unit's record. Everything it names must be durable by now."""
        address = layout.record(self._plan, record.unit)
        self._storage.put(address, record.model_dump_json(by_alias=True).encode())

    def find(self, unit: Unit) -> UnitRecord | None:
        """Return a unit's record if it is there and its files still have their lengths.

        A record that cannot be read, is another unit's, or of a final shard elsewhere counts as
        none: the unit runs again.
        """
        address = layout.record(self._plan, unit.id)
        try:
            found = UnitRecord.model_validate_json(self._storage.read(address))
            if found.unit != unit.id or not self._in_place(unit, found):
                return None
            for file in found.files:
                if self._storage.stat(file.path).size_bytes != file.size_bytes:
                    return None
        except (NotFound, ValidationError):
            return None
        return found

    def _in_place(self, unit: Unit, record: UnitRecord) -> bool:
        """Say whether a final shard is in this plan's staging, which publishing moves."""
        if unit.shard is None or self._plan.single_file:
            return True
        shard = next(shard for shard in self._plan.shards if shard.number == unit.shard)
        return [file.path for file in record.files] == [layout.shard(self._plan, shard)]

    def find_all(self, *, among: Collection[str] | None = None) -> dict[str, UnitRecord]:
        """Return the records of finished units by id, in plan order; publishing has none.

        `among` says of which units; None: of all. One listing says which records there are: on
        an object store every question takes its time.
        """
        there = {info.uri for info in self._storage.list(layout.records(self._plan))}
        units = [
            unit
            for unit in self._plan.units[:-1]
            if (among is None or unit.id in among) and layout.record(self._plan, unit.id) in there
        ]
        if not units:
            return {}
        with ThreadPoolExecutor(THREADS, "fda-records") as pool:
            found = pool.map(self.find, units)
            return {unit.id: record for unit, record in zip(units, found, strict=True) if record}

    def read(self, unit_id: str) -> UnitRecord:
        """Return the record of a unit that must be finished."""
        return self.read_many([unit_id])[unit_id]

    def read_many(self, unit_ids: Collection[str]) -> dict[str, UnitRecord]:
        """Return the records of units that must be finished, or raise `LostResult`."""
        found = {unit_id: self.find(self._plan.unit(unit_id)) for unit_id in unit_ids}
        return _whole(found)

    def read_all(self) -> list[UnitRecord]:
        """Return the records of all units but publishing, which must be finished."""
        found = self.find_all()
        return list(_whole({u.id: found.get(u.id) for u in self._plan.units[:-1]}).values())

    def forget(self, unit_id: str) -> None:
        """Remove a unit's record, so that it runs again."""
        self._storage.delete(layout.record(self._plan, unit_id))


def _whole(found: Mapping[str, UnitRecord | None]) -> dict[str, UnitRecord]:
    """Return records if none lacks. One does if someone removed it, or what it names."""
    lost = [unit_id for unit_id, record in found.items() if record is None]
    if lost:
        more = f" and of {len(lost) - 1} more units" if len(lost) > 1 else ""
        raise LostResult(
            f"the result of unit {lost[0]}{more} is gone, but another unit needs it",
            hint="Leave the workspace alone while a merge runs. Run it again (a job: retry it): "
            "what is gone is done again.",
            units=lost,
        )
    return {unit_id: record for unit_id, record in found.items() if record is not None}
