"""What is old goes; what is used stays."""

from datetime import timedelta

from sqlalchemy import select

from api.db.tables import IdempotencyRow
from fda_core.contract.uris import join
from tests.support.control import Bench, HandWorker


def test_idempotency_keys_go_after_a_day(bench: Bench):
    with bench.database.write() as session:
        for hours in (1, 23, 25):
            at = bench.clock() - timedelta(hours=hours)
            row = IdempotencyRow(scope="us", key=f"k{hours}", body_hash="", created_at=at)
            session.add(row)
    bench.controller.sweeper.step()
    with bench.database.read() as session:
        assert set(session.scalars(select(IdempotencyRow.key))) == {"k1", "k23"}


def test_anchors_are_kept_unless_told_otherwise_and_never_taken_from_an_active_job(bench: Bench):
    job = bench.planned()
    trial = HandWorker(bench).take()
    trial.run_for_real()
    bench.step()
    unused = join(bench.workspace, "anchors", "ab", "ab12")
    for name in ("anchors.bin", "metrics.json"):
        bench.storage.put(join(unused, name), b"{}")
    bench.clock.advance(400 * 86400)
    assert bench.controller.sweeper.step() == 0
    sweeper = bench.new_controller(anchor_days=30).sweeper
    sweeper.step()
    assert bench.storage.exists(unused), "first seen just now"
    bench.clock.advance(31 * 86400)
    assert sweeper.step() == 1
    assert not bench.storage.exists(unused)
    assert trial.plan.unit(trial.unit).kind == "construct"
    assert bench.controller.dispatcher._plans.find(job, bench.job(job).plan_digest) is not None
    bench.clock.advance(31 * 86400)
    assert sweeper.step() == 0, "the job's own anchors are in use"
