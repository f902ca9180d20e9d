"""How many worker processes a machine can carry."""

import os
from pathlib import Path

from fda_core.contract.plan import Plan


def usable_cores() -> int:
    """Return the cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory_bytes() -> int | None:
    """Return the memory that can be had without swapping, or None where nobody says.

    The smaller of what the kernel has and what this process's control group leaves.
    """
    found = []
    info = Path("/proc/meminfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) * 1024)
    limit = Path("/sys/fs/cgroup/memory.max")
    used = Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and limit.read_text().strip().isdigit():
        found.append(max(0, int(limit.read_text()) - int(used.read_text())))
    return min(found) if found else None


_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "can't start new thread")
"""What torch and threads say in a `RuntimeError`."""


def is_out_of_memory(problem: Exception) -> bool:
    """Say whether an error of the library's means that main memory is short."""
    if isinstance(problem, RuntimeError):
        return any(words in str(problem) for words in _OUT_OF_MEMORY)
    return isinstance(problem, MemoryError)


def suggested_workers(plan: Plan, *, cuda: bool) -> int:
    """Return one worker per accelerator, else one per core as far as memory reaches."""
    if cuda:
        return 1
    largest = max(unit.memory_bytes for unit in plan.units)
    free = free_memory_bytes()
    fitting = usable_cores() if free is None else max(1, free // largest)
    return max(1, min(usable_cores(), fitting))
