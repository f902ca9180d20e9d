"""The error tree: stable codes, one exit code each, nothing lost between processes."""

import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from fda_core import errors
from fda_core.cli.exit_codes import EXIT_CODES, exit_code, exit_code_of

README = Path(__file__).parents[2] / "README.md"


def _classes(root: type = errors.FdaError) -> Iterator[type[errors.FdaError]]:
    for kind in root.__subclasses__():
        if kind.__module__ == errors.__name__:
            yield kind
            yield from _classes(kind)


ALL = sorted(set(_classes()), key=lambda kind: kind.__name__)


def test_codes_are_unique():
    codes = [kind.code for kind in ALL]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("kind", ALL)
def test_every_class_has_an_exit_code_that_the_readme_explains(kind):
    assert any(issubclass(kind, branch) for branch in EXIT_CODES), "add its branch to EXIT_CODES"
    assert f"| {exit_code(kind('x'))} |" in README.read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ALL)
def test_an_error_crosses_processes_with_hint_and_context(kind):
    sent = kind("what", hint="do", tensor="t", numbers=[1, 2])
    got = pickle.loads(pickle.dumps(sent))
    assert type(got) is kind
    assert got.as_dict() == sent.as_dict()
    assert got.hint == "do"


def test_context_keeps_its_shape_as_plain_data():
    told = errors.BatchInvalid("2 of 3", errors=[{"pointer": "/recipes/1", "at": Path("/x")}])
    assert told.as_dict()["context"] == {"errors": [{"pointer": "/recipes/1", "at": "/x"}]}


def test_exit_codes_are_those_promised():
    numbers = {kind.__name__: exit_code(kind("x")) for kind in EXIT_CODES}
    assert numbers == {
        "RecipeError": 2,
        "CheckpointError": 3,
        "StorageError": 4,
        "NumericsError": 5,
        "ResourceError": 6,
        "JobError": 7,
        "ServiceError": 7,
        "BatchError": 2,
        "UnknownBatch": 7,
        "BatchNotOver": 7,
        "BatchOver": 7,
        "ScheduleError": 2,
        "UnknownSchedule": 7,
        "StaleSchedule": 7,
        "WebhookError": 2,
        "UnknownWebhook": 7,
        "UnknownDelivery": 7,
        "WebhookDisabled": 7,
        "InternalError": 70,
    }


def test_what_a_service_answered_ends_like_the_same_error_made_here():
    assert exit_code(errors.ServiceError("x", code="non_finite")) == 5
    assert exit_code(errors.ServiceError("x", code="a_code_of_tomorrow")) == 7
    assert exit_code_of("out_of_disk") == 6
    assert exit_code_of("a_code_of_tomorrow") == 70


def test_the_answers_code_crosses_processes():
    sent = errors.ServiceError("x", code="quota", blame="user", retryable=True, status=429)
    got = pickle.loads(pickle.dumps(sent))
    assert got.as_dict() == sent.as_dict()
    assert (got.code, got.retryable, got.context["status"]) == ("quota", True, 429)
    assert errors.ServiceError("x").code == "service_error"


def test_cancelling_is_no_error():
    assert not issubclass(errors.Cancelled, errors.FdaError)
