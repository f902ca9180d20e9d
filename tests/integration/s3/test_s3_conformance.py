"""S3 keeps the protocol's promises, alone, fenced and behind the router."""

import uuid
from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite("tests.unit.storage.storage_conformance")

from fda_core.storage.base import Storage  # noqa: E402
from fda_core.storage.resolve import storages  # noqa: E402
from fda_core.storage.s3 import S3Storage  # noqa: E402
from tests.support.seaweed import BUCKET  # noqa: E402
from tests.unit.storage.storage_conformance import StorageConformance  # noqa: E402

FENCED = f"s3://{BUCKET}/fenced"


@pytest.fixture(scope="module")
def fenced() -> Iterator[Storage]:
    made = S3Storage([f"s3://{BUCKET}/other", FENCED])
    yield made
    made.close()


@pytest.fixture(scope="module")
def router() -> Iterator[Storage]:
    made = storages([f"s3://{BUCKET}"])
    yield made
    served = made.storage_for(FENCED)
    assert isinstance(served, S3Storage)
    served.close()


class TestS3Storage(StorageConformance):
    """The storage of `conftest.py`, anywhere in the bucket."""


class TestS3WithinRoots(StorageConformance):
    @pytest.fixture
    def storage(self, fenced: Storage) -> Storage:
        return fenced

    @pytest.fixture
    def root(self) -> str:
        return f"{FENCED}/{uuid.uuid4().hex}"


class TestRouterOnS3(StorageConformance):
    @pytest.fixture
    def storage(self, router: Storage) -> Storage:
        return router
