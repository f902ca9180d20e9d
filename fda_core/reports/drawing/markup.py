"""HTML and SVG from functions: whatever is not markup already is escaped on its way in."""

import re
from collections.abc import Iterable
from html import escape as html_escape

Attribute = str | int | float | bool | None

_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_VOID = frozenset({"meta", "br", "hr"})
_EMPTY = frozenset({"rect", "line", "polyline", "polygon", "path", "circle"})


class Markup(str):
    """Text that is markup. A plain `str` given to `element` is escaped; this is not."""

    __slots__ = ()


def escape(text: str) -> Markup:
    """Return text as markup: `&<>"'` as entities, characters XML forbids as U+FFFD."""
    if isinstance(text, Markup):
        return text
    return Markup(html_escape(_NOT_XML.sub("\ufffd", text), quote=True))


def element(tag: str, *children: str, **attributes: Attribute) -> Markup:
    """Return one element.

    `class_` becomes `class`, other underscores hyphens. None and False leave an attribute
    out, True gives it without a value.
    """
    opening = f"<{tag}{''.join(_attribute(*item) for item in attributes.items())}"
    if tag in _EMPTY and not children:
        return Markup(f"{opening}/>")
    if tag in _VOID:
        return Markup(f"{opening}>")
    return Markup(f"{opening}>{join(children)}</{tag}>")


def join(parts: Iterable[str], separator: str = "") -> Markup:
    """Return the parts one after the other, each escaped unless it is markup."""
    return Markup(separator.join(escape(part) for part in parts))


def px(value: float) -> str:
    """Return a length or position with at most one decimal, as short as it can be."""
    text = f"{value:.1f}"
    text = text.removesuffix(".0")
    return "0" if text == "-0" else text


def _attribute(name: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    key = name.rstrip("_").replace("_", "-")
    if value is True:
        return f" {key}"
    text = px(value) if isinstance(value, float) else str(value)
    return f' {key}="{escape(text)}"'
