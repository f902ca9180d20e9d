"""One weight file, written as its tensors come.

The header is known from the plan, so tensors stream straight to storage in the planned order
and nothing is held or copied afterwards. The file appears on commit, whole.
"""

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from math import prod
from types import TracebackType
from typing import NamedTuple, Self

import torch
from torch import Tensor

from fda_core.checkpoints.dtypes import name_of
from fda_core.checkpoints.layout import (
    TensorSpec,
    aligned_order,
    file_size_bytes,
    index_json,
    plan_header,
)
from fda_core.checkpoints.write_behind import WriteBehind
from fda_core.errors import InternalError
from fda_core.storage.base import ObjectWriter, Storage

__all__ = [
    "ShardWriter",
    "TensorSpec",
    "WrittenFile",
    "aligned_order",
    "file_size_bytes",
    "index_json",
    "plan_header",
]


class WrittenFile(NamedTuple):
    """A finished file: length, SHA-256 as hex, and its tag in storage."""

    size_bytes: int
    sha256: str
    etag: str


class ShardWriter:
    """A context that takes tensors in the planned order and then commits.

    Leaving it without a commit discards the file. Tensors on an accelerator are copied to
    main memory one at a time. Pieces are written and digested on another thread; an error of
    storage then comes with a later piece, or with the commit.
    """

    def __init__(self, storage: Storage, uri: str, specs: Sequence[TensorSpec]) -> None:
        self._storage = storage
        self._uri = uri
        self._specs = tuple(specs)
        self._next = 0
        self._digest = hashlib.sha256()
        self._stack = ExitStack()
        self._behind: WriteBehind | None = None
        self._writer: ObjectWriter | None = None

    def __enter__(self) -> Self:
        header = plan_header(self._specs)
        self._writer = self._stack.enter_context(self._storage.create(self._uri))
        self._behind = self._stack.enter_context(WriteBehind(self._append))
        try:
            self._append(header)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, problem, trace)
        self._writer = None

    def add(self, name: str, tensor: Tensor) -> None:
        """Append the next tensor; any other name, dtype or shape is `InternalError`."""
        planned = self._specs[self._next] if self._next < len(self._specs) else None
        given = TensorSpec(name, name_of(tensor.dtype), tuple(tensor.shape))
        if given != planned:
            raise InternalError(f"{self._uri}: tensor {given} came where {planned} is planned")
        self._flush()
        self._append(_bytes_of(tensor))
        self._next += 1

    def add_pieces(self, name: str, pieces: Iterable[Tensor]) -> None:
        """Append the next tensor as its elements come, in pieces that may be used again."""
        planned = self._specs[self._next] if self._next < len(self._specs) else None
        count = 0
        for piece in pieces:
            count += piece.numel()
            dtype = name_of(piece.dtype)
            if planned is None or (name, dtype) != planned[:2] or count > prod(planned.shape):
                raise InternalError(
                    f"{self._uri}: {count} elements of {name} in {dtype} came where {planned} is "
                    "planned"
                )
            if self._behind is not None:
                self._behind.put(_bytes_of(piece))
        if planned is None or name != planned.name or count < prod(planned.shape):
            raise InternalError(
                f"{self._uri}: {name} ended after {count} elements where {planned} is planned"
            )
        self._next += 1

    def commit(self) -> WrittenFile:
        """Make the file appear, durable; refuses while tensors are missing."""
        if self._next < len(self._specs):
            raise InternalError(
                f"{self._uri}: {len(self._specs) - self._next} tensors are missing, "
                f"next {self._specs[self._next].name!r}"
            )
        self._flush()
        info = self._open_writer().commit()
        return WrittenFile(info.size_bytes, self._digest.hexdigest(), info.etag)

    def _flush(self) -> None:
        if self._behind is not None:
            self._behind.flush()

    def _append(self, data: bytes | memoryview) -> None:
        self._open_writer().write(data)
        self._digest.update(data)

    def _open_writer(self) -> ObjectWriter:
        if self._writer is None:
            raise InternalError(f"{self._uri}: its writer is not open")
        return self._writer


def _bytes_of(tensor: Tensor) -> memoryview:
    """Return a tensor's elements as bytes, without a copy if it is contiguous on the host.

    Flat first, since 0-d tensors have no view of another width.
    """
    flat = tensor.detach().to("cpu").contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data
