"""The whole service as `fda up` starts it: killed, raced, and sharing experts between jobs.

Short versions of what `make soak` does for long.
"""

from collections import Counter
from pathlib import Path

import pytest

from tests.soak import batch, races
from tests.soak.kills import Proof
from tests.support.service import running_service

pytestmark = pytest.mark.slow


def test_two_jobs_outlive_six_kills(tmp_path: Path):
    found = Proof(kills=6, jobs=2, steps=20, pause=1.0, seed=1).run(tmp_path)
    assert found.faults == []
    assert found.happened.total() == 6


def test_cancel_retry_and_publish_race_to_one_legal_outcome(tmp_path: Path):
    raced = races.run(tmp_path, rounds=3, seed=2)
    assert raced.faults == []
    assert raced.ended.total() == 3


def test_a_job_constructs_only_experts_that_no_job_had_before(tmp_path: Path):
    batch.make_models(tmp_path / "models", experts="abc")
    first, second = batch.recipes(str(tmp_path / "models"), str(tmp_path / "out"), 2, steps=5)
    second |= {"seed": first["seed"], "experts": batch.experts(str(tmp_path / "models"), "bc")}
    with running_service(tmp_path / "data", tmp_path) as service:
        sources = []
        for recipe in (first, second):
            job = service.submit(recipe)
            assert service.wait(job)["state"] == "succeeded"
            units = service.pages(f"/v1/jobs/{job}/units")
            sources.append(
                Counter((u["expert"], u["source"]) for u in units if u["kind"] == "construct")
            )
    assert sources == [
        {("a", "run"): 3, ("b", "run"): 3},
        {("b", "cache"): 3, ("c", "run"): 3},
    ]
