"""What databases and logs cannot keep is told by what it is."""

import json

import pytest

from fda_core.contract.storable import stored_text


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"a": float("nan")}, "NaN or infinity"),
        ([1, [-float("inf")]], "NaN or infinity"),
        ({"a\ud800": 1}, "half a character"),
        ("a\0b", "NUL"),
        ({"\0": 1}, "NUL"),
        (json.loads("[" * 500 + "]" * 500), None),
        ("\\u0000 and \\\\u0000 stand for nothing", None),
        ({"é": "𝄞", "n": 1e308}, None),
    ],
)
def test_what_cannot_be_kept_is_named_and_all_else_is_kept(value: object, said: str | None) -> None:
    if said is None:
        assert json.loads(stored_text(value)) == value
    else:
        with pytest.raises(ValueError, match=said):
            stored_text(value)


def test_lists_in_lists_without_end_are_no_crash() -> None:
    value: list[object] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(ValueError, match="too deeply"):
        stored_text(value)
