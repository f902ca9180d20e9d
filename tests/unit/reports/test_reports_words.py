"""Numbers and names read as people expect, and tell nothing they should not."""

import ast
from pathlib import Path

import pytest
from report_factory import MergeShape, make_plan

import fda_core.reports
from fda_core.reports.public_names import hub_id, model_name, public_text
from fda_core.reports.quantities import count, duration, number, operations, percent, size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.00 s"),
        (0.424, "0.42 s"),
        (12.34, "12.3 s"),
        (59.97, "1 min 00 s"),
        (250, "4 min 10 s"),
        (3599.7, "1 h 00 min"),
        (11520, "3 h 12 min"),
        (3_600_000, "1,000 h 00 min"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (2**30 - 1, "1.0 GiB"),
        (2**60, "1,024.0 PiB"),
    ],
)
def test_sizes(amount, text):
    assert size(amount) == text


def test_operations_and_counts():
    assert operations(47 * 10**15) == "47.0 PFLOP"
    assert count(1, "layer") == "1 layer"
    assert count(1200, "layer") == "1,200 layers"


def test_numbers_without_a_value_are_na():
    assert [number(v) for v in (None, float("nan"), float("inf"))] == ["n/a"] * 3
    assert percent(None) == "n/a"


def test_negative_numbers_have_a_minus_and_zero_has_none():
    assert number(-0.25, digits=2) == "−0.25"
    assert number(-0.001, digits=2) == "0.00"


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("/home/ada/models/base/", "base"),
        ("s3://bucket/models/base", "base"),
        ("base", "base"),
        ("/c/hub/models--org--net/snapshots/abc", "org/net"),
        ("/", "model"),
    ],
)
def test_names_of_addresses(uri, name):
    assert model_name(uri) == name


def test_hub_names_are_within_what_hubs_accept():
    assert hub_id("/x/" + "a" * 200) == "a" * 96
    assert hub_id("/x/..a--b__c..") == "a-b__c"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/ada/models/kanji-tuned: odd", "kanji-tuned: odd"),
        ("read file:///srv/data/x.bin, done", "read x.bin, done"),
        ("at:/srv/data/x.bin", "at:x.bin"),
        ("s3://bucket/a/b stays", "s3://bucket/a/b stays"),
        ("layer/attention/query and/or", "layer/attention/query and/or"),
        ("nothing here", "nothing here"),
    ],
)
def test_paths_of_this_machine_become_names(text, shown):
    assert public_text(make_plan(MergeShape(layers=1)), text) == shown


def test_reports_import_only_contract_errors_and_the_standard_library():
    folder = Path(fda_core.reports.__file__).parent
    allowed = ("fda_core.contract", "fda_core.errors", "fda_core.reports")
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [a.name for a in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                assert not name.startswith("fda_core") or name.startswith(allowed), (file, name)
                assert name.split(".")[0] not in {"torch", "numpy", "matplotlib", "jinja2"}, file
