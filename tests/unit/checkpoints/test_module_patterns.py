"""rank_pattern and alpha_pattern: PEFT's rule, without expressions that never end."""

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fda_core.checkpoints.module_patterns import ModulePatterns
from fda_core.errors import UnsupportedAdapter

MODULE = "bert.encoder.layer.1.attention.self.query"


def lookup(module: str, table: dict[str, float]) -> float:
    return ModulePatterns(table, default=-1.0, key="rank_pattern", where="here")(module)


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("query", True),
        ("self.query", True),
        (MODULE, True),
        (f"^{MODULE}", True),
        (r"layer\.[01]\..*query", True),
        (r"layer\.\d+\.attention\.self\.(query|value)", True),
        (r"(?:key|query)", True),
        ("uery", False),
        ("self", False),
        (r"layer\.2\..*", False),
        ("", False),
    ],
)
def test_a_pattern_is_for_the_end_of_a_path_at_a_dot(pattern: str, matches: bool) -> None:
    assert (lookup(MODULE, {pattern: 1.0}) == 1.0) is matches


def test_the_first_pattern_that_matches_counts() -> None:
    assert lookup(MODULE, {"key": 1.0, "query": 2.0, "self.query": 3.0}) == 2.0


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+",
        "(a|a)*",
        "(.*)+x",
        r"(.)\1",
        "(?=a)b",
        "(a){9}",
        ".*.*.*",
        "a" * 301,
        "[",
        "[[a]",
        "[a--b]",
    ],
)
def test_an_expression_that_could_run_for_ever_is_refused(pattern: str) -> None:
    with pytest.raises(UnsupportedAdapter, match="rank_pattern"):
        lookup(MODULE, {pattern: 1.0})


@given(st.text(alphabet="ab.*+?()[]|{}1,-^&~\\", max_size=14))
def test_whatever_is_taken_ends_soon(pattern: str) -> None:
    began = time.monotonic()
    with contextlib.suppress(UnsupportedAdapter):
        lookup("a" * 200 + "." + "b" * 100, {pattern: 1.0})
    assert time.monotonic() - began < 2


def test_patterns_match_as_those_of_the_peft_library() -> None:
    other = pytest.importorskip("peft.utils.other", reason="needs the peft library to compare")
    tables = [["query"], ["self.query", "query"], [r".*layer\.1\..*"], ["^bert"], ["key", ""]]
    for keys in tables:
        key = other.get_pattern_key(keys, MODULE)
        table = {text: float(place) for place, text in enumerate(keys)}
        assert lookup(MODULE, table) == table.get(key, -1.0)
