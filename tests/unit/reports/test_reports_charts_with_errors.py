"""Charts whose marks carry errors: ranked bars and points."""

import re
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest

from fda_core.reports.drawing.line_chart import Scale
from fda_core.reports.drawing.point_chart import PointChart, Series, Spot, draw_points
from fda_core.reports.drawing.ranked_bars import BarGroup, RankedBar, RankedBars, draw_ranked_bars


def bars(*values, error=1.0, marks=()):
    found = [
        RankedBar(name=f"bar {n}", value=value, error=error, text=f"{value}", css_class="fill-fda")
        for n, value in enumerate(values)
    ]
    groups = [BarGroup(name="one", bars=found[:1]), BarGroup(name="<two>", bars=found[1:])]
    return draw_ranked_bars(RankedBars(label="bars", title="%", groups=groups, marks=marks))


def points(*spots, x=None, **options):
    series = [Series(family="fda", spots=spots, joined=options.pop("joined", False))]
    x = x or Scale(title="x", low=1.0, high=100.0, log=True)
    y = Scale(title="y", low=0.0, high=10.0)
    return draw_points(PointChart(label="points", x=x, y=y, series=series, **options))


def spot(x, y, error=None, label=""):
    return Spot(x=x, y=y, error=error, tip=f"{x}", label=label)


def tags(svg, name, css_class):
    root = ElementTree.fromstring(svg)
    return [e for e in root.iter(name) if css_class in e.get("class", "").split()]


def test_bars_begin_at_zero_and_are_as_long_as_their_values():
    drawn = tags(bars(10.0, 20.0, 40.0), "rect", "fill-fda")
    widths = [float(rect.get("width")) for rect in drawn]
    assert len({rect.get("x") for rect in drawn}) == 1
    assert widths[1] == pytest.approx(2 * widths[0], abs=0.2)
    assert widths[2] == pytest.approx(4 * widths[0], abs=0.2)


def test_a_whisker_reaches_one_error_either_way():
    drawn = bars(10.0, 20.0, error=5.0)
    rect = tags(drawn, "rect", "fill-fda")[1]
    end, each = float(rect.get("x")) + float(rect.get("width")), float(rect.get("width")) / 4
    long = [line for line in tags(drawn, "line", "whisker") if line.get("y1") == line.get("y2")]
    assert float(long[1].get("x1")) == pytest.approx(end - each, abs=0.2)
    assert float(long[1].get("x2")) == pytest.approx(end + each, abs=0.2)


def test_marks_and_groups_are_named_and_escaped():
    drawn = bars(10.0, 20.0, marks=[("base", 15.0)])
    assert "&lt;two&gt;" in drawn
    assert len(tags(drawn, "line", "mark")) == 1
    assert ">base</text>" in drawn


def test_no_bars_at_all_are_still_a_drawing():
    ElementTree.fromstring(
        draw_ranked_bars(RankedBars(label="nothing", title="%", groups=[], marks=[]))
    )


def test_points_off_a_log_axis_are_left_out():
    drawn = points(spot(0.0, 5.0), spot(10.0, 5.0), spot(100.0, 5.0))
    assert len(tags(drawn, "circle", "spot")) == 2


def test_a_log_axis_puts_ten_in_the_middle_of_one_and_a_hundred():
    places = [
        float(c.get("cx"))
        for c in tags(points(*(spot(x, 5) for x in (1, 10, 100))), "circle", "spot")
    ]
    assert places[1] == pytest.approx((places[0] + places[2]) / 2, abs=0.1)


def test_points_over_names_stand_above_them():
    drawn = points(spot(0.0, 1.0), spot(1.0, 2.0), x=["gaussian 10", "weight"])
    names = {t.text: t for t in tags(drawn, "text", "mid")}
    centres = [c.get("cx") for c in tags(drawn, "circle", "spot")]
    assert [names["gaussian"].get("x"), names["weight"].get("x")] == centres
    assert float(names["10"].get("y")) > float(names["gaussian"].get("y"))


def test_only_joined_points_have_a_line_and_only_sure_ones_no_whisker():
    assert not tags(points(spot(1.0, 1.0), spot(2.0, 2.0)), "polyline", "joined")
    drawn = points(spot(1.0, 1.0, 0.5), spot(2.0, 2.0), joined=True)
    assert len(tags(drawn, "polyline", "joined")) == 1
    assert len(tags(drawn, "line", "whisker")) == 3


def test_whiskers_stay_inside_the_chart():
    drawn = tags(points(spot(10.0, 9.0, 40.0)), "line", "whisker")
    ys = [float(line.get(key)) for line in drawn for key in ("y1", "y2")]
    assert min(ys) == 24
    assert max(ys) == 220


def test_labels_of_near_points_do_not_lie_on_each_other():
    drawn = points(*(spot(10.0, 5.0 + n / 100, label=f"label {n}") for n in range(4)))
    heights = sorted(float(t.get("y")) for t in tags(drawn, "text", "row"))
    assert all(b - a >= 12.9 for a, b in pairwise(heights))


def test_a_label_at_the_right_end_stands_on_the_left():
    drawn = points(spot(99.0, 5.0, label="a long label"), width=300.0)
    text, circle = tags(drawn, "text", "row")[0], tags(drawn, "circle", "spot")[0]
    assert float(text.get("x")) + 60 < float(circle.get("cx"))


def test_ticks_are_those_asked_for_where_they_fit():
    drawn = points(spot(10.0, 5.0), ticks=[1, 2, 2.02, 50])
    assert re.findall(r'class="tick mid">([^<]+)<', drawn) == ["1", "2", "50"]
