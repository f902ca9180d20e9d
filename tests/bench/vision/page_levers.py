"""What was tried to be faster and better, and how well a data-free proxy ranks methods.

levers.json: [{"lever", "what", "kept": bool, "before": MEASURED, "after": MEASURED, "note"}]
with MEASURED = {"alignment", "accuracy" (0 to 1), "cpu_seconds"}, each of them optional;
proxy.json: [{"method", "proxy", "accuracy" (0 to 1)}], the proxy of any unit.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fda_core.reports.drawing.line_chart import Scale
from fda_core.reports.drawing.point_chart import PointChart, Series, Spot, draw_points
from fda_core.reports.drawing.scales import span
from fda_core.reports.figures import Figure, Table
from fda_core.reports.quantities import NO_VALUE
from tests.bench.vision.page_accuracy import family

Measured = Mapping[str, float]
FORMATS: Mapping[str, tuple[float, str]] = {
    "alignment": (1.0, ".3f"),
    "accuracy": (100.0, ".1f"),
    "cpu_seconds": (1.0, ".0f"),
}
"""By key: what a value is multiplied with, and how it is written."""


def lever_table(levers: Sequence[Mapping[str, Any]]) -> Table:
    """Return a row for each lever, those that were kept first."""
    rows = [
        (
            lever["lever"],
            " ".join(filter(None, [lever["what"], lever.get("note", "")])),
            "kept" if lever["kept"] else "rejected",
            *(_change(lever, key) for key in FORMATS),
        )
        for lever in sorted(levers, key=lambda lever: not lever["kept"])
    ]
    head = ("lever", "what it is", "verdict", "alignment", "accuracy (%)", "CPU s")
    return Table(head=head, rows=rows, text_columns=2)


def proxy_figure(proxies: Sequence[Mapping[str, Any]]) -> Figure:
    """Return accuracy against the proxy, and their rank correlation in words."""
    spots = {
        key: [
            Spot(
                x=each["proxy"],
                y=100 * each["accuracy"],
                error=None,
                tip=f"{each['method']}: proxy {each['proxy']:.4g}, {100 * each['accuracy']:.1f} %",
                label=each["method"] if len(proxies) <= 12 else "",
            )
            for each in proxies
            if _family(each) == key
        ]
        for key in dict.fromkeys(_family(each) for each in proxies)
    }
    first, last = span([each["proxy"] for each in proxies])
    low, high = span([100 * each["accuracy"] for each in proxies])
    rho = rank_correlation(
        [each["proxy"] for each in proxies], [each["accuracy"] for each in proxies]
    )
    chart = PointChart(
        label="Accuracy against the data-free proxy",
        x=Scale(title="proxy", low=first, high=last),
        y=Scale(title="mean accuracy (%)", low=low, high=high),
        series=[Series(family=key, spots=found) for key, found in spots.items()],
        width=720.0,
        height=340.0,
    )
    return Figure(
        id="proxy",
        title="Can a merge be judged without data?",
        explain=(
            "Each point is a method: its proxy, computed from held-out anchors without any image, "
            "against its accuracy on the test parts. Spearman’s rank correlation of the two is "
            f"{rho:+.2f} over {len(proxies)} methods; −1 or +1 would let the proxy choose, 0 "
            "would not help at all."
        ),
        drawing=draw_points(chart),
        table=Table(
            head=("method", "proxy", "accuracy (%)"),
            rows=[
                (each["method"], f"{each['proxy']:.4g}", f"{100 * each['accuracy']:.1f}")
                for each in proxies
            ],
        ),
    )


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Return Spearman's rank correlation, equal values sharing their mean rank; 0 if undefined."""
    first, second = _ranks(a), _ranks(b)
    if len(a) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def _ranks(values: Sequence[float]) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(count)
    means: np.ndarray[tuple[int], np.dtype[np.float64]] = (ends - (count - 1) / 2.0)[place]
    return means


def _family(each: Mapping[str, Any]) -> str:
    name = str(each["method"])
    return family({"name": name, "method": None, "group": "fda" if "fda" in name else ""})


def _change(lever: Mapping[str, Any], key: str) -> str:
    before, after = (_written(lever.get(moment) or {}, key) for moment in ("before", "after"))
    return NO_VALUE if before == after == NO_VALUE else f"{before} → {after}"


def _written(measured: Measured, key: str) -> str:
    if measured.get(key) is None:
        return NO_VALUE
    factor, form = FORMATS[key]
    return format(factor * measured[key], form)
