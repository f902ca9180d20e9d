from pathlib import Path

import pytest

from fda_core.contract.plan import Plan
from fda_core.engine.plan import make_plan
from fda_core.engine.recipes import recipe_of
from fda_core.errors import InternalError, NotFound
from fda_core.storage.resolve import storages
from tests.support.checkpoints import RecipeFile
from tests.support.workers import save_models
from worker.plans import Plans


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    save_models(tmp_path)
    recipe = RecipeFile(
        base=tmp_path / "base", experts={n: tmp_path / n for n in "ab"}, output=tmp_path / "out"
    )
    return make_plan(recipe_of(recipe.document()), storages(), cwd="/")


def save(plan: Plan, path: Path) -> str:
    storages().put(str(path), plan.model_dump_json(by_alias=True).encode())
    return str(path)


def test_a_plan_is_read_once_until_it_changes(plan: Plan, tmp_path: Path) -> None:
    plans = Plans(storages())
    address = save(plan, tmp_path / "plan.json")
    first = plans.get(address)
    assert first == plan
    assert plans.get(address) is first
    changed = plan.model_copy(update={"digest": "another"})
    save(changed, tmp_path / "plan.json")
    assert plans.get(address).digest == "another"


def test_only_the_last_plans_are_kept(plan: Plan, tmp_path: Path) -> None:
    plans = Plans(storages(), most=2)
    addresses = [save(plan, tmp_path / f"{k}.json") for k in range(3)]
    first, second, _ = [plans.get(address) for address in addresses]
    assert plans.get(addresses[1]) is second
    assert plans.get(addresses[0]) is not first


def test_a_deleted_jobs_plan_is_not_found_though_it_was_read(plan: Plan, tmp_path: Path) -> None:
    plans = Plans(storages())
    address = save(plan, tmp_path / "plan.json")
    plans.get(address)
    Path(address).unlink()
    with pytest.raises(NotFound):
        plans.get(address)


def test_a_plan_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{"format": 2}')
    with pytest.raises(InternalError, match="not a plan this version can read"):
        Plans(storages()).get(str(tmp_path / "plan.json"))
