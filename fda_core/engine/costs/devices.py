"""Devices and how long counted work takes on them.

    seconds = max(products' operations / rate, their bytes / bandwidth)
              + element-wise bytes / bandwidth + factorisations / their rate
    device  = max(seconds, launches · time of one) on a GPU, the sum of both on a processor
    total   = device + (read + written) / storage

Every speed is three: worst, likely and best. One worker, one unit after the other.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from fda_core.contract.cost import Seconds
from fda_core.engine.costs.work import Work

PRECISIONS = ("float64", "float32", "tf32", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class Speeds:
    """What a device does in a second."""

    products: float
    """FLOP of matrix products in the compute dtype."""
    wide_products: float
    """The same in float64."""
    factorisation: float
    bandwidth: float
    """Bytes."""
    launch_seconds: float
    storage: float
    """Bytes read and digested, or digested and written."""

    def seconds(self, work: Work, *, launches_overlap: bool) -> float:
        """Return the time of some work, its units one after the other."""
        products = max(
            work.flops / self.products + work.wide_flops / self.wide_products,
            work.product_bytes / self.bandwidth,
        )
        busy = products + work.traffic_bytes / self.bandwidth
        busy += work.factor_flops / self.factorisation
        launching = work.launches * self.launch_seconds
        device = max(busy, launching) if launches_overlap else busy + launching
        return device + (work.read_bytes + work.write_bytes) / self.storage


@dataclass(frozen=True, kw_only=True)
class Device:
    """A device: what it is called, what it holds, how fast it is at worst, likely and at best."""

    name: str
    title: str
    memory_bytes: int | None
    """None where work runs in main memory."""
    launches_overlap: bool
    worst: Speeds
    likely: Speeds
    best: Speeds

    def seconds(self, work: Work) -> Seconds:
        """Return how long some work takes."""
        low, likely, high = (
            speeds.seconds(work, launches_overlap=self.launches_overlap)
            for speeds in (self.best, self.likely, self.worst)
        )
        return Seconds(low=low, likely=likely, high=high)


@cache
def gpus(compute: str = "float32") -> Mapping[str, Device]:
    """Return the GPUs of `devices.toml`, computing in one of `PRECISIONS`."""
    text = resources.files(__package__).joinpath("devices.toml").read_text(encoding="utf-8")
    document = tomllib.loads(text)
    assumed = document["assumed"]
    return {
        name: Device(
            name=name,
            title=peaks["title"],
            memory_bytes=int(peaks["memory_bytes"]),
            launches_overlap=True,
            worst=_speeds(peaks, assumed, 0, compute),
            likely=_speeds(peaks, assumed, 1, compute),
            best=_speeds(peaks, assumed, 2, compute),
        )
        for name, peaks in document["devices"].items()
    }


def _speeds(
    peaks: Mapping[str, Any], assumed: Mapping[str, list[float]], place: int, compute: str
) -> Speeds:
    share = assumed["products"][place]
    return Speeds(
        products=peaks[compute] * share,
        wide_products=peaks["float64"] * share,
        factorisation=peaks["factorisation"] * assumed["factorisation"][place],
        bandwidth=peaks["bandwidth"] * assumed["bandwidth"][place],
        launch_seconds=assumed["launch_seconds"][place],
        storage=assumed["storage_bytes"][place],
    )
