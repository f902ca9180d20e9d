"""Columns that several charts share, so that layer 7 stands above layer 7 all down a page."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from fda_core.reports.drawing.markup import Markup, element

PAGE_WIDTH = 1016.0
"""Room inside a figure on a wide screen; charts that fill it are this wide."""
LABEL_GAP = 8.0
_NARROWEST, _WIDEST = 17.0, 64.0
_LETTER, _DIGIT = 6.6, 6.2
"""Average widths at 12 and 11 px; only used to leave enough room."""
_LETTERS = 34
_APART = 7.0
_MEAN_WIDTH = 38.0


@dataclass(frozen=True, kw_only=True)
class ColumnGrid:
    """A gutter for row labels, then one cell a column; all lengths in pixels."""

    columns: tuple[str, ...]
    gutter: float
    cell: float
    letters: int
    """How many letters of a row label fit into the gutter."""
    extra: str = ""
    """A last column a little apart, for what is of another kind than the rest."""

    @property
    def names(self) -> tuple[str, ...]:
        """Return all columns, the one apart included."""
        return (*self.columns, self.extra) if self.extra else self.columns

    def left(self, column: int) -> float:
        """Return where a column begins."""
        apart = _APART if column >= len(self.columns) else 0.0
        return self.gutter + column * self.cell + apart

    def width_of(self, column: int) -> float:
        """Return how wide a column is."""
        if column < len(self.columns):
            return self.cell
        return max(self.cell, _extra_width(self.extra))

    def centre(self, column: int) -> float:
        """Return the middle of a column."""
        return self.left(column) + self.width_of(column) / 2

    @property
    def right(self) -> float:
        """Return where the last column ends."""
        last = len(self.names) - 1
        return self.left(last) + self.width_of(last) if self.names else self.gutter

    @property
    def mean_left(self) -> float:
        """Return where the column of means begins, a little apart from the others."""
        return self.right + _APART

    @property
    def mean_width(self) -> float:
        """Return the width of the column of means."""
        return max(self.cell, _MEAN_WIDTH)

    def shorten(self, label: str) -> str:
        """Return a row label that fits into the gutter; what is cut is cut out of the middle.

        Names differ at their ends more often than in between: `output.LayerNorm.bias`.
        """
        if len(label) <= self.letters:
            return label
        kept = self.letters // 3
        return f"{label[:kept]}…{label[len(label) - self.letters + kept + 1 :]}"

    def without_extra(self) -> "ColumnGrid":
        """Return the same columns in the same places, without the one apart."""
        return replace(self, extra="")


def column_grid(
    columns: Sequence[str], row_labels: Sequence[str], *, extra: str = ""
) -> ColumnGrid:
    """Return a grid as wide as a page allows, or wider where the columns are many."""
    longest = max((len(label) for label in row_labels), default=4)
    letters = min(max(longest, 6), _LETTERS)
    gutter = letters * _LETTER + LABEL_GAP + 6
    cell = _cell_width(PAGE_WIDTH - gutter - 2, len(columns), extra)
    return ColumnGrid(
        columns=tuple(columns), gutter=gutter, cell=cell, letters=letters, extra=extra
    )


def _cell_width(room: float, columns: int, extra: str) -> float:
    """Return how wide cells can be beside a column of means and perhaps one apart.

    Those two are as wide as a cell but not below their least, so the answer is the smallest of
    what is left over when none, either or both of them stay at it.
    """
    room -= _APART * (2 if extra else 1)
    least = [_MEAN_WIDTH, _extra_width(extra)] if extra else [_MEAN_WIDTH]
    fits = min(
        (room - sum(wider)) / max(1, columns + len(least) - len(wider))
        for some in range(len(least) + 1)
        for wider in combinations(least, some)
    )
    return min(_WIDEST, max(_NARROWEST, fits))


def _extra_width(extra: str) -> float:
    return len(extra) * _DIGIT + 6


def place_name(title: str, column: str) -> str:
    """Return how a column is spoken of: layer 7, but only outside."""
    return f"{title} {column}" if column.isdigit() else column


def column_labels(grid: ColumnGrid, *, baseline: float, title: str) -> Iterator[Markup]:
    """Yield the labels below the columns, as many as fit, and the axis title under them."""
    widest = max((len(label) for label in grid.columns), default=1)
    every = max(1, -(-int(widest * _DIGIT + 4) // int(grid.cell)))
    for number, label in enumerate(grid.names):
        if number % every == 0 or number == len(grid.columns):
            yield element("text", label, x=grid.centre(number), y=baseline, class_="tick mid")
    middle = (grid.gutter + grid.left(len(grid.columns) - 1) + grid.cell) / 2
    yield element("text", title, x=middle, y=baseline + 18, class_="name mid")
