"""Stored tensors in parts: the right elements, whatever is asked for and read ahead."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from fda_core.engine import window
from fda_core.engine.window import Stored, Window


class Tensors:
    """Tensors that lie somewhere, and what was read of them."""

    def __init__(self):
        self.reads = []

    def stored(self, flat):
        def read(first, out):
            self.reads.append((first, len(out)))
            out.copy_(flat[first : first + len(out)])

        return Stored(flat.dtype, flat.numel(), read)


@pytest.fixture
def threads():
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("step", [1, 3, 8, 50, 100])
@pytest.mark.parametrize("hold", [False, True])
def test_passes_over_tensor_after_tensor_give_their_elements(
    dtype, step, hold, threads, monkeypatch
):
    monkeypatch.setattr(window, "PART_BYTES", 64)
    flats = [torch.arange(100 * k, 100 * k + size).to(dtype) for k, size in enumerate((90, 5, 41))]
    tensors = Tensors()
    stored = [tensors.stored(flat) for flat in flats]
    view = Window(threads)
    for flat, here, then in zip(flats, stored, [*stored[1:], None], strict=True):
        view.open(here, then=then, hold=hold)
        for _ in range(3):
            for start in range(0, len(flat), step):
                stop = min(start + step, len(flat))
                assert torch.equal(view.cut(start, stop), flat[start:stop])
    view.close()


def test_a_tensor_that_is_held_or_fits_is_read_once(threads, monkeypatch):
    monkeypatch.setattr(window, "PART_BYTES", 64)
    for size, hold in ((100, True), (16, False)):
        tensors = Tensors()
        view = Window(threads)
        view.open(tensors.stored(torch.zeros(size)), then=None, hold=hold)
        for _ in range(3):
            for start in range(0, size, 4):
                view.cut(start, start + 4)
        assert tensors.reads == [(0, size)]


def test_the_next_part_and_the_next_tensor_are_read_ahead(threads, monkeypatch):
    monkeypatch.setattr(window, "PART_BYTES", 64)
    tensors = Tensors()
    first, second = (tensors.stored(torch.zeros(24)) for _ in range(2))
    view = Window(threads)
    view.open(first, then=second, hold=False)
    view.cut(0, 8)
    view.cut(16, 24)
    view.close()
    assert tensors.reads == [(0, 16), (16, 8), (0, 16)]


def test_an_error_of_reading_ahead_is_raised_where_the_elements_are_wanted(threads, monkeypatch):
    monkeypatch.setattr(window, "PART_BYTES", 64)

    def read(first, out):
        if first:
            raise OSError("gone")
        out.zero_()

    view = Window(threads)
    view.open(Stored(torch.float32, 32, read), then=None, hold=False)
    view.cut(0, 16)
    with pytest.raises(OSError, match="gone"):
        view.cut(16, 32)
    view.close()
