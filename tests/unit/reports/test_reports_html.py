"""The report is one whole, safe, self-contained page whatever the merge was."""

import re
import xml.etree.ElementTree as ElementTree
from html import unescape
from html.parser import HTMLParser

import pytest
from report_factory import (
    NAMES,
    PARTS,
    MergeShape,
    make_manifest,
    make_merge,
    make_metrics,
    make_plan,
)

from fda_core.contract.artifacts import Curve, Metrics
from fda_core.reports.html import render_report
from fda_core.reports.quantities import number

VOID = {"meta", "br", "hr"}
BIG = MergeShape(
    layers=48, experts=tuple(f"expert-{n:02d}" for n in range(20)), steps=1200, points=400
)
SHAPES = {
    "fda": MergeShape(missing=frozenset({(4, "mnist")}), warnings=("slow",), notes=("kept",)),
    "ties": MergeShape(method="ties", start=None, experts=NAMES),
    "single": MergeShape(layers=1, experts=("solo",), outside=False),
    "two points": MergeShape(layers=2, experts=NAMES[:2], steps=1, points=1),
    "nine experts": MergeShape(layers=3, experts=tuple(f"e{n}" for n in range(9)), points=20),
    "all missing": MergeShape(
        layers=2, missing=frozenset((layer, name) for layer in range(2) for name in NAMES[:3])
    ),
}


