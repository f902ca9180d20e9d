"""How sure a mark is: a line over its standard errors, with a cap at either end."""

from fda_core.reports.drawing.markup import Markup, element, join

_CAP = 3.5


def upright(x: float, *, low: float, high: float) -> Markup:
    """Return an upright whisker between two pixels."""
    return join(
        [
            element("line", x1=x, x2=x, y1=low, y2=high, class_="whisker"),
            *(
                element("line", x1=x - _CAP, x2=x + _CAP, y1=end, y2=end, class_="whisker")
                for end in (low, high)
            ),
        ]
    )


def level(y: float, *, low: float, high: float) -> Markup:
    """Return a level whisker between two pixels."""
    return join(
        [
            element("line", x1=low, x2=high, y1=y, y2=y, class_="whisker"),
            *(
                element("line", x1=end, x2=end, y1=y - _CAP, y2=y + _CAP, class_="whisker")
                for end in (low, high)
            ),
        ]
    )
