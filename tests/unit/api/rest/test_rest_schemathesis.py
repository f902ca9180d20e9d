"""Schemathesis over our own document: no 5xx, no undeclared status, the types that are said."""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from tests.support.rest import Rest

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
]
NEEDS_BROKER = "^/v1/(workers|queues)|^/readyz"
"""They answer 503 without one, which is declared; tested with a real one elsewhere."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rest]:
    folder = tmp_path_factory.mktemp("schemathesis")
    made = Rest(folder, f"sqlite:///{folder / 'fda.db'}", max_active_jobs_per_team=100_000)
    with made.client:
        yield made
    made.database.close()


def test_every_answer_is_as_declared(service: Rest):
    loaded = schemathesis.openapi.from_asgi("/openapi.json", service.app)
    headers = {"Authorization": f"Bearer {service.keys['admin']}"}
    tried = 0
    for result in loaded.exclude(path_regex=NEEDS_BROKER).get_all_operations():
        operation = result.ok()

        @given(case=operation.as_strategy())
        @settings(
            max_examples=12,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def check(case: Any) -> None:
            if "job_id" in (case.path_parameters or {}):
                case.path_parameters["job_id"] = service.submitter.submit()["id"]
            if isinstance((case.query or {}).get("wait"), (int, float)):
                case.query["wait"] = 0  # a minute's wait is as declared, and tested elsewhere
            case.call_and_validate(headers=headers, checks=CHECKS)

        check()
        tried += 1
    assert tried > 25
