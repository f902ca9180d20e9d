"""A workspace on S3 and an output on disk: the lock is beside the output."""

import threading
from pathlib import Path

from fda_core.contract.events import Event, WaitingForOther
from fda_core.contract.uris import join
from fda_core.engine.job_lock import job_lock
from fda_core.engine.plan import make_plan
from fda_core.engine.recipes import read_recipe
from fda_core.engine.run import RunOptions, run_plan
from fda_core.storage.resolve import storages
from tests.support.checkpoints import RecipeFile, base_model, expert_of
from tests.support.command import succeed


def test_two_runs_of_a_job_with_a_workspace_on_s3_take_turns(tmp_path: Path, root: str):
    base = base_model()
    base.save(tmp_path / "base")
    expert_of(base, 0).save(tmp_path / "a")
    recipe = RecipeFile(
        base=tmp_path / "base",
        experts={"a": tmp_path / "a"},
        output=tmp_path / "outputs" / "out",
        method="linear",
    )
    read = read_recipe(recipe.write(tmp_path / "recipe.yaml").read_text())
    storage = storages()
    plan = make_plan(read, storage, cwd=str(tmp_path), workspace=join(root, "ws"))
    waiting, ran = threading.Event(), []

    def tell(event: Event) -> None:
        if isinstance(event, WaitingForOther):
            waiting.set()

    def run() -> None:
        options = RunOptions(workers=1, device="cpu")
        ran.append(run_plan(plan, storage, options=options, sink=tell, is_cancelled=lambda: False))

    second = threading.Thread(target=run)
    with job_lock(plan, on_wait=lambda: None, is_cancelled=lambda: False):
        second.start()
        assert waiting.wait(60), "it did not wait"
        assert not Path(plan.output).exists()
    second.join(60)
    assert ran == [True]
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["out"]
    succeed("verify", plan.output)
