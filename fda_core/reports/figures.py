"""A figure: a drawing, what it says and how to read it, and its numbers as a table."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fda_core.reports.drawing.markup import Markup, element, join


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of text under a head; the first `text_columns` columns are words, not numbers."""

    head: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    text_columns: int = 1


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Everything a reader needs to understand one picture."""

    id: str
    title: str
    explain: str
    """How to read it, for someone who never read the paper."""
    drawing: Markup
    table: Table
    legend: str = ""


@dataclass(frozen=True, kw_only=True)
class Absent:
    """A figure there is no data for, and the sentence that says why."""

    reason: str


def render_figure(figure: Figure | Absent) -> Markup:
    """Return a figure as HTML, or the sentence that stands for it."""
    if isinstance(figure, Absent):
        return element("p", figure.reason, class_="absent")
    return element(
        "figure",
        element(
            "figcaption",
            element("h3", figure.title),
            element("p", figure.explain, class_="explain"),
        ),
        figure.legend,
        element(
            "div",
            figure.drawing,
            class_="scroll",
            tabindex=0,
            role="group",
            aria_label=figure.title,
        ),
        details("Numbers", render_table(figure.table, label=figure.title)),
        id=figure.id,
    )


def details(summary: str, *content: str) -> Markup:
    """Return a part of the page that opens on demand."""
    return element("details", element("summary", summary), *content)


def render_table(table: Table, *, label: str) -> Markup:
    """Return a table that scrolls on its own when it is long or wide."""
    head = element("tr", join(element("th", name, scope="col") for name in table.head))
    body = join(element("tr", join(_cells(row))) for row in table.rows)
    return element(
        "div",
        element(
            "table",
            element("thead", head),
            element("tbody", body),
            class_=f"text{table.text_columns}",
            aria_label=label,
        ),
        class_="table",
        tabindex=0,
        role="group",
        aria_label=f"Table: {label}",
    )


def panel(title: str, note: str, drawing: Markup) -> Markup:
    """Return one of several small charts, with its own title."""
    return element(
        "div",
        element("p", element("b", title), " ", element("span", note), class_="panel-title"),
        drawing,
        class_="panel",
    )


def panels(parts: Iterable[Markup], *, wide: bool = False) -> Markup:
    """Return small charts side by side, as many as fit: three on a wide screen, or two."""
    return element("div", join(parts), class_="panels wide" if wide else "panels")


def _cells(row: Sequence[str]) -> Iterable[Markup]:
    yield element("th", row[0], scope="row")
    for text in row[1:]:
        yield element("td", text)