class Page(HTMLParser):
    """Collects tags and attributes and refuses what does not nest."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes, self.words = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)


@pytest.fixture(scope="module", params=SHAPES.values(), ids=SHAPES.keys())
def page(request):
    """Return a report of every shape in turn."""
    return report(request.param)


@pytest.fixture(scope="module")
def big_page():
    return report(BIG)


def report(shape):
    return render_report(*make_merge(shape))


def report_of(metrics, *, layers):
    """Return the report of metrics that were changed by hand."""
    shape = MergeShape(layers=layers)
    return render_report(make_plan(shape), metrics, make_manifest(shape, metrics))


def figure(page, name):
    """Return the markup of one figure."""
    return re.search(rf'<figure id="{name}">.*?</figure>', page, re.S).group(0)


def table_rows(markup):
    return [
        [unescape(cell) for cell in re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", row)]
        for row in re.findall(r"<tr>(.*?)</tr>", markup, re.S)
    ]


def test_every_tag_is_closed_and_nested(page):
    Page(page)


def test_every_drawing_is_well_formed_xml(page):
    drawings = re.findall(r"<svg.*?</svg>", page, re.S)
    assert len(drawings) > 5
    for drawing in drawings:
        ElementTree.fromstring(drawing)


def test_drawings_hold_finite_numbers_only(page):
    drawings = "".join(re.findall(r"<svg.*?</svg>", page, re.S))
    assert not re.search(r'="[^"]*\b(nan|inf)\b[^"]*"', drawings)


def test_nothing_is_fetched(page):
    attributes = Page(page).attributes
    assert {name for _, name, _ in attributes} & {"src", "srcset", "poster", "data"} == set()
    addresses = {value for tag, name, value in attributes if name == "href" and value[0] != "#"}
    assert addresses <= {"https://arxiv.org/abs/2510.21223"}
    assert set(re.findall(r"https?://[^\"'\s<]*", page)) == addresses
    assert set(re.findall(r"url\([^)]*\)", page)) <= {"url(#na)"}
    assert "@import" not in page


def test_ids_are_unique_and_links_lead_somewhere(page):
    attributes = Page(page).attributes
    ids = [value for _, name, value in attributes if name == "id"]
    assert len(ids) == len(set(ids))
    targets = {value[1:] for _, name, value in attributes if name == "href" and value[0] == "#"}
    assert targets <= set(ids)


def test_every_figure_has_title_explanation_drawing_and_numbers(page):
    figures = re.findall(r"<figure .*?</figure>", page, re.S)
    assert figures
    for markup in figures:
        assert re.search(r"<h3>[^<]+</h3><p class=\"explain\">[^<]{40,}</p>", markup)
        assert re.search(r'<svg class="chart[^>]*aria-label="[^"]+"', markup)
        assert "<details><summary>Numbers</summary>" in markup
        assert len(table_rows(markup)) > 1


def test_every_table_row_has_as_many_cells_as_its_head(page):
    for markup in re.findall(r"<table.*?</table>", page, re.S):
        assert len({len(row) for row in table_rows(markup)}) == 1


def test_no_path_of_this_machine_is_shown():
    shape = MergeShape(warnings=("/home/ada/models/kanji-tuned: odd", "see /var/cache/x/y.bin"))
    words = " ".join(Page(report(shape)).words)
    assert "/home" not in words
    assert "/var" not in words
    assert "kanji-tuned: odd" in words


def test_equal_merges_give_equal_bytes():
    for shape in SHAPES.values():
        assert report(shape) == report(shape)


def test_every_drift_is_in_the_drift_table():
    shape = SHAPES["fda"]
    metrics = make_metrics(shape)
    rows = table_rows(figure(report(shape), "drift"))[1:]
    shown = {(row[0], int(row[1])): row[2:4] for row in rows}
    drifts = {
        (expert, item.layer): [number(drift.start), number(drift.result)]
        for item in metrics.adaptation
        for expert, drift in item.drift.items()
    }
    assert shown == drifts


def test_every_alignment_is_in_the_alignment_table():
    shape = SHAPES["fda"]
    rows = table_rows(figure(report(shape), "alignment"))
    shown = {
        (name, int(row[0])): cell
        for row in rows[1:]
        for name, cell in zip(rows[0][1:], row[1:], strict=True)
    }
    expected = {
        (item.expert, item.layer): number(item.alignment_best)
        for item in make_metrics(shape).construction
    }
    assert shown == expected


def test_a_missing_value_is_hatched_and_called_na():
    markup = figure(report(SHAPES["fda"]), "alignment")
    assert re.search(r'<rect class="na"[^>]*data-tip="mnist · layer 4: n/a"', markup)
    assert "swatch na-box" in markup


def test_without_missing_values_the_legend_does_not_speak_of_them():
    assert "swatch na-box" not in report(MergeShape())


def test_the_best_cell_is_the_brightest():
    markup = figure(report(MergeShape()), "alignment")
    cells = re.findall(r'<rect class="v(\d+)"[^>]*data-tip="\w+ · layer \d+: ([\d.]+)"', markup)
    assert len(cells) > 30
    levels = [int(level) for level, _ in sorted(cells, key=lambda cell: float(cell[1]))]
    assert levels == sorted(levels)
    assert levels[0] < levels[-1]


def test_both_drift_maps_share_one_scale_on_which_near_is_bright():
    markup = figure(report(MergeShape()), "drift")
    cells = re.findall(r'<rect class="v(\d+)"[^>]*data-tip="\w+ · layer \d+: ([\d.]+)"', markup)
    levels = [int(level) for level, _ in sorted(cells, key=lambda cell: float(cell[1]))]
    assert len(levels) > 70
    assert levels == sorted(levels, reverse=True)


def test_numbers_stand_in_cells_that_have_room_and_not_in_others(big_page):
    assert 'class="num"' in figure(report(MergeShape()), "alignment")
    narrow = re.findall(r'class="num">', figure(big_page, "alignment"))
    assert len(narrow) == 20 + 1


def test_forty_eight_layers_of_twenty_experts_stay_below_three_megabytes(big_page):
    assert len(big_page.encode()) < 3_000_000
    lines = re.findall(r'<polyline points="([^"]*)" class="thin', big_page)
    assert len(lines) == 48 * 20 + 48
    assert max(len(line.split()) for line in lines) <= 120
    Page(big_page)


def test_names_from_outside_are_escaped():
    nasty = "<img src=x onerror=alert(1)>&\"'</style></script>"
    shape = MergeShape(
        layers=2,
        base=f"/models/{nasty.replace('/', '')}",
        output=f"/out/{nasty.replace('/', '')}",
        warnings=(nasty, "a\x00b\ud800c"),
        notes=(nasty,),
        parts=(*PARTS, nasty),
        points=5,
    )
    manifest = make_manifest(shape, make_metrics(shape)).model_copy(
        update={"versions": {nasty: nasty}, "device": nasty, "parameters": {nasty: [nasty]}}
    )
    page = render_report(make_plan(shape), make_metrics(shape), manifest)
    parsed = Page(page)
    assert "img" not in parsed.tags
    assert parsed.tags.count("script") == parsed.tags.count("style") == 1
    assert not any(name.startswith("on") for _, name, _ in parsed.attributes)
    assert "\x00" not in page
    page.encode("utf-8")
    for drawing in re.findall(r"<svg.*?</svg>", page, re.S):
        ElementTree.fromstring(drawing)


def test_expert_names_with_html_signs_are_escaped():
    metrics = make_metrics(MergeShape(layers=2, experts=("a<b>&", 'q"x'), points=5))
    parsed = Page(report_of(metrics, layers=2))
    assert "b" in parsed.tags
    assert not any(tag == "b" and name == "class" for tag, name, _ in parsed.attributes)
    assert any("a<b>&" in word for word in parsed.words)


def test_another_method_says_in_one_sentence_why_it_has_no_anchors():
    page = report(SHAPES["ties"])
    absent = re.findall(r'<p class="absent">([^<]*)</p>', page)
    assert absent == [
        "The method ties merges weights directly and constructs no anchors, so there is no "
        "alignment, no drift and no loss to show."
    ]
    assert 'id="adaptation"' not in page
    assert 'figure id="drift"' not in page
    assert 'figure id="cosines"' in page


def test_one_expert_has_no_pairs_and_the_page_says_so():
    page = report(SHAPES["single"])
    assert "With one expert there are no cosines and no sign conflicts." in page
    assert 'figure id="cosines"' not in page


def test_outside_has_its_own_column_and_row():
    page = report(MergeShape())
    assert table_rows(figure(page, "norms"))[-1][0] == "outside"
    assert table_rows(figure(page, "cosines"))[0][-1] == "outside"
    assert "kanji · outside:" in figure(page, "norms")
    assert "outside" not in figure(report(MergeShape(outside=False)), "cosines")


def test_warnings_and_notes_of_plan_and_run_appear_once_each():
    shape = MergeShape(warnings=("one warning",), notes=("one note", "one warning"))
    words = Page(report(shape)).words
    assert sum("one warning" in word for word in words) == 1
    assert sum("one note" in word for word in words) == 1


def test_layers_stand_above_each_other_in_all_figures_by_layer():
    page = report(MergeShape())
    left = {
        re.search(r'data-tip="kanji · layer 0: [^"]*"', figure(page, name)).start() > 0
        and re.search(r'x="([\d.]+)"[^>]*data-tip="kanji · layer 0:', figure(page, name)).group(1)
        for name in ("alignment", "drift", "norms")
    }
    assert len(left) == 1


def test_a_merge_without_any_measurement_still_gives_a_page():
    full = make_metrics(MergeShape(layers=2))
    empty = {"construction": (), "adaptation": (), "task_vectors": (), "units": ()}
    metrics = Metrics.model_validate({**full.model_dump(), **empty})
    page = report_of(metrics, layers=2)
    Page(page)
    assert page.count('class="absent"') == 3


def test_empty_and_zero_curves_are_left_out():
    full = make_metrics(MergeShape(layers=2, points=5))
    nothing, zero = Curve(steps=(), values=()), Curve(steps=(0, 1), values=(0.0, 0.0))
    metrics = full.model_copy(
        update={
            "construction": tuple(
                item.model_copy(
                    update={"alignment": nothing, "spectrum_start": (), "spectrum_end": (0.0,)}
                )
                for item in full.construction
            ),
            "adaptation": tuple(item.model_copy(update={"loss": zero}) for item in full.adaptation),
        }
    )
    page = report_of(metrics, layers=2)
    Page(page)
    assert 'figure id="construction"' not in page
    assert 'figure id="loss"' not in page
    assert 'figure id="spectra"' not in page
    assert 'figure id="drift"' in page


def test_outside_measured_in_pieces_is_one_column():
    full = make_metrics(MergeShape(layers=2))
    twice = (*full.task_vectors, full.task_vectors[-1])
    page = report_of(full.model_copy(update={"task_vectors": twice}), layers=2)
    Page(page)
    assert [row[0] for row in table_rows(figure(page, "norms"))] == ["layer", "0", "1", "outside"]


def test_losses_measured_once_an_epoch_are_drawn_over_epochs():
    full = make_metrics(MergeShape(layers=2))
    curve = Curve(steps=(0, 1, 2), values=(1.0, 0.5, 0.4))
    adaptation = tuple(item.model_copy(update={"loss": curve}) for item in full.adaptation)
    page = report_of(full.model_copy(update={"adaptation": adaptation}), layers=2)
    assert 'data-x-name="epoch"' in figure(page, "loss")
    assert 'data-x-name="adaptation step"' in figure(report(MergeShape(layers=2)), "loss")


def test_only_outside_measured_is_drawn():
    full = make_metrics(MergeShape(layers=2, method="ties"))
    alone = tuple(item for item in full.task_vectors if item.layer is None)
    metrics = full.model_copy(update={"task_vectors": alone})
    page = report_of(metrics, layers=2)
    Page(page)
    assert "kanji · outside:" in figure(page, "norms")


def test_one_layer_gone_astray_does_not_paint_the_others_alike():
    full = make_metrics(MergeShape(layers=4))
    first = full.adaptation[0]
    drift = {**first.drift, "kanji": first.drift["kanji"].model_copy(update={"result": 40.0})}
    adaptation = (first.model_copy(update={"drift": drift}), *full.adaptation[1:])
    metrics = full.model_copy(update={"adaptation": adaptation})
    page = report_of(metrics, layers=4)
    markup = figure(page, "drift")
    assert "1.5 and above alike" in markup
    assert "40.0000" in markup
    assert len(set(re.findall(r'<rect class="(v\d+)"[^>]*data-tip="', markup))) > 5
