"""Planning asks storage a number of questions that does not grow with the units."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fda_core.contract.plan import Plan
from fda_core.engine import cache_alias, layout
from fda_core.engine.journal import Journal
from fda_core.engine.plan import make_plan
from fda_core.engine.recipes import recipe_of
from fda_core.errors import LostResult
from fda_core.methods.fda import Fda
from fda_core.methods.registry import resolve
from fda_core.storage.base import ObjectInfo
from fda_core.storage.local import LocalStorage
from tests.support.checkpoints import RecipeFile, base_model, expert_of


class CountingStorage(LocalStorage):
    """Counts questions, whoever asks them from whatever thread."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: Counter[str] = Counter()
        self._lock = threading.Lock()

    def _count(self, what: str) -> None:
        with self._lock:
            self.asked[what] += 1

    def exists(self, uri: str) -> bool:
        self._count("exists")
        return super().exists(uri)

    def list(self, uri: str) -> Iterator[ObjectInfo]:
        self._count("list")
        return super().list(uri)

    def read(self, uri: str, **more: Any) -> bytes:
        self._count("read")
        return super().read(uri, **more)


def fda_plan(root: Path, storage: LocalStorage, *, layers: int) -> Plan:
    if not (root / "base").exists():
        base = base_model(num_hidden_layers=layers)
        base.save(root / "base")
        for seed, name in enumerate("ab", start=1):
            expert_of(base, seed).save(root / name)
    recipe = RecipeFile(
        base=root / "base",
        experts={name: root / name for name in "ab"},
        output=root / "out",
        method="fda",
    )
    return make_plan(recipe_of(recipe.document()), storage, cwd="/")


def aliases(plan: Plan) -> dict[str, str]:
    method = resolve(plan.recipe.method)
    assert isinstance(method, Fda)
    return {
        unit.id: cache_alias.alias(plan, method, unit.layer or 0, unit.expert or "")
        for unit in plan.units
        if unit.kind == "construct"
    }


def test_more_layers_are_no_more_questions(tmp_path: Path) -> None:
    asked = []
    for layers in (1, 6):
        (tmp_path / str(layers)).mkdir()
        storage = CountingStorage()
        assert len(fda_plan(tmp_path / str(layers), storage, layers=layers).units) > 2 * layers
        asked.append(storage.asked)
    assert asked[0] == asked[1]


@pytest.mark.parametrize(
    "note",
    [b"", b"[]", b'{"key": 1}', b'{"key": "../.."}', b"[" * 100_000, b"\xff"],
    ids=["empty", "list", "number", "path", "deep", "no text"],
)
def test_only_notes_that_lead_to_anchors_count(tmp_path: Path, note: bytes) -> None:
    storage = LocalStorage()
    plan = fda_plan(tmp_path, storage, layers=2)
    notes = aliases(plan)
    good, dangling, broken, absent = notes
    for unit in (good, dangling):
        key = notes[unit]
        storage.put(layout.anchor_alias(plan.workspace, key), json.dumps({"key": key}).encode())
    storage.put(f"{layout.anchors(plan.workspace, notes[good])}/metrics.json", b"{}")
    storage.put(layout.anchor_alias(plan.workspace, notes[broken]), note)
    again = fda_plan(tmp_path, storage, layers=2)
    assert {unit.id for unit in again.units if unit.cached} == {good}
    assert absent in notes


def test_a_record_that_is_lacking_is_named(tmp_path: Path) -> None:
    plan = fda_plan(tmp_path, LocalStorage(), layers=1)
    journal = Journal(plan, LocalStorage())
    assert journal.find_all() == {}
    with pytest.raises(LostResult, match=plan.units[0].id) as lost:
        journal.read_all()
    assert lost.value.units == tuple(unit.id for unit in plan.units[:-1])
