"""Reports wait while Redis is away and arrive in order; what waits is bounded."""

import pytest
from redis import ConnectionError as RedisConnectionError

from fda_core.contract.events import BytesMoved, StepReported, UnitFinished, UnitStarted
from fda_core.contract.service import names
from fda_core.contract.service.messages import REPORT, Report, Reported, TryUnit
from tests.support.valkey import Valkey
from worker.events import Reports, UnitReports

MESSAGE = TryUnit(job="j", unit="u", attempt=2, plan="/p", device="cpu")


def report(event: Reported, number: int = 0) -> Report:
    return Report(job="j", attempt=1, worker="w", token=str(number), at=float(number), event=event)


def moved(number: int) -> Report:
    return report(BytesMoved(unit="u", read_bytes=number), number)


def finished(number: int) -> Report:
    return report(UnitFinished(unit="u", worker=0, seconds=0.0), number)


def told(valkey: Valkey) -> list[Report]:
    return [REPORT.validate_json(e["report"]) for _, e in valkey.client.xrange(names.EVENTS)]


def test_reports_arrive_in_order(valkey: Valkey) -> None:
    reports = Reports(valkey.client)
    reports.start()
    sent = [moved(k) for k in range(500)]
    for one in sent:
        reports.put(one)
    assert reports.close(10)
    assert told(valkey) == sent


def test_reports_wait_for_redis_and_facts_outlive_progress(own_valkey: Valkey) -> None:
    dropped = []
    reports = Reports(own_valkey.client, most=4, on_drop=lambda: dropped.append(1))
    own_valkey.kill()
    for one in (finished(0), moved(1), moved(2), finished(3), moved(4), finished(5)):
        reports.put(one)
    with pytest.raises(RedisConnectionError):
        reports.send_some()
    own_valkey.start()
    reports.start()
    assert reports.close(10)
    assert [r.token for r in told(own_valkey)] == ["0", "3", "4", "5"]
    assert len(dropped) == 2


def test_closing_ends_though_redis_is_away(own_valkey: Valkey) -> None:
    reports = Reports(own_valkey.client)
    own_valkey.kill()
    reports.put(finished(0))
    reports.start()
    assert not reports.close(0.3)


def test_steps_and_bytes_are_told_four_times_a_second() -> None:
    class Kept(Reports):
        def put(self, report: Report) -> None:
            kept.append(report)

    kept: list[Report] = []
    now = [0.0]
    unit = UnitReports(
        Kept.__new__(Kept),
        MESSAGE,
        worker="w",
        token="t",
        clock=lambda: 9.0,
        ticks=lambda: now[0],
    )
    unit.emit(UnitStarted(unit="u", worker=0))
    for step in range(1, 101):
        now[0] = step * 0.01
        unit.emit(BytesMoved(unit="u", read_bytes=1, write_bytes=2))
        unit.emit(
            StepReported(unit="u", stage="construct", layer=0, step=step, steps=100, loss=0.0)
        )
    unit.tell(UnitFinished(unit="u", worker=0, seconds=1.0))
    steps = [r.event.step for r in kept if isinstance(r.event, StepReported)]
    assert steps == [1, 26, 51, 76, 100]
    bytes_ = [r.event for r in kept if isinstance(r.event, BytesMoved)]
    assert len(bytes_) == 5
    assert sum(event.read_bytes for event in bytes_) == 100
    assert sum(event.write_bytes for event in bytes_) == 200
    assert isinstance(kept[-1].event, UnitFinished)
    assert {(r.job, r.attempt, r.worker, r.token, r.at) for r in kept} == {("j", 2, "w", "t", 9.0)}
