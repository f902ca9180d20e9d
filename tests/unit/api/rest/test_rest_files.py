"""A finished job's metrics and files: thinned curves, addresses that end, ranges, no way out."""

import hashlib
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from api.jobs.artifacts import sign
from api.jobs.metrics import thinned
from api.ranges import read_range
from fda_core.contract.artifacts import (
    AdaptMetrics,
    ArtifactFile,
    ConstructMetrics,
    Curve,
    Drift,
    Manifest,
    Metrics,
    UnitCost,
    UnitRecord,
)
from tests.support.rest import SECRET, Rest, problem, recipe

COST = UnitCost(seconds=1, peak_memory_bytes=1, flops=1, read_bytes=1, write_bytes=1)
CURVE = Curve(steps=tuple(range(1000)), values=tuple(n / 10 for n in range(1000)))
WEIGHTS = bytes(range(256)) * 8


def construction(layer: int, expert: str) -> ConstructMetrics:
    return ConstructMetrics(
        layer=layer,
        expert=expert,
        anchors=4,
        tokens=5,
        init="weight",
        steps_run=1000,
        best_step=999,
        alignment_start=0.1,
        alignment_best=0.9,
        alignment=CURVE,
        loss=CURVE,
        tensor_cosines={},
        zero_tensors=(),
        spectrum_start=(),
        spectrum_end=(),
    )


def adaptation(layer: int) -> AdaptMetrics:
    return AdaptMetrics(
        layer=layer,
        epochs=3,
        variables="elements",
        loss=CURVE,
        drift={"a": Drift(start=1.0, result=0.2)},
        seconds=1.0,
    )


def publish(rest: Rest, *, manifest_job: str | None = None) -> tuple[str, Path]:
    """Bring a job to its end with an output of three files; return its id and the output."""
    output = rest.folder / "storage" / "out put"
    job = rest.submitter.submit(recipe=recipe(output=str(output)))
    job_id = manifest_job or job["id"]
    metrics = Metrics(
        job_id=job_id,
        method="fda",
        start="base",
        family="bert",
        layers=2,
        experts=("a", "b"),
        construction=tuple(construction(n, e) for n in range(2) for e in "ab"),
        adaptation=(adaptation(0), adaptation(1)),
        task_vectors=(),
        units=(),
        totals=COST,
    )
    files = {
        "model.safetensors": WEIGHTS,
        "heads/a é.json": b"{}",
        "merge_metrics.json": metrics.model_dump_json().encode(),
    }
    for name, data in files.items():
        path = output / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (output / "secret.txt").write_text("not of this job")
    manifest = Manifest(
        job_id=job_id,
        created="2026-01-01T00:00:00Z",
        versions={},
        seed=0,
        device="cpu",
        threads=1,
        method="fda",
        parameters={},
        inputs=(),
        outputs={
            name: ArtifactFile(
                path=name, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest()
            )
            for name, data in files.items()
        },
        notes=(),
        warnings=(),
    )
    (output / "merge_manifest.json").write_text(manifest.model_dump_json())
    rest.lead(job["id"], "validating", "running", "publishing", "succeeded")
    return job["id"], output


def artifacts(rest: Rest, job_id: str) -> dict[str, Any]:
    page = rest.viewer.get(f"/v1/jobs/{job_id}/artifacts").json()
    return {file["path"]: file for file in page["data"]}


def test_files_are_listed_and_their_addresses_need_no_key(rest: Rest):
    job_id, output = publish(rest)
    found = artifacts(rest, job_id)
    assert set(found) == {
        "model.safetensors",
        "heads/a é.json",
        "merge_metrics.json",
        "merge_manifest.json",
    }
    for path, file in found.items():
        answer = rest.nobody.get(file["url"])
        assert answer.status_code == 200
        assert answer.content == (output / path).read_bytes()
        assert len(answer.content) == file["size_bytes"]
        assert hashlib.sha256(answer.content).hexdigest() == file["sha256"]
        assert answer.headers["content-disposition"].startswith("attachment")
        assert file["uri"] == str(output / path)


