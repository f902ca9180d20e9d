"""Reads over a line that breaks: right bytes in the end, or an error that says what broke."""

import multiprocessing
import os
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from fda_core.errors import ChangedInput, FdaError, Forbidden, NotFound, Unavailable
from fda_core.storage import s3, s3_read
from fda_core.storage.s3 import S3Storage
from fda_core.storage.s3_connection import S3Settings
from tests.integration.s3.conftest import QUICK
from tests.support.fault_proxy import FaultProxy, Kind
from tests.support.seaweed import BUCKET, SECRET

MIB = 2**20
CONTENT = random.Random(1).randbytes(7 * MIB + 12_345)
SMALL = CONTENT[: 2 * MIB]
ALWAYS = 10**6
STALL_SECONDS = 0.4

Connect = Callable[..., S3Storage]


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four connections for the large object; real pieces are read in `test_s3_merge.py`."""
    monkeypatch.setattr(s3, "PIECE_BYTES", 2 * MIB)
    monkeypatch.setattr(s3_read, "PIECE_BYTES", 2 * MIB)


@pytest.fixture
def uri(storage: S3Storage, root: str) -> Iterator[str]:
    """An object that is read in one request."""
    storage.put(f"{root}/small", SMALL)
    yield f"{root}/small"
    storage.delete_below(root)


@pytest.fixture
def large(storage: S3Storage, root: str) -> Iterator[str]:
    """An object that is read over several connections."""
    storage.put(f"{root}/large", CONTENT)
    yield f"{root}/large"
    storage.delete_below(root)


@pytest.fixture
def impatient(connect: Connect) -> S3Storage:
    """The storage behind the proxy, giving up after three tries."""
    return connect(tries=3)


def filled(storage: S3Storage, uri: str, size: int, *, start: int = 0, etag: str | None = None):
    buffer = bytearray(size)
    storage.read_into(uri, memoryview(buffer), start=start, etag=etag)
    return buffer


def _hurry(kind: Kind) -> dict[str, float]:
    return {"read_timeout_seconds": STALL_SECONDS} if kind == "stall" else {}


FAULTS: list[tuple[Kind, dict[str, object]]] = [
    ("cut", {"after": 0}),
    ("cut", {"after": 600_000, "times": 3}),
    ("reset", {"after": 600_000, "times": 3}),
    ("stall", {"after": 0}),
    ("stall", {"after": 600_000}),
    ("refuse", {"times": 3}),
    ("answer", {"status": 500, "times": 3}),
    ("answer", {"status": 503, "code": "SlowDown", "times": 3}),
    ("answer", {"status": 502, "code": "BadGateway"}),
    ("lengthen", {"after": 5_000}),
    ("lengthen", {"after": -5_000}),
    ("lose", {}),
    ("delay", {"seconds": 0.2}),
]


@pytest.mark.parametrize(("kind", "how"), FAULTS)
def test_a_passing_fault_costs_no_byte(
    connect: Connect, proxy: FaultProxy, uri: str, kind: Kind, how: dict[str, object]
) -> None:
    through_proxy = connect(**_hurry(kind))
    etag = through_proxy.stat(uri).etag
    into = proxy.add(kind, **how)
    assert filled(through_proxy, uri, len(SMALL) - 10, start=7, etag=etag) == SMALL[7:-3]
    assert into.times == 0
    whole = proxy.add(kind, **how)
    assert through_proxy.read(uri) == SMALL
    assert whole.times == 0


@pytest.mark.parametrize(("kind", "how"), FAULTS[:9])
def test_a_large_read_survives_faults_on_every_connection(
    connect: Connect, proxy: FaultProxy, large: str, kind: Kind, how: dict[str, object]
) -> None:
    through_proxy = connect(**_hurry(kind))
    fault = proxy.add(kind, **{**how, "times": 3})
    assert filled(through_proxy, large, len(CONTENT)) == CONTENT
    assert fault.times == 0


@pytest.mark.parametrize(
    ("kind", "how", "words"),
    [
        ("cut", {"after": 1000}, "cut"),
        ("reset", {"after": 1000}, "cut"),
        ("stall", {"after": 1000}, "no more bytes"),
        ("refuse", {}, "closed"),
        ("answer", {"status": 503, "code": "SlowDown"}, "SlowDown"),
        ("answer", {"status": 500}, "InternalError"),
        ("lengthen", {"after": -5_000}, "promises"),
    ],
)
def test_a_lasting_fault_is_named(
    connect: Connect,
    proxy: FaultProxy,
    uri: str,
    kind: Kind,
    how: dict[str, object],
    words: str,
) -> None:
    impatient = connect(tries=3, **_hurry(kind))
    proxy.add(kind, times=ALWAYS, **how)
    for read in (
        lambda: impatient.read(uri),
        lambda: filled(impatient, uri, len(SMALL)),
    ):
        with pytest.raises(Unavailable, match=uri) as caught:
            read()
        assert words in caught.value.message
        assert "gave up after 3 tries" in caught.value.message
        assert caught.value.hint


def test_a_lasting_fault_ends_a_large_read(
    impatient: S3Storage, proxy: FaultProxy, large: str
) -> None:
    proxy.add("cut", times=ALWAYS, after=1000)
    with pytest.raises(Unavailable, match=large):
        filled(impatient, large, len(CONTENT))


def test_a_line_that_cuts_again_and_again_still_delivers(
    impatient: S3Storage, proxy: FaultProxy, large: str
) -> None:
    proxy.add("cut", times=ALWAYS, after=MIB // 4)
    assert filled(impatient, large, len(CONTENT)) == CONTENT
    assert proxy.count("GET") >= 20


def test_a_cut_body_goes_on_where_it_ended(
    through_proxy: S3Storage, proxy: FaultProxy, uri: str
) -> None:
    proxy.add("cut", after=1_000_000)
    through_proxy.read(uri)
    ranges = [r.get("range") or "" for r in proxy.requests if r.method == "GET"]
    starts = [int(given.removeprefix("bytes=").split("-")[0]) for given in ranges]
    assert starts[0] == 0
    assert starts[1:] == [pytest.approx(875_000, abs=150_000)]


@pytest.mark.parametrize("pinned", [True, False])
def test_an_object_replaced_while_it_is_read_is_changed_input(
    through_proxy: S3Storage, storage: S3Storage, proxy: FaultProxy, uri: str, pinned: bool
) -> None:
    etag = storage.stat(uri).etag if pinned else None
    proxy.add("cut", after=MIB, then=lambda: storage.put(uri, SMALL[::-1]))
    with pytest.raises(ChangedInput, match=uri):
        filled(through_proxy, uri, len(SMALL), etag=etag)


def test_a_large_object_replaced_while_it_is_read_is_changed_input(
    through_proxy: S3Storage, storage: S3Storage, proxy: FaultProxy, large: str
) -> None:
    proxy.add("cut", after=MIB, then=lambda: storage.put(large, b"other"))
    with pytest.raises(ChangedInput, match=large):
        filled(through_proxy, large, len(CONTENT))


@pytest.mark.parametrize("size", [len(SMALL) + 1, len(CONTENT)])
def test_an_object_cut_off_is_changed_input(storage: S3Storage, uri: str, size: int) -> None:
    with pytest.raises(ChangedInput, match=uri):
        filled(storage, uri, size)


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_looking_survives_slow_down(
    through_proxy: S3Storage, proxy: FaultProxy, root: str, uri: str, method: str
) -> None:
    fault = proxy.add("answer", method=method, status=503, code="SlowDown", times=2)
    assert through_proxy.exists(uri)
    assert [info.uri for info in through_proxy.list(root)] == [uri]
    assert through_proxy.stat(uri).size_bytes == len(SMALL)
    assert fault.times == 0


def test_a_refusal_is_not_tried_again(
    through_proxy: S3Storage, proxy: FaultProxy, uri: str
) -> None:
    proxy.add("answer", status=403, code="AccessDenied", times=ALWAYS)
    with pytest.raises(Forbidden, match="AccessDenied"):
        through_proxy.read(uri)
    assert proxy.count("GET") == 1


def test_unused_connections_are_kept(through_proxy: S3Storage, uri: str) -> None:
    """A body read to its end gives its connection back: the second read is much alike."""
    through_proxy.read(uri)
    client = through_proxy._connection.client(uri)
    pools = client._endpoint.http_session._manager.pools
    through_proxy.read(uri)
    through_proxy.stat(uri)
    (pool,) = (pools[key] for key in pools.keys())  # noqa: SIM118 - not a dict
    assert pool.num_connections == 1


def test_nobody_listening_is_unavailable_and_says_where() -> None:
    retry = replace(QUICK, tries=2)
    storage = S3Storage(settings=S3Settings(endpoint_url="http://127.0.0.1:9", retry=retry))
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:9"):
        storage.stat("s3://bucket/a")
    storage.close()


@pytest.mark.parametrize(
    ("name", "value"),
    [("AWS_ACCESS_KEY_ID", "nobody"), ("AWS_SECRET_ACCESS_KEY", "wr0ng-s3cr3t")],
)
def test_wrong_credentials_are_refused(
    monkeypatch: pytest.MonkeyPatch, uri: str, root: str, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    storage = S3Storage()
    for call in (
        lambda: storage.stat(uri),
        lambda: storage.read(uri),
        lambda: list(storage.list(root)),
        lambda: storage.put(uri, b""),
        lambda: storage.delete_below(root),
    ):
        with pytest.raises(Forbidden) as caught:
            call()
        told = str(caught.value.as_dict())
        assert not {value, SECRET} & set(told.split("'"))
        assert "wr0ng" not in told
        assert "AWS_ACCESS_KEY_ID" in told or "credentials" in told
    storage.close()


def test_a_missing_bucket_is_named(storage: S3Storage) -> None:
    uri = "s3://no-such-bucket-here/a"
    buffer = memoryview(bytearray(1))
    for call in (
        lambda: storage.stat(uri),
        lambda: storage.exists(uri),
        lambda: storage.read(uri),
        lambda: list(storage.list(uri)),
        lambda: storage.read_into(uri, buffer, start=0),
    ):
        with pytest.raises(NotFound, match="there is no bucket 'no-such-bucket-here'"):
            call()


def test_a_name_no_bucket_can_have_is_not_found(storage: S3Storage) -> None:
    with pytest.raises(NotFound, match="Not_A_Bucket!"):
        storage.stat("s3://Not_A_Bucket!/a")


def test_many_large_reads_at_once(storage: S3Storage, large: str) -> None:
    with ThreadPoolExecutor(6) as pool:
        results = pool.map(lambda _: filled(storage, large, len(CONTENT)) == CONTENT, range(6))
        assert all(results)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_another_process_makes_its_own_connections(
    storage: S3Storage, large: str, method: str
) -> None:
    assert filled(storage, large, len(CONTENT)) == CONTENT
    given = storage if method == "fork" else None
    child = multiprocessing.get_context(method).Process(target=_read_all, args=(given, large))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert filled(storage, large, len(CONTENT)) == CONTENT


def _read_all(storage: S3Storage | None, uri: str) -> None:
    os._exit(0 if filled(storage or S3Storage(), uri, len(CONTENT)) == CONTENT else 1)


def test_nothing_writes_to_the_buffer_after_an_error(
    impatient: S3Storage, proxy: FaultProxy, large: str
) -> None:
    """One range is refused while others are slow: they end before the error is raised."""
    proxy.add("answer", status=403, code="AccessDenied", skip=1)
    proxy.add("delay", seconds=0.15, times=ALWAYS)
    buffer = bytearray(len(CONTENT))
    with pytest.raises(FdaError):
        impatient.read_into(large, memoryview(buffer), start=0, etag=None)
    before = bytes(buffer)
    time.sleep(0.4)
    assert buffer == before


def test_the_bucket_of_these_tests_is_there(storage: S3Storage) -> None:
    assert not storage.exists(f"s3://{BUCKET}/nothing")
