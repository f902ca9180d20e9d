"""What belongs to a job: units, attempts, logs, events; and the anchor cache."""

import json
from typing import Any

from api.db.tables import AttemptRow, UnitRow
from api.db.types import now
from api.ids import new_id
from api.jobs.transitions import add_log
from fda_core.contract.artifacts import ArtifactFile, UnitCost, UnitRecord
from tests.support.rest import Rest, problem


def walk(rest: Rest, path: str, *, limit: int = 2) -> list[Any]:
    """Return everything of a list, page by page."""
    found: list[Any] = []
    sign = "&" if "?" in path else "?"
    cursor = ""
    while True:
        page = rest.viewer.get(f"{path}{sign}limit={limit}{cursor}").json()
        found += page["data"]
        if not page["has_more"]:
            return found
        cursor = f"&cursor={page['next_cursor']}"


def add_units(rest: Rest, job_id: str) -> None:
    with rest.database.write() as session:
        for place in range(5):
            done = place < 2
            session.add(
                UnitRow(
                    job_id=job_id,
                    id=f"construct-{place}-a",
                    place=place,
                    kind="construct" if place < 4 else "publish",
                    state="done" if done else "pending",
                    layer=place,
                    expert="a",
                    flops=1e15,
                    source="run" if done else None,
                    seconds=2.0 if done else None,
                )
            )


def test_units_are_listed_in_the_plans_order(either: Rest):
    job = either.submitter.submit()
    add_units(either, job["id"])
    path = f"/v1/jobs/{job['id']}/units"
    units = walk(either, path)
    assert [unit["id"] for unit in units] == [f"construct-{n}-a" for n in range(5)]
    assert units[0]["flops"] == 10**15
    assert [u["layer"] for u in walk(either, f"{path}?state=done")] == [0, 1]
    assert [u["layer"] for u in walk(either, f"{path}?state=pending&kind=construct")] == [2, 3]
    problem(either.viewer.get(f"{path}?state=odd"), 422, "invalid_request")


def test_attempts_are_listed_oldest_first(either: Rest):
    job = either.submitter.submit()
    error = {"code": "non_finite", "message": "NaN"}
    with either.database.write() as session:
        for number, attempt_id in enumerate(sorted(new_id() for _ in range(3))):
            session.add(
                AttemptRow(
                    id=attempt_id,
                    job_id=job["id"],
                    attempt=1,
                    unit=f"u{number}",
                    token=f"t{number}",
                    worker="w",
                    outcome="failed" if number == 1 else "done",
                    started_at=now(),
                    error=error if number == 1 else None,
                )
            )
    path = f"/v1/jobs/{job['id']}/attempts"
    found = walk(either, path)
    assert [item["unit"] for item in found] == ["u0", "u1", "u2"]
    assert found[1]["error"]["code"] == "non_finite"
    assert [item["unit"] for item in walk(either, f"{path}?unit=u1")] == ["u1"]


def test_logs_are_listed_and_narrowed(either: Rest):
    job = either.submitter.submit()
    with either.database.write() as session:
        for number in range(5):
            level = "warning" if number == 3 else "info"
            add_log(session, job["id"], f"line {number}", level=level, unit=f"u{number % 2}")
    path = f"/v1/jobs/{job['id']}/logs"
    assert [line["text"] for line in walk(either, path)] == [f"line {n}" for n in range(5)]
    assert [line["id"] for line in walk(either, f"{path}?level=warning")] == [4]
    assert [line["id"] for line in walk(either, f"{path}?unit=u1")] == [2, 4]


def test_events_are_pages_with_numbers_that_have_no_gaps(either: Rest):
    job = either.submitter.submit()
    for number in range(6):
        either.tell(job["id"], loss=number / 10)
    events = walk(either, f"/v1/jobs/{job['id']}/events")
    assert [event["id"] for event in events] == list(range(1, 8))
    assert events[1]["type"] == "progress"
    assert events[1]["data"] == {"loss": 0.0}
    problem(either.viewer.get(f"/v1/jobs/{job['id']}/events?cursor=WyIteCJd"), 422)


def test_methods_are_described_with_their_schema(rest: Rest):
    found = rest.viewer.get("/v1/methods").json()["data"]
    assert {"fda", "ties", "tsvm"} <= {method["name"] for method in found}
    fda = rest.viewer.get("/v1/methods/fda").json()
    assert fda in found
    assert fda["parameters"]["properties"]["construct"]
    problem(rest.viewer.get("/v1/methods/nothing"), 404, "unknown_resource")


# The anchor cache


def add_anchors(rest: Rest, key: str, *, expert: str = "a", layer: int = 3) -> str:
    folder = rest.folder / "workspace" / "anchors" / key[:2] / key
    folder.mkdir(parents=True)
    (folder / "anchors.bin").write_bytes(b"x" * 100)
    metrics = {"metrics": {"layer": layer, "expert": expert}}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return str(folder / "anchors.bin")


def use_anchors(rest: Rest, job_id: str, path: str) -> None:
    record = UnitRecord(
        unit="construct-3-a",
        kind="construct",
        files=(ArtifactFile(path=path, size_bytes=100, sha256="0" * 64),),
        cost=UnitCost(seconds=1, peak_memory_bytes=1, flops=1, read_bytes=1, write_bytes=1),
        worker="w",
        device="cpu",
    )
    folder = rest.folder / "workspace" / "jobs" / job_id / "records"
    folder.mkdir(parents=True)
    (folder / "construct-3-a.json").write_text(record.model_dump_json())


def test_the_anchor_cache_is_listed_with_who_used_it(either: Rest):
    keys = sorted(c * 64 for c in "fa3")
    paths = [add_anchors(either, key) for key in keys]
    aliases = either.folder / "workspace" / "anchors" / "aliases"
    aliases.mkdir()
    (aliases / "x.json").write_text("{}")
    recipe = {"base": "/models/b", "experts": [{"name": "a", "model": "/models/a"}]}
    fda = {**recipe, "method": "fda", "output": "/models/o"}
    job = either.submitter.submit(recipe=fda)
    either.lead(job["id"], "validating", units_done=1)
    use_anchors(either, job["id"], paths[1])
    found = walk(either, "/v1/anchors")
    assert [entry["key"] for entry in found] == keys
    assert [entry["used_by"] for entry in found] == [[], [job["id"]], []]
    assert (found[1]["layer"], found[1]["expert"]) == (3, "a")
    assert found[1]["size_bytes"] > 100
    assert found[1]["last_used_at"] is not None
    theirs = either.stranger.get("/v1/anchors").json()["data"]
    assert [entry["used_by"] for entry in theirs] == [[], [], []], "no other team's jobs"


def test_an_admin_removes_cached_anchors(rest: Rest):
    key = "b" * 64
    add_anchors(rest, key)
    assert rest.admin.delete(f"/v1/anchors/{key}").status_code == 204
    problem(rest.admin.delete(f"/v1/anchors/{key}"), 404, "unknown_resource")
    assert rest.viewer.get("/v1/anchors").json()["data"] == []
    problem(rest.admin.delete("/v1/anchors/..%2F..%2Fjobs"), 404)
