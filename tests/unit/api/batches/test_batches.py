"""Batches over REST and in the database."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.batches.results import Results
from api.batches.routes import router
from api.batches.service import BatchService
from api.db.session import Database
from api.db.tables import BatchRow, EventRow, JobRow, LabelRow
from api.jobs.transitions import ask_to_stop
from fda_core.contract.artifacts import METRICS_FILE, Metrics, UnitCost
from fda_core.storage.local import LocalStorage
from tests.support.stand_ins import (
    GATE,
    Woken,
    all_jobs,
    client_of,
    put_job,
    recipe,
    submit,
)


@dataclass
class World:
    client: TestClient
    database: Database
    woken: Woken
    deleted: list[str]
    root: Path

    def post(self, **body: Any) -> Any:
        return self.client.post("/v1/batches", json=body)

    def sweep(self, **more: Any) -> Any:
        body = {
            "recipe": recipe(),
            "sweep": {"method.scale": [0.1, 0.2, 0.3]},
            "output": str(self.root / "{scale}"),
        }
        return self.post(**body, **more)

    def rows(self, *kinds: type) -> list[int]:
        with self.database.read() as session:
            return [session.query(kind).count() for kind in kinds]


Make = Callable[[Database], World]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def made(database: Database) -> World:
        woken, deleted = Woken(), []
        service = BatchService(
            database,
            submit=submit,
            cancel=ask_to_stop,
            delete_job=lambda _caller, job: deleted.append(job),
            results=Results(LocalStorage([str(tmp_path)])),
            wake=woken,
        )
        return World(client_of(router(GATE, service)), database, woken, deleted, tmp_path)

    return made


@pytest.fixture
def world(make: Make, database: Database) -> World:
    return make(database)


@pytest.fixture
def either_world(make: Make, either: Database) -> Iterator[World]:
    return make(either)


def test_a_batch_is_queued_shown_listed_and_cancelled(either_world: World):
    world = either_world
    answer = world.sweep(name="scales", labels={"team": "vision"}, priority=7)
    assert answer.status_code == 202, answer.text
    batch = answer.json()
    assert answer.headers["location"] == f"/v1/batches/{batch['id']}"
    assert batch["counts"] == {"queued": 3}
    with world.database.read() as session:
        jobs = all_jobs(session)
        assert [job.recipe["method"]["scale"] for job in jobs] == [0.1, 0.2, 0.3]
        assert {job.priority for job in jobs} == {7}
        assert {job.batch_id for job in jobs} == {batch["id"]}
    assert sorted(world.woken.jobs) == sorted(job.id for job in jobs)
    assert world.rows(LabelRow, EventRow) == [3, 3]

    listed = world.client.get("/v1/batches").json()
    assert [(b["id"], b["table"]) for b in listed["data"]] == [(batch["id"], None)]
    shown = world.client.get(batch["urls"]["self"]).json()
    assert [line["values"] for line in shown["table"]] == [
        {"method.scale": scale} for scale in (0.1, 0.2, 0.3)
    ]
    assert [line["output"] for line in shown["table"]] == [job.output for job in jobs]

    with world.database.write() as session:
        put_job(session, jobs[0].id, "validating", "running")
        put_job(session, jobs[1].id, "failed")
    cancelled = world.client.post(batch["urls"]["cancel"])
    assert cancelled.status_code == 202
    assert cancelled.json()["counts"] == {"cancelled": 1, "cancelling": 1, "failed": 1}
    assert set(world.woken.jobs[3:]) == {jobs[0].id, jobs[2].id}


def test_one_bad_recipe_queues_nothing_and_is_named(world: World):
    bad = recipe(output="/o/b", method="tiess")
    answer = world.post(recipes=[recipe(output="/o/a"), bad])
    assert answer.status_code == 422
    (error,) = answer.json()["context"]["errors"]
    assert (error["entry"], error["pointer"]) == (1, "/recipes/1")
    assert world.rows(JobRow, BatchRow) == [0, 0]


def test_what_only_submitting_refuses_queues_nothing_either(either_world: World):
    answer = either_world.post(
        recipes=[recipe(output=f"/{where}/{n}") for n, where in enumerate(("o", "forbidden", "o"))]
    )
    assert answer.status_code == 422
    (error,) = answer.json()["context"]["errors"]
    assert (error["entry"], error["code"]) == (1, "forbidden")
    assert either_world.rows(JobRow, BatchRow, EventRow, LabelRow) == [0, 0, 0, 0]
    assert either_world.woken.jobs == []


def test_the_same_key_gives_the_same_batch(either_world: World):
    body = {"recipes": [recipe(output="/o/a")]}
    first, second = (
        either_world.client.post("/v1/batches", json=body, headers={"Idempotency-Key": "k"})
        for _ in range(2)
    )
    assert first.json() == second.json()
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"
    assert either_world.rows(JobRow, BatchRow) == [1, 1]


def test_begin_within_seconds_becomes_the_jobs_deadline(world: World):
    world.post(recipes=[recipe()], begin_within_seconds=3600)
    with world.database.read() as session:
        (job,) = all_jobs(session)
        assert job.deadline is not None
        assert 3590 < (job.deadline - job.created_at).total_seconds() < 3610


def test_other_teams_see_nothing_and_admins_all(world: World):
    batch = world.sweep().json()["urls"]["self"]
    blue = {"Authorization": "bob/blue/submitter"}
    assert world.client.get(batch, headers=blue).json()["code"] == "unknown_batch"
    assert world.client.post(f"{batch}/cancel", headers=blue).status_code == 404
    assert world.client.delete(batch, headers=blue).status_code == 404
    assert world.client.get("/v1/batches", headers=blue).json()["data"] == []
    admin = {"Authorization": "eve/ops/admin"}
    assert world.client.get(batch, headers=admin).status_code == 200


def test_cancelling_a_batch_that_is_over_is_refused(world: World):
    batch = world.sweep().json()["urls"]
    assert world.client.post(batch["cancel"]).status_code == 202
    again = world.client.post(batch["cancel"])
    assert (again.status_code, again.json()["code"]) == (409, "batch_over")
    assert "3 cancelled" in again.json()["message"]


def test_a_batch_is_deleted_only_when_it_is_over(either_world: World):
    world = either_world
    batch = world.sweep().json()
    refused = world.client.delete(batch["urls"]["self"])
    assert (refused.status_code, refused.json()["code"]) == (409, "batch_not_over")
    world.client.post(batch["urls"]["cancel"])
    assert world.client.delete(batch["urls"]["self"]).status_code == 204
    assert world.client.get(batch["urls"]["self"]).status_code == 404
    with world.database.read() as session:
        assert [job.batch_id for job in all_jobs(session)] == [None] * 3
    assert world.deleted == []


def test_deleting_with_jobs_deletes_each_of_them(world: World):
    batch = world.sweep().json()
    world.client.post(batch["urls"]["cancel"])
    assert world.client.delete(batch["urls"]["self"] + "?jobs=true").status_code == 204
    assert len(set(world.deleted)) == 3


def test_pages_lead_through_all_batches_once(either_world: World):
    made = {either_world.post(recipes=[recipe(output=f"/o/{n}")]).json()["id"] for n in range(5)}
    seen, cursor = [], None
    while True:
        params = {"limit": 2, **({"cursor": cursor} if cursor else {})}
        page = either_world.client.get("/v1/batches", params=params).json()
        seen += [batch["id"] for batch in page["data"]]
        cursor = page["next_cursor"]
        assert page["has_more"] == (cursor is not None)
        if cursor is None:
            break
    assert seen == sorted(made, reverse=True)


def write_metrics(job: JobRow, *, job_id: str | None = None) -> None:
    cost = UnitCost(seconds=12.5, peak_memory_bytes=1, flops=1, read_bytes=100, write_bytes=50)
    metrics = Metrics(
        job_id=job_id or job.id,
        method="task_arithmetic",
        start=None,
        family="bert",
        layers=0,
        experts=("one", "two"),
        construction=(),
        adaptation=(),
        task_vectors=(),
        units=(),
        totals=cost,
    )
    folder = Path(job.output or "")
    folder.mkdir()
    (folder / METRICS_FILE).write_text(metrics.model_dump_json())


def test_the_table_compares_what_finished_jobs_came_to(world: World):
    batch = world.sweep().json()
    with world.database.write() as session:
        done, foreign, running = all_jobs(session)
        for job in (done, foreign):
            put_job(session, job.id, "validating", "running", "publishing", "succeeded")
        put_job(session, running.id, "validating", "running")
        session.flush()
        session.refresh(running)
        running.progress = {"alignment": 0.7}
        running.bytes_total, running.bytes_done = 200, 50
    write_metrics(done)
    write_metrics(foreign, job_id="another job")
    for _ in range(2):  # the second time it is remembered
        table = world.client.get(batch["urls"]["self"]).json()["table"]
        assert [line["read_bytes"] for line in table] == [100, None, None]
        assert table[0]["compute_seconds"] == 12.5
        assert table[0]["seconds"] >= 0
        assert [line["ratio"] for line in table] == [1.0, 1.0, 0.25]
        assert table[2]["alignment"] == 0.7
        (Path(done.output or "") / METRICS_FILE).unlink(missing_ok=True)


def test_a_deleted_job_stays_in_the_table(world: World):
    batch = world.sweep().json()
    with world.database.write() as session:
        session.delete(all_jobs(session)[1])
    shown = world.client.get(batch["urls"]["self"]).json()
    assert [line["state"] for line in shown["table"]] == ["queued", "deleted", "queued"]
    assert shown["counts"] == {"queued": 2}


def test_openapi_declares_what_can_go_wrong(world: World):
    paths = world.client.get("/openapi.json").json()["paths"]
    assert set(paths["/v1/batches"]["post"]["responses"]) >= {"202", "401", "403", "409", "422"}
    assert "404" in paths["/v1/batches/{batch_id}"]["get"]["responses"]
