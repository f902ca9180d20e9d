"""Counted work: operations by kind, bytes moved, kernels started. Adds up."""

from dataclasses import dataclass, fields


@dataclass(frozen=True, kw_only=True)
class Work:
    """What some computation does, whatever it runs on.

    FLOPs count two per multiply-add. `flops` are matrix products in the compute dtype, `wide_`
    those in float64 whatever it is, `factor_` eigen- and singular value decompositions in
    float64. Element-wise work is counted by the bytes it reads and writes.
    """

    flops: int = 0
    wide_flops: int = 0
    factor_flops: int = 0
    product_bytes: int = 0
    """Operands and results of matrix products."""
    element_flops: int = 0
    """Operations of element-wise work, where they are counted; their time is their bytes'."""
    traffic_bytes: int = 0
    """Operands and results of everything else."""
    launches: int = 0
    """Kernels started."""
    read_bytes: int = 0
    """From storage; `write_bytes` to it."""
    write_bytes: int = 0

    def __add__(self, other: "Work") -> "Work":
        """Return both together."""
        return Work(
            **{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        )

    def __mul__(self, times: int) -> "Work":
        """Return this so many times."""
        return Work(**{f.name: getattr(self, f.name) * times for f in fields(self)})

    @property
    def all_flops(self) -> int:
        """Return the operations of all kinds."""
        return self.flops + self.wide_flops + self.factor_flops + self.element_flops

    @property
    def moved_bytes(self) -> int:
        """Return the bytes that go through the device's memory."""
        return self.product_bytes + self.traffic_bytes
