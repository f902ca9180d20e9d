"""The shell of a page that is one file: style, script and drawings inside, nothing fetched.

The same content gives the same bytes.
"""

from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple

from fda_core.reports.drawing.colours import dark_rules, light_rules
from fda_core.reports.drawing.markup import Markup, element, join


class Section(NamedTuple):
    """A part of the page that the navigation leads to."""

    id: str
    title: str
    content: Markup


_HATCH = Markup(
    '<svg class="defs" width="0" height="0" aria-hidden="true"><defs>'
    '<pattern id="na" width="6" height="6" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)"><rect class="na-ground" width="6" height="6"/>'
    '<rect class="na-line" width="2" height="6"/></pattern></defs></svg>'
)


def render_page(
    title: str, header: Markup, *, sections: Sequence[Section], footer: str, lines: int
) -> str:
    """Return a page; `lines` is how many colours a family of curves needs at most."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", _style(lines)),
    )
    links = join(element("a", part.title, href=f"#{part.id}") for part in sections)
    main = element(
        "main",
        header,
        element("nav", links, aria_label="Sections"),
        join(element("section", element("h2", p.title), p.content, id=p.id) for p in sections),
        element("footer", element("p", footer)),
    )
    body = element("body", _HATCH, main, element("script", Markup(_data("report.js"))))
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _style(lines: int) -> Markup:
    dark = f"@media screen and (prefers-color-scheme:dark){{{dark_rules(lines)}}}"
    return Markup(_data("report.css") + light_rules(lines) + dark)


def _data(name: str) -> str:
    return resources.files("fda_core.reports").joinpath(name).read_text(encoding="utf-8")