def test_an_address_ends_with_its_time(rest: Rest):
    job_id, _ = publish(rest)
    url = artifacts(rest, job_id)["model.safetensors"]["url"]
    rest.clock.forward(seconds=3590)
    assert rest.nobody.get(url).status_code == 200
    rest.clock.forward(seconds=11)
    problem(rest.nobody.get(url), 403, "bad_link")


def test_an_address_that_was_changed_opens_nothing(rest: Rest):
    job_id, _ = publish(rest)
    other_id = "0" * 36
    url = artifacts(rest, job_id)["model.safetensors"]["url"]
    head, until, mark, path = url.rsplit("/", 3)
    flipped = mark[:-1] + ("0" if mark[-1] != "0" else "1")
    for changed in (
        f"{head}/{int(until) + 1}/{mark}/{path}",
        f"{head}/{until}/{flipped}/{path}",
        f"{head}/{until}/{mark}/merge_manifest.json",
        f"{head}/{until}/{mark}/secret.txt",
        f"{head}/{until}/{mark}/..%2Fsecret.txt",
        f"{head.replace(job_id, other_id)}/{until}/{mark}/{path}",
    ):
        problem(rest.nobody.get(changed), 403, "bad_link")


@pytest.mark.parametrize(
    "path", ["secret.txt", "../storage/out put/model.safetensors", "/etc/passwd", "", "."]
)
def test_nothing_but_the_jobs_own_files_is_served_even_if_signed(rest: Rest, path: str):
    job_id, _ = publish(rest)
    until = int(rest.clock().timestamp()) + 100
    mark = sign(SECRET.encode(), job_id, path, until)
    answer = rest.nobody.get(f"/v1/files/{job_id}/{until}/{mark}/{quote(path, safe='')}")
    assert answer.status_code in (403, 404)
    problem(answer, answer.status_code)


def test_a_file_replaced_by_a_link_outside_is_not_served(rest: Rest, tmp_path: Path):
    job_id, output = publish(rest)
    url = artifacts(rest, job_id)["model.safetensors"]["url"]
    secret = tmp_path / "secret"
    secret.write_bytes(WEIGHTS)
    (output / "model.safetensors").unlink()
    (output / "model.safetensors").symlink_to(secret)
    problem(rest.nobody.get(url), 403, "forbidden")


def test_ranges_are_served(rest: Rest):
    job_id, _ = publish(rest)
    url = artifacts(rest, job_id)["model.safetensors"]["url"]
    answer = rest.nobody.get(url, headers={"Range": "bytes=10-19"})
    assert (answer.status_code, answer.content) == (206, WEIGHTS[10:20])
    assert answer.headers["content-range"] == f"bytes 10-19/{len(WEIGHTS)}"
    assert rest.nobody.get(url, headers={"Range": "bytes=-5"}).content == WEIGHTS[-5:]
    assert rest.nobody.get(url, headers={"Range": "bytes=2000-"}).content == WEIGHTS[2000:]
    tag = answer.headers["etag"]
    same = {"Range": "bytes=0-0", "If-Range": tag}
    assert rest.nobody.get(url, headers=same).status_code == 206
    other = {"Range": "bytes=0-0", "If-Range": '"x"'}
    assert rest.nobody.get(url, headers=other).content == WEIGHTS
    beyond = rest.nobody.get(url, headers={"Range": f"bytes={len(WEIGHTS)}-"})
    problem(beyond, 416, "bad_range")
    assert beyond.headers["content-range"] == f"bytes */{len(WEIGHTS)}"
    head = rest.nobody.request("HEAD", url)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(WEIGHTS))


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        (None, None),
        ("bytes=0-", (0, 10)),
        ("bytes=3-5", (3, 6)),
        ("bytes=3-99", (3, 10)),
        ("bytes=-3", (7, 10)),
        ("bytes=-30", (0, 10)),
        ("bytes=5-3", None),
        ("bytes=0-1,3-4", None),
        ("bytes=-", None),
        ("lines=1-2", None),
    ],
)
def test_a_range_is_read_as_the_standard_says(header, wanted):
    assert read_range(header, 10) == wanted


