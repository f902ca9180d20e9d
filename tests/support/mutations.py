"""Sound documents, broken in ways that know what they break: hypothesis strategies of JSON text."""

import json
from typing import Any, NamedTuple

from hypothesis import strategies as st

DEEP = 2000


class Raw(NamedTuple):
    """Text that stands in a document as it is."""

    text: str


class Twice(NamedTuple):
    """A value whose key is given twice."""

    value: Any


NESTED = Raw("[" * DEEP + "]" * DEEP)
NESTED_OBJECTS = Raw('{"a":' * DEEP + "1" + "}" * DEEP)
NESTED_A_LITTLE = Raw("[" * 300 + "]" * 300)
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, -1, 1, 2**31, 2**63, 2**64, -(2**63), 10**40, 10**400]),
    st.integers(),
    st.floats(),
    st.sampled_from([float("nan"), float("inf"), -float("inf"), 1e308, 5e-324, -0.0]),
    st.text(max_size=6),
    st.sampled_from(
        ["", "\0", "a\0b", "\ud800", "\udfff x", "\n", " ", "é", "../..", "x" * 5000, "true", "1e3"]
    ),
    st.sampled_from(
        ["*", "[", "(a+)+$", "base", "linear", "fda", "2020-01-01", "<b>", "{0}", "%s"]
    ),
    st.sampled_from([[], {}, [[]], [{}], {"": None}, [None], {"a": {"b": []}}, [1, "a", None]]),
    st.sampled_from(
        [NESTED, NESTED_OBJECTS, NESTED_A_LITTLE, Raw("9" * 5000), Raw("1e999"), Raw("-")]
    ),
)


def to_json(value: Any) -> str:
    """Return JSON text, with what JSON does not allow where a document has it."""
    if isinstance(value, Raw):
        return value.text
    if isinstance(value, dict):
        return "{" + ",".join(_pair(key, item) for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(to_json, value)) + "]"
    return json.dumps(value)


def _pair(key: str, item: Any) -> str:
    if isinstance(item, Twice):
        return f"{json.dumps(key)}:{to_json(item.value)},{_pair(key, item.value)}"
    return f"{json.dumps(key)}:{to_json(item)}"


@st.composite
def broken(draw: st.DrawFn, document: Any, *, most: int = 3) -> Any:
    """Return a copy of a document with one to `most` changes at any depth."""
    copy = json.loads(json.dumps(document))
    for _ in range(draw(st.integers(1, most))):
        copy = _change(draw, copy)
    return copy


def _change(draw: st.DrawFn, value: Any) -> Any:
    """Change a value, or something inside it."""
    inside = isinstance(value, dict | list) and not isinstance(value, Raw | Twice) and value
    if not inside or draw(st.integers(0, 7)) == 0:
        return draw(ODD)
    if isinstance(value, list):
        at = draw(st.integers(0, len(value) - 1))
        how = draw(st.sampled_from(["change", "remove", "repeat", "insert"]))
        if how == "change":
            return [*value[:at], _change(draw, value[at]), *value[at + 1 :]]
        if how == "remove":
            return [*value[:at], *value[at + 1 :]]
        return [*value[:at], value[at] if how == "repeat" else draw(ODD), *value[at:]]
    key = draw(st.sampled_from(sorted(value)))
    how = draw(st.sampled_from(["change", "change", "change", "remove", "rename", "add", "twice"]))
    if how == "change":
        return {**value, key: _change(draw, value[key])}
    if how == "twice":
        return {**value, key: Twice(value[key])}
    if how == "add":
        return {**value, draw(st.text(max_size=8) | st.sampled_from(["<<", "\ud800"])): draw(ODD)}
    kept = {name: item for name, item in value.items() if name != key}
    return kept if how == "remove" else {**kept, draw(st.text(max_size=8)): value[key]}
