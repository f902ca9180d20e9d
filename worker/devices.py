"""What this worker computes on, and how much memory it has."""

import ctypes
import gc
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fda_core.contract.service.names import CPU, GPU, GPU_LARGE
from fda_core.errors import NoDevice

if TYPE_CHECKING:
    import torch

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, kw_only=True)
class Devices:
    """The processor and, if there is one, the accelerator."""

    main: "torch.device"
    cpu: "torch.device"
    name: str

    @property
    def kind(self) -> Literal["cpu", "gpu"]:
        """Return which kind of queue this worker is for."""
        return "gpu" if self.main.type == "cuda" else "cpu"

    def of(self, queue: str) -> "torch.device":
        """Return where units of a job with this queue are computed.

        All layers of a job are computed on one kind of device, or its bytes would depend on
        who took which: a worker with a GPU computes a cpu job on the processor.
        """
        return self.cpu if queue == CPU else self.main

    def memory(self) -> tuple[int | None, int | None]:
        """Return the accelerator's memory and what is used of it, in bytes."""
        if self.kind == "cpu":
            return None, None
        import torch

        free, total = torch.cuda.mem_get_info(self.main)
        return total, total - free

    def begin_unit(self) -> None:
        """Count the accelerator's peak from here on."""
        if self.kind == "gpu":
            import torch

            torch.cuda.reset_peak_memory_stats(self.main)

    def end_unit(self) -> None:
        """Give what a unit left back to the system, so that memory does not grow."""
        gc.collect()
        _trim()
        if self.kind == "gpu":
            import torch

            torch.cuda.empty_cache()


def find_devices(wanted: str, *, threads: int) -> Devices:
    """Return the devices for `auto`, `cpu`, `cuda` or `cuda:0`, or raise `NoDevice`.

    Loads torch and sets its number of threads.
    """
    import torch

    from fda_core.engine.device import choose_device, describe_device

    torch.set_num_threads(threads)
    main = choose_device(wanted)
    return Devices(main=main, cpu=torch.device("cpu"), name=describe_device(main))


def queues_for(devices: Devices, wanted: Sequence[str]) -> tuple[str, ...]:
    """Return the queues to take from: as wanted, else those of the device.

    A worker with a GPU takes publishing too, so that one worker is enough.
    """
    if not wanted:
        return (GPU, CPU) if devices.kind == "gpu" else (CPU,)
    if devices.kind == "cpu" and {GPU, GPU_LARGE} & set(wanted):
        raise NoDevice(
            f"queues {', '.join(wanted)}: torch sees no GPU here ({devices.name})",
            hint="Start this worker with --queues cpu.",
        )
    return tuple(dict.fromkeys(wanted))


def host_memory() -> tuple[int, int]:
    """Return main memory and what is used of it, in bytes: the container's where it is limited."""
    if not _MEMINFO.exists():
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), 0
    lines = (line.split() for line in _MEMINFO.read_text().splitlines())
    sizes = {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if len(words) > 1}
    total, used = sizes["MemTotal"], sizes["MemTotal"] - sizes["MemAvailable"]
    limit = _number(_CGROUP / "memory.max")
    if limit is not None and limit < total:
        return limit, _number(_CGROUP / "memory.current") or used
    return total, used


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _trim() -> None:
    """Return free heap pages to the system where the C library can (glibc)."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