def test_an_output_that_is_gone_or_anothers_has_no_files(rest: Rest):
    job_id, _ = publish(rest, manifest_job="another")
    assert artifacts(rest, job_id) == {}
    assert rest.viewer.get(f"/v1/jobs/{job_id}/metrics").json()["source"] == "journal"


def test_removing_a_job_leaves_its_output_unless_asked(rest: Rest):
    job_id, output = publish(rest)
    url = artifacts(rest, job_id)["model.safetensors"]["url"]
    assert rest.submitter.delete(f"/v1/jobs/{job_id}").status_code == 204
    assert (output / "model.safetensors").exists()
    problem(rest.nobody.get(url), 404)


def test_removing_a_job_with_its_output(rest: Rest):
    job_id, output = publish(rest)
    assert rest.submitter.delete(f"/v1/jobs/{job_id}?output=true").status_code == 204
    assert not (output / "model.safetensors").exists()


def test_an_output_of_another_job_is_never_removed(rest: Rest):
    job_id, output = publish(rest, manifest_job="another")
    assert rest.submitter.delete(f"/v1/jobs/{job_id}?output=true").status_code == 204
    assert (output / "model.safetensors").exists()


def test_metrics_of_a_finished_job_are_thinned_and_narrowed(rest: Rest):
    job_id, _ = publish(rest)
    path = f"/v1/jobs/{job_id}/metrics"
    found = rest.viewer.get(f"{path}?points=11").json()
    assert found["source"] == "output"
    assert len(found["construction"]) == 4
    for item in found["construction"]:
        assert len(item["loss"]["steps"]) == 11
        assert item["loss"]["steps"][0] == 0
        assert item["loss"]["steps"][-1] == 999
        assert item["alignment"]["values"][-1] == 99.9
    narrow = rest.viewer.get(f"{path}?layer=1&expert=b").json()
    assert [(item["layer"], item["expert"]) for item in narrow["construction"]] == [(1, "b")]
    assert [item["layer"] for item in narrow["adaptation"]] == [1]
    assert len(narrow["adaptation"][0]["loss"]["steps"]) == 200
    problem(rest.viewer.get(f"{path}?points=1"), 422, "invalid_request")


def test_metrics_of_a_running_job_come_from_its_journal(rest: Rest):
    job = rest.submitter.submit()
    rest.lead(job["id"], "validating", "running")
    folder = rest.folder / "workspace" / "jobs" / job["id"] / "records"
    folder.mkdir(parents=True)
    for layer, expert in ((1, "a"), (0, "b"), (0, "a")):
        record = UnitRecord(
            unit=f"construct-{layer}-{expert}",
            kind="construct",
            files=(),
            cost=COST,
            worker="w",
            device="cpu",
            construction=construction(layer, expert),
        )
        (folder / f"{record.unit}.json").write_text(record.model_dump_json())
    (folder / "half.json").write_text('{"unit": ')
    found = rest.viewer.get(f"/v1/jobs/{job['id']}/metrics").json()
    assert found["source"] == "journal"
    places = [(item["layer"], item["expert"]) for item in found["construction"]]
    assert places == [(0, "a"), (0, "b"), (1, "a")]
    assert len(found["units"]) == 3


@pytest.mark.parametrize("points", [2, 3, 7, 999, 1000, 5000])
def test_a_thinned_curve_keeps_its_ends_and_order(points: int):
    found = thinned(CURVE, points)
    assert len(found.steps) == min(points, 1000)
    assert found.steps[0] == 0
    assert found.steps[-1] == 999
    assert list(found.steps) == sorted(set(found.steps))
    assert all(value == step / 10 for step, value in zip(found.steps, found.values, strict=True))
