"""What S3 storage refuses before it connects to anything, and its arithmetic."""

import os
import re
import subprocess
import sys

import pytest

from fda_core.errors import BadParameter, FdaError, Forbidden, NotFound, UnsupportedScheme
from fda_core.storage.resolve import storages
from fda_core.storage.s3 import S3Storage
from fda_core.storage.s3_connection import S3Settings, make_client
from fda_core.storage.s3_places import Fence
from fda_core.storage.s3_write import PART_BYTES, part_bytes


@pytest.fixture(autouse=True)
def _nothing_around(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")


@pytest.mark.parametrize(
    "uri",
    ["s3://bucket", "s3://bucket/b", "s3://bucket/ab/c", "s3://other/a", "s3://bucket-2/a/x"],
)
def test_addresses_outside_the_roots_are_refused(uri: str) -> None:
    storage = S3Storage(["s3://bucket/a"])
    for call in (storage.stat, storage.exists, storage.read, storage.delete, storage.delete_below):
        with pytest.raises(Forbidden, match=uri):
            call(uri)
    with pytest.raises(Forbidden):
        storage.put(uri, b"")
    with pytest.raises(Forbidden):
        list(storage.list(uri))
    with pytest.raises(Forbidden), storage.create(uri):
        pass
    with pytest.raises(Forbidden):
        storage.move_into_place(uri, "s3://bucket/a/x")
    with pytest.raises(Forbidden):
        storage.move_into_place("s3://bucket/a/x", uri)


def test_an_address_outside_the_roots_is_not_signed() -> None:
    with pytest.raises(Forbidden):
        S3Storage(["s3://bucket/a"]).signed_url("s3://bucket/b", seconds=9)


def test_addresses_are_signed_with_version_4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-a-secret")
    settings = S3Settings(endpoint_url="http://127.0.0.1:1", region="us-east-1")
    storage = S3Storage(["s3://bucket/a"], settings=settings)
    url = storage.signed_url("s3://bucket/a/b c", seconds=77)
    assert url.startswith("http://127.0.0.1:1/bucket/a/b%20c?")
    assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in url
    assert "X-Amz-Expires=77" in url
    storage.close()


def test_no_roots_allow_nothing() -> None:
    with pytest.raises(Forbidden):
        storages([]).exists("s3://bucket/a")


@pytest.mark.parametrize("uri", ["s3://bucket/a/../b", "s3://b//k", "s3:///k", "/disk/a", "s3://"])
def test_odd_addresses_are_refused(uri: str) -> None:
    with pytest.raises(Forbidden):
        Fence(None).place(uri)


@pytest.mark.parametrize("root", ["bucket/a", "/disk", "s3://bucket/a/", "s3://bucket/../x"])
def test_odd_roots_are_refused(root: str) -> None:
    with pytest.raises(FdaError) as caught:
        S3Storage([root])
    assert isinstance(caught.value, (BadParameter, UnsupportedScheme))


def test_a_whole_bucket_is_no_object() -> None:
    storage = S3Storage()
    for call in (storage.read, storage.delete, lambda uri: storage.put(uri, b"")):
        with pytest.raises(Forbidden, match="bucket"):
            call("s3://bucket")
    with pytest.raises(NotFound):
        storage.stat("s3://bucket")


def test_free_space_is_unknown() -> None:
    assert S3Storage().free_space("s3://bucket/a") is None


def test_without_boto3_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(UnsupportedScheme, match="need boto3") as caught:
        S3Storage().exists("s3://bucket/a")
    assert caught.value.hint == "pip install 'fda-merge[s3]'"


def test_nothing_of_boto3_is_imported_before_the_first_request() -> None:
    code = (
        "import sys; from fda_core.storage.resolve import storages; "
        "storages().storage_for('s3://bucket/a'); "
        "sys.exit(any(name.startswith(('boto', 'urllib3')) for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_no_credentials_are_refused_at_once() -> None:
    pytest.importorskip("boto3")
    storage = S3Storage(settings=S3Settings(endpoint_url="http://127.0.0.1:9"))
    with pytest.raises(Forbidden, match="no credentials") as caught:
        storage.stat("s3://bucket/a")
    assert caught.value.hint is not None
    assert "AWS_PROFILE" in caught.value.hint
    storage.close()


def test_a_missing_profile_is_refused_at_once() -> None:
    pytest.importorskip("boto3")
    with pytest.raises(Forbidden, match="no such profile"):
        S3Storage(settings=S3Settings(profile="nobody")).stat("s3://bucket/a")


def test_a_bad_endpoint_is_refused_at_once() -> None:
    pytest.importorskip("boto3")
    with pytest.raises(Forbidden, match="endpoint"):
        S3Storage(settings=S3Settings(endpoint_url="here")).stat("s3://bucket/a")


@pytest.mark.parametrize("by", ["argument", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_other_services_get_paths_and_version_4(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("boto3")
    url = "https://store.example:9000"
    if by != "argument":
        monkeypatch.setenv(by, url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    client = make_client(S3Settings(endpoint_url=url if by == "argument" else None))
    signed = client.generate_presigned_url("get_object", Params={"Bucket": "b", "Key": "k"})
    client.close()
    assert signed.startswith(f"{url}/b/k?X-Amz-Algorithm=AWS4")


def test_amazon_gets_bucket_host_names(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("boto3")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    client = make_client(S3Settings(region="eu-west-1"))
    signed = client.generate_presigned_url("get_object", Params={"Bucket": "b-b", "Key": "k"})
    client.close()
    assert re.match(r"https://b-b\.s3\.[a-z0-9.-]*amazonaws\.com/k\?X-Amz-Algorithm=AWS4", signed)


def test_ten_thousand_parts_hold_most_of_a_terabyte() -> None:
    assert part_bytes(1) == part_bytes(2000) == PART_BYTES
    assert part_bytes(2001) == 2 * PART_BYTES
    sizes = [part_bytes(number) for number in range(1, 10_001)]
    assert sizes == sorted(sizes)
    assert max(sizes) <= 5 * 2**30
    assert sum(sizes) > 900 * 2**30
