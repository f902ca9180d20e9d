"""Addresses have one spelling each."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fda_core.contract.uris import basename, inside, join, normalise, parent, scheme
from fda_core.errors import BadParameter, UnsupportedScheme

PARTS = st.lists(st.sampled_from(["a", "b.c", "..", ".", "", "d e"]), min_size=1, max_size=5)


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ("models/x", "/work/models/x"),
        ("./models//x/", "/work/models/x"),
        ("../x", "/x"),
        ("/a/./b/../c", "/a/c"),
        ("file:///a/b", "/a/b"),
        ("s3://bucket/a//b/", "s3://bucket/a/b"),
        ("S3://bucket", "s3://bucket"),
    ],
)
def test_addresses_are_normalised(given_, expected):
    assert normalise(given_, cwd="/work") == expected


@given(PARTS, st.booleans())
def test_normalising_twice_changes_nothing(parts, absolute):
    once = normalise(("/" if absolute else "") + "/".join(parts) or ".", cwd="/work")
    assert normalise(once, cwd="/elsewhere") == once
    assert once.startswith("/")
    assert ".." not in once.split("/")


@pytest.mark.parametrize("bad", ["gs://bucket/x", "https://host/x", "s3://", "s3://b/../c"])
def test_unknown_kinds_and_escapes_are_refused(bad):
    with pytest.raises(UnsupportedScheme) as caught:
        normalise(bad, cwd="/")
    assert bad.split("/")[2] in str(caught.value) or "s3" in str(caught.value)


@pytest.mark.parametrize("bad", ["file://models/base", "file://host/models/base", "FILE://"])
def test_a_host_in_a_files_address_is_refused(bad):
    """It was taken for a folder below the current one."""
    with pytest.raises(UnsupportedScheme, match="third slash"):
        normalise(bad, cwd="/work")


@pytest.mark.parametrize("bad", ["", "a\0b"])
def test_what_is_no_address_is_refused(bad):
    with pytest.raises(BadParameter):
        normalise(bad, cwd="/")


def test_parent_join_and_basename_agree():
    for uri in ("/a/b", "s3://bucket/a/b"):
        assert join(parent(uri), basename(uri)) == uri
    assert parent("s3://bucket") == "s3://bucket"
    assert parent("/") == "/"
    assert join("/", "a") == "/a"


def test_a_name_that_begins_alike_is_not_inside():
    assert inside("/a/b/c", "/a/b")
    assert inside("/a/b", "/a/b")
    assert not inside("/a/bc", "/a/b")
    assert inside("s3://x/y", "s3://x")


def test_a_bare_path_is_a_file():
    assert scheme("a/b") == "file"
    assert scheme("S3://x") == "s3"
