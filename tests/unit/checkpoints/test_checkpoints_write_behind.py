"""Bytes written on another thread come whole, in order, and their errors are not lost."""

import pytest

from fda_core.checkpoints import write_behind
from fda_core.checkpoints.write_behind import WriteBehind


@pytest.mark.parametrize("sizes", [[], [1], [3, 5, 8], [100, 0, 7], [8] * 20, [1000]])
def test_bytes_come_in_order_though_their_memory_is_used_again(sizes, monkeypatch):
    monkeypatch.setattr(write_behind, "BUFFER_BYTES", 8)
    written, expected = bytearray(), bytearray()
    with WriteBehind(written.extend) as behind:
        for number, size in enumerate(sizes):
            data = bytearray([number]) * size
            expected += data
            behind.put(memoryview(data))
            data[:] = b"\xff" * size
        behind.flush()
        behind.flush()
    assert written == expected


def test_an_error_is_raised_by_the_flush_at_the_latest(monkeypatch):
    monkeypatch.setattr(write_behind, "BUFFER_BYTES", 8)

    def fail(_data):
        raise OSError("full")

    with WriteBehind(fail) as behind, pytest.raises(OSError, match="full"):  # noqa: PT012
        for _ in range(10):
            behind.put(memoryview(b"12345678"))
        behind.flush()
