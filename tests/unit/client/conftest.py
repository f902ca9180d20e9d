"""A fake service over real HTTP, and a client that does not wait long."""

from collections.abc import Iterator

import pytest

from fda_core.client import Client
from fda_core.client.retries import Retries
from tests.support.fake_service import KEY, FakeService, World

QUICK = Retries(patience_seconds=3.0, first_wait_seconds=0.01, longest_wait_seconds=0.05)


@pytest.fixture(scope="session")
def running_service() -> Iterator[FakeService]:
    with FakeService().running() as service:
        yield service


@pytest.fixture
def service(running_service: FakeService) -> FakeService:
    running_service.worlds.append(World())
    return running_service


@pytest.fixture
def world(service: FakeService) -> World:
    return service.world


@pytest.fixture
def client(service: FakeService) -> Iterator[Client]:
    with Client(service.url, KEY, retries=QUICK) as made:
        yield made
