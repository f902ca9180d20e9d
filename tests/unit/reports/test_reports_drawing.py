"""Markup, colours, scales and curves keep their promises."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fda_core.reports.drawing.colours import LEVELS, ColourScale, ink_on, viridis
from fda_core.reports.drawing.column_grid import PAGE_WIDTH, column_grid
from fda_core.reports.drawing.curves import clean, spread, thin
from fda_core.reports.drawing.markup import Markup, element, escape, join, px
from fda_core.reports.drawing.scales import (
    Axis,
    linear_ticks,
    log_span,
    log_ticks,
    round_up,
    span,
    tick_text,
)

FINITE = st.floats(-1e6, 1e6)
LIGHT = settings(deadline=None, max_examples=60)


def luminance(colour):
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_plain_text_is_escaped_and_markup_is_not():
    inner = element("b", "1 < 2")
    assert element("p", inner, " & ", title='"x"') == (
        '<p title="&quot;x&quot;"><b>1 &lt; 2</b> &amp; </p>'
    )
    assert escape(Markup("<i>")) == "<i>"
    assert join(["<", Markup("<br>")], ", ") == "&lt;, <br>"


def test_attributes_that_are_none_or_false_are_left_out():
    assert element("rect", x=1.0, y=2.25, rx=None, hidden=False, open=True, class_="a") == (
        '<rect x="1" y="2.2" open class="a"/>'
    )


@pytest.mark.parametrize(
    ("value", "text"), [(1.0, "1"), (-0.04, "0"), (10.26, "10.3"), (0.5, "0.5")]
)
def test_lengths_are_as_short_as_they_can_be(value, text):
    assert px(value) == text


def test_viridis_gets_brighter_all_the_way():
    lights = [luminance(viridis(step / 50)) for step in range(51)]
    assert lights == sorted(lights)
    assert viridis(0) == "#440154"
    assert viridis(1) == "#fde725"


@LIGHT
@given(st.floats(0, 1))
def test_numbers_on_any_cell_can_be_read(share):
    cell, ink = luminance(viridis(share)), 1.0 if ink_on(viridis(share)) == "#fff" else 0.0
    bright, dark = max(cell, ink), min(cell, ink)
    assert (bright + 0.05) / (dark + 0.05) >= 4.5


@LIGHT
@given(FINITE, FINITE, FINITE)
def test_every_value_has_a_class_of_the_scale(low, high, value):
    scale = ColourScale(low=min(low, high), high=max(low, high))
    assert scale.css_class(value) in {f"v{level}" for level in range(LEVELS)}


def test_a_span_too_small_to_divide_by_has_its_end_colours():
    scale = ColourScale(low=0.0, high=5e-324)
    assert scale.css_class(1.0) == f"v{LEVELS - 1}"
    assert scale.css_class(-1.0) == "v0"


def test_a_reversed_scale_is_bright_where_values_are_low():
    scale = ColourScale(low=0, high=1, kind="reversed")
    assert scale.css_class(0.0) == f"v{LEVELS - 1}"
    assert scale.css_class(9.0) == "v0"


def test_the_middle_of_a_diverging_scale_is_its_neutral_level():
    assert ColourScale(low=-2, high=2, kind="diverging").css_class(0) == f"d{LEVELS // 2}"


def test_axes_put_their_ends_at_their_ends():
    linear = Axis(low=-1, high=3, begin=100, end=0)
    assert [linear.at(-1), linear.at(1), linear.at(3)] == [100, 50, 0]
    log = Axis(low=0.01, high=100, begin=0, end=40, log=True)
    assert [round(log.at(v), 9) for v in (0.01, 1, 100)] == [0, 20, 40]
    assert Axis(low=2, high=2, begin=0, end=10).at(2) == 5


@LIGHT
@given(FINITE, st.floats(1e-3, 1e6), st.integers(2, 9))
def test_linear_ticks_are_few_and_inside(low, width, count):
    ticks = linear_ticks(low, low + width, count)
    slack = 1e-6 * max(abs(low), width)
    assert len(ticks) <= count + 2
    assert all(low - slack <= tick <= low + width + slack for tick in ticks)


@LIGHT
@given(st.floats(1e-9, 1e6), st.floats(1.5, 1e9))
def test_log_ticks_are_few_and_inside(low, factor):
    ticks = log_ticks(low, low * factor, 4)
    assert 1 <= len(ticks) <= 10
    assert all(low <= tick <= low * factor for tick in ticks)


def test_ticks_read_as_people_write_them():
    texts = [tick_text(v) for v in (0.0, 0.25, -0.5, 1200.0, 1e-6, 3e7, 0.30000000000000004)]
    assert texts == ["0", "0.25", "−0.5", "1,200", "1e-6", "3e7", "0.3"]


@LIGHT
@given(st.floats(1e-6, 1e9))
def test_rounding_up_stays_near(value):
    assert value <= round_up(value) * (1 + 1e-8)
    assert round_up(value) <= value * 1.7


def test_spans_hold_their_values_and_never_collapse():
    assert span([]) == (0.0, 1.0)
    low, high = span([3.0])
    assert low < 3 < high
    low, high = log_span([0.0, 0.5, 0.5])
    assert 0 < low < 0.5 < high


@LIGHT
@given(st.lists(FINITE, min_size=1, max_size=900), st.integers(4, 120))
def test_thinned_curves_are_short_and_keep_ends_and_extremes(values, limit):
    points = clean(range(len(values)), values)
    few = thin(points, limit=limit)
    assert len(few) <= limit
    assert few[0] == points[0]
    assert few[-1] == points[-1]
    assert list(few) == sorted(few)
    assert {min(y for _, y in few), max(y for _, y in few)} == {min(values), max(values)}


def test_points_that_are_not_finite_are_dropped():
    assert clean((0, 1, 2), (1.0, math.nan, math.inf)) == ((0.0, 1.0),)


def test_the_spread_of_curves_is_taken_where_they_have_points():
    found = spread([((0.0, 0.0), (10.0, 10.0)), ((0.0, 4.0), (5.0, 4.0))])
    assert found.middle == ((0.0, 2.0), (5.0, 4.5), (10.0, 10.0))
    assert found.low == ((0.0, 0.0), (5.0, 4.0), (10.0, 10.0))
    assert found.high == ((0.0, 4.0), (5.0, 5.0), (10.0, 10.0))


@LIGHT
@given(st.integers(1, 40), st.integers(1, 40), st.booleans())
def test_a_grid_fits_the_page_while_its_cells_can_shrink(columns, letters, extra):
    grid = column_grid(
        [str(n) for n in range(columns)], ["x" * letters], extra="outside" if extra else ""
    )
    assert grid.mean_left + grid.mean_width <= PAGE_WIDTH or grid.cell <= 17
    assert len(grid.shorten("y" * 99)) == grid.letters


def test_long_row_labels_keep_their_beginning_and_their_end():
    grid = column_grid(["0"], ["x" * 99])
    short = grid.shorten("attention.output.something_long.LayerNorm.bias")
    assert short.startswith("attention")
    assert short.endswith("LayerNorm.bias")
    assert len(short) == grid.letters
    assert grid.shorten("mlp.bias") == "mlp.bias"
