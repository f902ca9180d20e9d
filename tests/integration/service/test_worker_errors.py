"""Errors of units reach the controller with their codes; memory that ran out can be avoided."""

from pathlib import Path

import pytest
import torch

from fda_core.contract.service import names
from fda_core.storage.resolve import storages
from tests.support.checkpoints import PREFIX, base_model, expert_of
from tests.support.valkey import Valkey
from tests.support.workers import Job, Worker, fda, save_models, until, workers


def test_nan_in_an_expert_is_reported_with_its_code(
    valkey: Valkey, pair: list[Worker], root: Path
) -> None:
    base = base_model()
    name = f"{PREFIX}encoder.layer.0.output.dense.weight"
    bad = expert_of(base, 7).tensors[name].clone()
    bad[0, 0] = torch.nan
    expert_of(base, 7).with_tensors({name: bad}).save(root / "nan")
    (root / "a").rename(root / "before")
    (root / "nan").rename(root / "a")
    job = Job(valkey, root, method="linear")
    failed: list[str] = []
    for unit in job.ready():
        job.send(unit.id)
        until(lambda u=unit.id: job.events("unit_finished", u) or job.events("unit_failed", u))
        failed += [event.error.code for event in job.events("unit_failed", unit.id)]
    assert failed == ["non_finite"]
    error = job.events("unit_failed")[0].error
    assert (error.blame, error.retryable, error.trace) == ("data", False, None)
    assert error.unit == job.events("unit_failed")[0].unit
    assert error.context["expert"] == "a"
    assert not valkey.client.exists(names.taken(job.plan.job_id))
    assert not valkey.client.keys("fda:lease:*")
    assert {"failed"} <= {line["outcome"] for w in pair for line in w.said("unit_tried")}


def test_messages_about_what_is_no_more_are_dropped(
    valkey: Valkey, pair: list[Worker], root: Path
) -> None:
    job = Job(valkey, root, method="linear")
    job.send("merge-999")
    job.storage.delete(names.plan_file(job.plan.workspace, job.plan.job_id))
    job.send(job.plan.units[0].id)
    lines = until(
        lambda: (
            len(
                found := [
                    line["outcome"]
                    for w in pair
                    for line in w.said("unit_tried")
                    if line["job"] == job.plan.job_id
                ]
            )
            == 2
            and found
        )
    )
    assert lines == ["gone", "gone"]
    assert not job.reports()
    assert not valkey.client.keys("fda:lease:*")


def test_a_bug_is_reported_as_an_internal_error_with_its_trace(
    own_valkey: Valkey, tmp_path: Path
) -> None:
    job = Job(own_valkey, save_models(tmp_path), method="linear")
    with workers(own_valkey, tmp_path, runner="tests.support.runners:Broken"):
        job.send(job.plan.units[0].id)
        error = until(lambda: job.events("unit_failed"))[0].error
    assert (error.code, error.retryable) == ("internal_error", False)
    assert "KeyError" in error.message
    assert "runners.py" in error.trace


def test_fewer_anchors_at_once_fit_and_are_the_same_to_the_cache(
    own_valkey: Valkey, tmp_path: Path
) -> None:
    save_models(tmp_path)
    job = Job(own_valkey, tmp_path, method=fda())
    unit = job.plan.units[0]
    with workers(own_valkey, tmp_path, runner="tests.support.runners:Full"):
        job.send(unit.id)
        error = until(lambda: job.events("unit_failed"))[0].error
        assert error.code == "out_of_device_memory"
        assert error.context["microbatch"] == 4
        job.send(unit.id, microbatch=2)
        until(lambda: job.events("unit_finished", unit.id))
    with workers(own_valkey, tmp_path):
        other = Job(own_valkey, tmp_path, job_id="other", method=fda())
        assert other.plan.unit(unit.id).cached
        other.send(unit.id)
        assert until(lambda: other.events("unit_finished"))[0].source == "cache"
    few = storages().read(job.journal.read(unit.id).files[0].path)
    (tmp_path / "workspace" / "anchors").rename(tmp_path / "anchors-before")
    with workers(own_valkey, tmp_path):
        again = Job(own_valkey, tmp_path, job_id="again", method=fda())
        again.send(unit.id)
        assert until(lambda: again.events("unit_finished"))[0].source == "run"
    all_ = storages().read(again.journal.read(unit.id).files[0].path)
    one, two = (torch.frombuffer(bytearray(data), dtype=torch.float32) for data in (few, all_))
    assert one.numel() == two.numel() > 0
    torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("value", ["3", "x"])
def test_a_message_of_another_version_is_answered_and_dropped(
    valkey: Valkey, pair: list[Worker], value: str
) -> None:
    from worker.app import make_app

    app = make_app(valkey.url)
    app.send_task(names.TRY_UNIT, kwargs={"job": value}, queue=names.CPU)
    until(lambda: any(worker.said("message_refused") for worker in pair))
    until(lambda: not valkey.client.hlen("unacked"))
