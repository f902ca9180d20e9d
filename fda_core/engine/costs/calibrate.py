"""This machine's processor as a device to predict for: measured in about two seconds.

One thread, as a worker runs unless told otherwise, in CPU seconds, so that other processes
count little; a machine whose cores share caches or power is slower when all are busy. Operands
go round in more memory than the inner caches hold, as a layer's do. Loads torch.
"""

import hashlib
import itertools
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from fda_core.engine.costs.devices import Device, Speeds
from fda_core.engine.device import describe_device, fast_float32, float32_kernel

WIDTH, INNER, ROWS = 384, 1536, 320
SETS = 8
ROUNDS = 5
MEGABYTE = 2**20
SPREAD = (0.6, 1.0, 1.25)
"""How far real steps were from these speeds, at worst and at best: `make bench-cost`."""


def this_processor(compute: str = "float32") -> Device:
    """Return the processor this runs on, computing in float32 or float64 on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with fast_float32(float32_kernel()):
            likely = _measured(torch.float64 if compute == "float64" else torch.float32)
    finally:
        torch.set_num_threads(threads)
    worst, _, best = SPREAD
    return Device(
        name="here",
        title=f"{describe_device(torch.device('cpu'))}, one thread, measured now",
        memory_bytes=None,
        launches_overlap=False,
        worst=_scaled(likely, worst),
        likely=likely,
        best=_scaled(likely, best),
    )


def _measured(dtype: torch.dtype) -> Speeds:
    return Speeds(
        products=_products(dtype),
        wide_products=_products(torch.float64),
        factorisation=_factorisation(),
        bandwidth=_bandwidth(dtype),
        launch_seconds=_launch_seconds(),
        storage=_storage(),
    )


def _scaled(speeds: Speeds, share: float) -> Speeds:
    return Speeds(
        products=speeds.products * share,
        wide_products=speeds.wide_products * share,
        factorisation=speeds.factorisation * share,
        bandwidth=speeds.bandwidth * share,
        launch_seconds=speeds.launch_seconds / share,
        storage=speeds.storage * share,
    )


def _seconds(work: Callable[[], object]) -> float:
    """Return the median CPU time of some rounds after one that is not counted."""
    times = []
    for _ in range(ROUNDS + 1):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return max(statistics.median(times[1:]), 1e-9)


def _products(dtype: torch.dtype) -> float:
    """Return the rate of the three products of a layer's weight: forward and both gradients."""
    numbers = torch.Generator().manual_seed(0)

    def made(*shape: int) -> Tensor:
        return torch.randn(shape, generator=numbers, dtype=dtype)

    sets = [(made(ROWS, WIDTH), made(INNER, WIDTH), made(ROWS, INNER)) for _ in range(SETS)]

    def work() -> None:
        for x, weight, gradient in sets:
            _ = x @ weight.T, gradient @ weight, gradient.T @ x

    return 3 * SETS * 2 * ROWS * WIDTH * INNER / _seconds(work)


def _factorisation() -> float:
    matrix = torch.randn(WIDTH, WIDTH, dtype=torch.float64, generator=torch.Generator())
    symmetric = matrix @ matrix.T
    return 9 * WIDTH**3 / _seconds(lambda: torch.linalg.eigh(symmetric))


def _bandwidth(dtype: torch.dtype) -> float:
    """Return the rate of a mixture as backward passes have it: sums, products, an activation."""
    numbers = torch.Generator().manual_seed(0)
    size = ROWS * INNER
    sets = [torch.randn(size, generator=numbers, dtype=dtype) for _ in range(SETS)]

    def work() -> None:
        for a, b in itertools.pairwise(sets):
            product = a * b
            total = product + a
            difference = total - product
            _ = torch.nn.functional.gelu(difference)

    moved = (SETS - 1) * (3 * 3 + 2) * size * dtype.itemsize
    return moved / _seconds(work)


def _launch_seconds() -> float:
    """Return the time of one small operation, its share of autograd with it."""
    count = 60

    def work() -> None:
        x = torch.ones(8, requires_grad=True)
        y = x
        for _ in range(count):
            y = y * x
        (first,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        torch.autograd.grad(first.sum(), x)

    return _seconds(work) / (8 * count)


def _storage() -> float:
    data = bytes(32 * MEGABYTE)
    return len(data) / _seconds(lambda: hashlib.sha256(data).digest())
