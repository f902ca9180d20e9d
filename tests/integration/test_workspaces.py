"""One job in two workspaces, at once and one after the other: one whole output."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fda_core.contract.artifacts import MANIFEST_FILE
from fda_core.contract.plan import Plan
from fda_core.engine.plan import make_plan
from fda_core.engine.recipes import read_recipe
from fda_core.engine.run import RunOptions, run_plan
from fda_core.storage.local import LocalStorage
from tests.support.checkpoints import RecipeFile, read_tensors
from tests.support.command import succeed
from tests.support.workers import save_models


class KilledError(Exception):
    """Stands for the end of a process."""


class Watched(LocalStorage):
    """Does something right before a manifest is written."""

    def __init__(self, act: Callable[[], None]) -> None:
        super().__init__()
        self._act = act

    def put(self, uri: str, data: bytes, *, if_absent: bool = False) -> bool:
        if uri.endswith(MANIFEST_FILE):
            self._act()
        return super().put(uri, data, if_absent=if_absent)


@pytest.fixture(params=["one file", "shards"])
def plan_in(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Plan]:
    save_models(tmp_path, vocab_size=20_000 if request.param == "shards" else 41)
    recipe = RecipeFile(
        base=tmp_path / "base",
        experts={name: tmp_path / name for name in "ab"},
        output=tmp_path / "out",
        more={"shard_size": 1_000_000},
    )
    read = read_recipe(recipe.write(tmp_path / "recipe.yaml").read_text())

    def plan(workspace: str) -> Plan:
        return make_plan(
            read, LocalStorage(), cwd=str(tmp_path), workspace=str(tmp_path / workspace)
        )

    return plan


def _run(plan: Plan, act: Callable[[], None] = lambda: None) -> None:
    options = RunOptions(workers=1, device="cpu")
    run_plan(plan, Watched(act), options=options, sink=lambda _: None, is_cancelled=lambda: False)


def _die() -> None:
    raise KilledError


def _is_killed(plan: Plan) -> None:
    with pytest.raises(KilledError):
        _run(plan, _die)


def test_another_process_with_another_workspace_stays_out_of_the_way(plan_in, tmp_path):
    """Each wrote its documents into the same folder: a manifest was of the other's metrics."""
    one, two = plan_in("one"), plan_in("two")
    assert one.job_id == two.job_id
    _run(one, lambda: _is_killed(two))
    assert succeed("verify", tmp_path / "out")["status"] == "intact"
    assert succeed("merge", tmp_path / "recipe.yaml", "--workspace", tmp_path / "two")[
        "already_done"
    ]
    assert not list(tmp_path.glob(".out.*"))


def test_a_workspace_that_moved_is_gone_on_from(plan_in, tmp_path):
    _is_killed(plan_in("one"))
    (tmp_path / "one").rename(tmp_path / "two")
    _run(plan_in("two"))
    assert succeed("verify", tmp_path / "out")["status"] == "intact"
    assert len(read_tensors(tmp_path / "out")) == len(plan_in("two").tensors)
