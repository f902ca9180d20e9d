"""Writes over a line that breaks, writers that die, and many who want one place."""

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from fda_core.errors import FdaError, Forbidden, NotFound, OutputExists, Unavailable
from fda_core.storage import s3, s3_move, s3_write
from fda_core.storage.base import CLAIM
from fda_core.storage.s3 import S3Storage
from tests.support.fault_proxy import FaultProxy, Kind
from tests.support.seaweed import BUCKET
from tests.support.stand_in_processes import until

MIB = 2**20
CONTENT = random.Random(2).randbytes(11 * MIB + 11)
ALWAYS = 10**6


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts as small as S3 takes them; real ones are written in `test_s3_merge.py`."""
    monkeypatch.setattr(s3, "PART_BYTES", 5 * MIB)
    monkeypatch.setattr(s3_write, "PART_BYTES", 5 * MIB)


@pytest.fixture(autouse=True)
def _tidy(storage: S3Storage, root: str) -> Iterator[None]:
    yield
    storage.delete_below(root)


def uploads(storage: S3Storage, root: str) -> list[str]:
    """Return the keys of uploads that were neither completed nor aborted."""
    found: Any = storage._connection.client(root).list_multipart_uploads(
        Bucket=BUCKET, Prefix=root.removeprefix(f"s3://{BUCKET}/")
    )
    return [upload["Key"] for upload in found.get("Uploads", [])]


def write(storage: S3Storage, uri: str, content: bytes = CONTENT) -> None:
    with storage.create(uri) as writer:
        for start in range(0, len(content), 1_500_007):
            writer.write(memoryview(content)[start : start + 1_500_007])
        writer.commit()


def test_a_large_object_goes_out_in_parts(
    through_proxy: S3Storage, storage: S3Storage, proxy: FaultProxy, root: str
) -> None:
    write(through_proxy, f"{root}/a")
    assert proxy.count("PUT", "partNumber") == 3
    assert storage.read(f"{root}/a") == CONTENT
    assert uploads(storage, root) == []


def test_a_small_object_is_one_request(
    through_proxy: S3Storage, proxy: FaultProxy, root: str
) -> None:
    write(through_proxy, f"{root}/a", b"small")
    assert [request.method for request in proxy.requests] == ["PUT"]


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("answer", {"method": "PUT", "status": 503, "code": "SlowDown", "times": 2}),
        ("answer", {"method": "PUT", "status": 500, "times": 2}),
        ("refuse", {"method": "PUT", "times": 2}),
        ("lose", {"method": "PUT", "times": 2}),
        ("refuse", {"method": "POST", "times": 2}),
        ("lose", {"method": "POST", "target": "uploads"}),
        ("lose", {"method": "POST", "target": "uploadId"}),
    ],
)
def test_a_passing_fault_costs_no_byte(
    through_proxy: S3Storage,
    storage: S3Storage,
    proxy: FaultProxy,
    root: str,
    kind: Kind,
    how: dict[str, Any],
) -> None:
    fault = proxy.add(kind, **how)
    write(through_proxy, f"{root}/a")
    assert fault.times == 0
    assert storage.read(f"{root}/a") == CONTENT


@pytest.mark.parametrize(
    ("status", "code", "error"), [(500, "InternalError", Unavailable), (403, "No", Forbidden)]
)
def test_a_lasting_fault_leaves_nothing(
    connect: Callable[..., S3Storage],
    proxy: FaultProxy,
    storage: S3Storage,
    root: str,
    status: int,
    code: str,
    error: type[FdaError],
) -> None:
    proxy.add("answer", method="PUT", target="partNumber=2", status=status, code=code, times=ALWAYS)
    with pytest.raises(error, match=f"{root}/a"):
        write(connect(tries=3), f"{root}/a")
    assert list(storage.list(root)) == []
    assert uploads(storage, root) == []


def test_a_completion_refused_leaves_nothing(
    through_proxy: S3Storage, storage: S3Storage, proxy: FaultProxy, root: str
) -> None:
    proxy.add("answer", method="POST", target="uploadId", status=404, code="NoSuchUpload")
    with pytest.raises(NotFound, match=f"{root}/a"):
        write(through_proxy, f"{root}/a")
    assert list(storage.list(root)) == []


def test_a_completion_whose_answer_was_lost_counts(
    through_proxy: S3Storage, storage: S3Storage, proxy: FaultProxy, root: str
) -> None:
    """S3 then knows the upload no more: only the object itself tells that it is ours."""
    proxy.add("lose", method="POST", target="uploadId")
    proxy.add("answer", method="POST", target="uploadId", status=404, code="NoSuchUpload")
    with through_proxy.create(f"{root}/a") as writer:
        writer.write(CONTENT)
        info = writer.commit()
    assert storage.read(f"{root}/a") == CONTENT
    assert info == storage.stat(f"{root}/a")


def test_leaving_a_large_write_aborts_it(storage: S3Storage, root: str) -> None:
    with storage.create(f"{root}/a") as writer:
        writer.write(CONTENT)
        assert uploads(storage, root) != []
    assert uploads(storage, root) == []
    assert list(storage.list(root)) == []


def test_a_killed_writer_leaves_no_object(storage: S3Storage, root: str) -> None:
    code = (
        "import os, signal; from fda_core.storage.s3 import S3Storage\n"
        f"with S3Storage().create('{root}/a') as writer:\n"
        f"    writer.write(bytes(40 * 2**20)); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=60, env=os.environ)
    assert done.returncode == -signal.SIGKILL
    assert not storage.exists(root)
    assert uploads(storage, root) != []
    storage.delete_below(root)
    assert uploads(storage, root) == []


def test_of_sixteen_putting_if_absent_one_wins(storage: S3Storage, root: str) -> None:
    start = threading.Barrier(16)

    def contend(number: int) -> tuple[bool, bytes]:
        mine = f"{number:03}".encode() * 1000
        start.wait()
        return storage.put(f"{root}/a", mine, if_absent=True), mine

    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(contend, range(16)))
    assert [mine for won, mine in results if won] == [storage.read(f"{root}/a")]


@pytest.mark.parametrize(("before", "won"), [(None, True), (b"other", False)])
def test_put_if_absent_knows_its_own_when_the_answer_is_lost(
    through_proxy: S3Storage,
    storage: S3Storage,
    proxy: FaultProxy,
    root: str,
    before: bytes | None,
    won: bool,
) -> None:
    if before is not None:
        storage.put(f"{root}/a", before)
    proxy.add("lose", method="PUT")
    assert through_proxy.put(f"{root}/a", b"mine", if_absent=True) is won
    assert proxy.count("PUT") == 2
    assert storage.read(f"{root}/a") == (b"mine" if won else before)


def test_a_conflict_of_conditional_writes_is_tried_again(
    through_proxy: S3Storage, proxy: FaultProxy, root: str
) -> None:
    proxy.add("answer", method="PUT", status=409, code="ConditionalRequestConflict", times=2)
    assert through_proxy.put(f"{root}/a", b"x", if_absent=True) is True
    assert proxy.count("PUT") == 3


def test_a_missing_bucket_is_named_when_written_to(
    through_proxy: S3Storage, proxy: FaultProxy, root: str
) -> None:
    proxy.add("answer", method="PUT", status=404, code="NoSuchBucket")
    with pytest.raises(NotFound, match=f"no bucket '{BUCKET}'"):
        through_proxy.put(f"{root}/a", b"x")


def test_more_than_a_page_is_listed_and_removed(storage: S3Storage, root: str) -> None:
    given = {f"{root}/{number:04}": b"" for number in range(1005)}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda uri: storage.put(uri, b""), given))
    assert [info.uri for info in storage.list(root)] == list(given)
    storage.delete_below(root)
    assert not storage.exists(root)


def test_removals_refused_one_by_one_are_tried_again(
    through_proxy: S3Storage, storage: S3Storage, proxy: FaultProxy, root: str
) -> None:
    storage.put(f"{root}/a", b"x")
    fault = proxy.add("answer", method="POST", target="delete", status=503, code="SlowDown")
    through_proxy.delete_below(root)
    assert fault.times == 0
    assert not storage.exists(root)


# publishing

FILES = {
    "config.json": b"{}",
    "heads/a/config.json": b"not the model's",
    "merge_manifest.json": b"{}",
    "model-00001-of-00002.safetensors": b"1" * 1000,
    "model-00002-of-00002.safetensors": b"2" * 1000,
    "model.safetensors.index.json": b"{}",
    "tokenizer.json": b"{}",
}
"""A sharded checkpoint as it is staged."""


def stage(storage: S3Storage, root: str) -> tuple[str, str]:
    for name, data in FILES.items():
        storage.put(f"{root}/staging/{name}", data)
    return f"{root}/staging", f"{root}/out"


def content(storage: S3Storage, uri: str) -> dict[str, bytes]:
    return {info.uri[len(uri) + 1 :]: storage.read(info.uri) for info in storage.list(uri)}


def copies(proxy: FaultProxy) -> list[str]:
    copied = [r for r in proxy.requests if r.get("x-amz-copy-source")]
    return [request.target.partition("/out/")[2].partition("?")[0] for request in copied]


def test_what_makes_loadable_is_published_last(
    through_proxy: S3Storage, storage: S3Storage, proxy: FaultProxy, root: str
) -> None:
    staging, target = stage(storage, root)
    through_proxy.move_into_place(staging, target)
    assert content(storage, target) == FILES
    assert not storage.exists(staging)
    assert sorted(copies(proxy)) == sorted(FILES)
    assert copies(proxy)[-3:] == [
        "config.json",
        "model.safetensors.index.json",
        "merge_manifest.json",
    ]


@pytest.mark.parametrize("at", sorted(FILES))
def test_a_move_that_broke_is_repeated_and_goes_on(
    through_proxy: S3Storage, storage: S3Storage, proxy: FaultProxy, root: str, at: str
) -> None:
    staging, target = stage(storage, root)
    proxy.add("answer", method="PUT", target=f"/out/{at}", status=403, code="AccessDenied")
    with pytest.raises(Forbidden):
        through_proxy.move_into_place(staging, target)
    there = content(storage, target)
    assert there[CLAIM] == staging.encode()
    assert "merge_manifest.json" not in there
    assert not {"config.json", "model-00002-of-00002.safetensors"} <= set(there) or (
        "tokenizer.json" in there
    )
    assert content(storage, staging) == FILES
    through_proxy.move_into_place(staging, target)
    assert content(storage, target) == FILES
    assert not storage.exists(staging)


def test_a_target_another_job_publishes_to_is_refused(storage: S3Storage, root: str) -> None:
    staging, target = stage(storage, root)
    storage.put(f"{target}/{CLAIM}", f"{root}/other".encode())
    with pytest.raises(OutputExists, match=f"{root}/other"):
        storage.move_into_place(staging, target)
    assert content(storage, target) == {CLAIM: f"{root}/other".encode()}


def test_of_many_jobs_one_publishes(storage: S3Storage, root: str) -> None:
    jobs = [f"{root}/staging-{number}" for number in range(6)]
    for job in jobs:
        for name in ("a", "b", "config.json"):
            storage.put(f"{job}/{name}", job.encode())

    def publish(job: str) -> bool:
        try:
            storage.move_into_place(job, f"{root}/out")
        except OutputExists:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        won = [job for job, ok in zip(jobs, pool.map(publish, jobs), strict=True) if ok]
    assert len(won) == 1
    there = content(storage, f"{root}/out")
    assert there == dict.fromkeys(("a", "b", "config.json"), won[0].encode())


@pytest.mark.parametrize(("staging", "target"), [("a", "a/b"), ("a/b", "a"), ("a", "a")])
def test_moves_into_oneself_are_refused(
    storage: S3Storage, root: str, staging: str, target: str
) -> None:
    storage.put(f"{root}/a/b/c", b"x")
    with pytest.raises(Forbidden):
        storage.move_into_place(f"{root}/{staging}", f"{root}/{target}")
    assert content(storage, root) == {"a/b/c": b"x"}


def test_large_objects_are_copied_in_parts(
    through_proxy: S3Storage,
    storage: S3Storage,
    proxy: FaultProxy,
    root: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(s3_move, "WHOLE_BYTES", 2 * MIB)
    monkeypatch.setattr(s3_move, "_PART_BYTES", 5 * MIB)
    storage.put(f"{root}/staging/large", CONTENT)
    storage.put(f"{root}/staging/small", b"x")
    fault = proxy.add("answer", method="PUT", target="partNumber=2", status=503, code="SlowDown")
    through_proxy.move_into_place(f"{root}/staging", f"{root}/out")
    assert fault.times == 0
    assert content(storage, f"{root}/out") == {"large": CONTENT, "small": b"x"}
    assert copies(proxy).count("large") == 4  # three parts, one of them twice
    assert uploads(storage, root) == []


def test_a_copy_in_parts_that_fails_is_aborted(
    through_proxy: S3Storage,
    storage: S3Storage,
    proxy: FaultProxy,
    root: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(s3_move, "WHOLE_BYTES", 2 * MIB)
    monkeypatch.setattr(s3_move, "_PART_BYTES", 5 * MIB)
    storage.put(f"{root}/staging/large", CONTENT)
    proxy.add("answer", method="PUT", target="partNumber=2", status=403, code="AccessDenied")
    with pytest.raises(Forbidden, match="out/large"):
        through_proxy.move_into_place(f"{root}/staging", f"{root}/out")
    assert uploads(storage, root) == []
    assert storage.read(f"{root}/staging/large") == CONTENT


def test_parts_that_a_killed_move_left_go_when_it_is_repeated(
    storage: S3Storage,
    proxy: FaultProxy,
    root: str,
) -> None:
    storage.put(f"{root}/staging/large", CONTENT)
    proxy.add("stall", method="PUT", target="partNumber=2")
    code = (
        "from fda_core.storage import s3_move; from fda_core.storage.s3 import S3Storage\n"
        f"s3_move.WHOLE_BYTES, s3_move._PART_BYTES = {2 * MIB}, {5 * MIB}\n"
        f"S3Storage().move_into_place('{root}/staging', '{root}/out')"
    )
    killed = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "AWS_ENDPOINT_URL": proxy.url}
    )
    try:
        until(lambda: proxy.count("PUT", "partNumber=2"), "the second part is on its way")
    finally:
        killed.kill()
        killed.wait()
    assert uploads(storage, root) != []
    storage.move_into_place(f"{root}/staging", f"{root}/out")
    assert content(storage, f"{root}/out") == {"large": CONTENT}
    assert uploads(storage, root) == []
