"""The figure page: one whole file, whatever of the benchmark is there."""

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from tests.bench.vision import report
from tests.bench.vision.page_accuracy import FAMILIES, family
from tests.bench.vision.page_levers import lever_table, rank_correlation
from tests.bench.vision.page_subspaces import subspace_figures
from tests.unit.bench import vision_documents as made

NOTHING: dict[str, Any] = dict.fromkeys(report.FILES)


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    return {
        "results": made.results(),
        "ablations": made.ablations(),
        "subspaces": made.subspaces(),
        "levers": made.levers(),
        "proxy": made.proxies(),
    }


@pytest.fixture(scope="module")
def page(whole: dict[str, Any]) -> str:
    return report.render(whole)


def test_every_drawing_is_well_formed_and_finite(page: str) -> None:
    drawings = re.findall(r"<svg.*?</svg>", page, re.S)
    assert len(drawings) > 20
    for drawing in drawings:
        ElementTree.fromstring(drawing)
        assert not re.search(r'="[^"]*\b(nan|inf)\b[^"]*"', drawing)


def test_nothing_is_fetched_and_links_lead_somewhere(page: str) -> None:
    assert not re.findall(r"https?://", page)
    assert not re.findall(r"\s(src|srcset|data|poster)=", page)
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(ids)


def test_every_figure_has_its_numbers_as_a_table(page: str) -> None:
    figures = re.findall(r"<figure .*?</figure>", page, re.S)
    assert len(figures) == 3 + 8 + 2 + 1 + page.count('id="ablation-optimiser"')
    for figure in figures:
        assert "<details><summary>Numbers</summary>" in figure
        assert re.search(r'<p class="explain">[^<]{40,}</p>', figure)


def test_every_contender_is_drawn_and_in_the_tables(page: str, whole: dict[str, Any]) -> None:
    for contender in whole["results"]["contenders"]:
        assert page.count(f">{contender['name']}<") >= 3


def test_a_page_without_anything_says_how_to_make_it() -> None:
    page = report.render(NOTHING)
    assert "<code>python -m tests.bench.vision.ablations</code>" in page
    assert 'id="levers"' not in page


def test_figures_name_the_part_that_was_judged(whole: dict[str, Any], page: str) -> None:
    validated = {**whole["results"], "part": "validation"}
    assert "on the test part of each task" in page
    said = report.render({**NOTHING, "results": validated})
    assert "on the validation part of each task" in said
    assert "test part" not in said


@pytest.mark.parametrize("name", report.FILES)
def test_each_file_alone_makes_a_page(whole: dict[str, Any], name: str) -> None:
    assert report.render({**NOTHING, name: whole[name]}).endswith("</html>\n")


def test_older_results_without_groups_are_drawn(whole: dict[str, Any]) -> None:
    older = json.loads(json.dumps(whole["results"]))
    for task in older["tasks"]:
        del task["groups"]
    assert "Mean accuracy by method" in report.render({**NOTHING, "results": older})


def test_the_page_is_written_beside_the_files(tmp_path: Path, whole: dict[str, Any]) -> None:
    assert report.write(tmp_path) is None
    (tmp_path / "proxy.json").write_text(json.dumps(whole["proxy"]))
    written = report.write(tmp_path)
    assert written == tmp_path / "report.html"
    assert "Spearman" in written.read_text()


def test_every_method_has_a_family_of_its_own(whole: dict[str, Any]) -> None:
    merges = [c for c in whole["results"]["contenders"] if c["group"] != "reference"]
    assert {family(c) for c in merges} == set(FAMILIES) - {"plain"}
    assert family({"name": "new", "method": {"name": "new"}, "group": "data-free"}) == "plain"


def test_levers_that_were_kept_come_first_and_say_what_they_gave() -> None:
    rows = lever_table(made.levers()).rows
    assert [row[2] for row in rows] == ["kept", "rejected"]
    assert rows[0][3:] == ("0.610 → 0.740", "66.0 → 67.0", "400 → 250")
    assert rows[1][3:] == ("n/a", "n/a", "n/a")


def test_the_rank_correlation_is_spearmans() -> None:
    assert rank_correlation([1, 2, 3], [10, 200, 3000]) == pytest.approx(1.0)
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1.0)
    # Ranks 1, 2.5, 2.5, 4 and 1, 2, 3, 4: 4.5 over the root of 4.5 times 5.
    assert rank_correlation([1, 2, 2, 9], [1, 2, 3, 4]) == pytest.approx(4.5 / (4.5 * 5) ** 0.5)
    assert rank_correlation([1, 1], [1, 2]) == 0.0


def test_the_spectra_name_what_real_features_were_used_for(whole: dict[str, Any]) -> None:
    spectra, similar = subspace_figures(whole["subspaces"])
    assert "used for measuring only" in spectra.explain
    assert "by chance" in similar.drawing
