"""Where tensors are computed, and how the processor multiplies matrices."""

import platform
import re
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from fda_core.errors import NoDevice

_HIGH_WATER = re.compile(r"^VmHWM:\s*(\d+) kB$", re.MULTILINE)


def choose_device(wanted: str) -> torch.device:
    """Return the device for `auto`, `cpu`, `cuda` or `cuda:i`, or raise `NoDevice`."""
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    name = "cuda" if wanted == "auto" else wanted
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type != "cuda":
        raise NoDevice(f"{wanted!r} is no device", hint="Use auto, cpu, cuda or cuda:0.")
    if not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count():
        raise NoDevice(
            f"{wanted}: torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices",
            hint="Use --device cpu or auto.",
        )
    return device


def describe_device(device: torch.device) -> str:
    """Return the device's name as people know it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    model = ""
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text(errors="replace").splitlines()
        model = next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), "")
    return f"cpu {model or platform.processor() or platform.machine()}".strip()


def peak_memory_bytes(device: torch.device) -> int:
    """Return the largest memory use so far: of the device, or of this process.

    Linux keeps `ru_maxrss` over exec, so that a process would begin at what the one that started it
    held; the high-water mark in its status is its own.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists() and (mark := _HIGH_WATER.search(status.read_text(errors="replace"))):
        return int(mark[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _is_amd() -> bool:
    info = Path("/proc/cpuinfo")
    return info.exists() and "AuthenticAMD" in info.read_text(errors="replace")[:4096]


def float32_kernel() -> str:
    """Return which float32 matrix kernel `fast_float32` picks here: `onednn` or `default`.

    MKL runs AVX2 kernels on AMD processors that have AVX-512; oneDNN's reach twice the rate
    at the same accuracy. torch routes float32 products to oneDNN when it may use bfloat16;
    where the processor then really would (AMX), or torch is too old to be asked, the
    default stays. Depends on the machine alone, so that equal machines give equal bytes.
    """
    if not _is_amd() or _onednn_matmul() is None:
        return "default"
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return "default"
    with fast_float32("onednn"):
        return "onednn" if _is_float32_accurate() else "default"


def _onednn_matmul() -> Any:
    """Return torch's switches of oneDNN's matrix products, or None where it has none."""
    switches: Any = torch.backends.mkldnn
    return getattr(switches, "matmul", None) if switches.is_available() else None


def _is_float32_accurate() -> bool:
    """Say whether products keep float32 accuracy: bfloat16 ones are off by some 1e-3."""
    numbers = torch.Generator().manual_seed(0)
    for shape in ((320, 256, 512), (64, 64, 64), (33, 257, 129)):
        a = torch.randn(shape[0], shape[1], generator=numbers)
        b = torch.randn(shape[1], shape[2], generator=numbers)
        exact = a.double() @ b.double()
        if float(((a @ b).double() - exact).norm() / exact.norm()) > 2e-6:
            return False
    return True


@contextmanager
def fast_float32(kernel: str) -> Iterator[None]:
    """Use the float32 matrix kernel that `float32_kernel` picked, and restore the setting."""
    if kernel != "onednn":
        yield
        return
    switches = _onednn_matmul()
    before = switches.fp32_precision
    switches.fp32_precision = "bf16"
    try:
        yield
    finally:
        switches.fp32_precision = before


@contextmanager
def plain_float32() -> Iterator[None]:
    """Undo `fast_float32` for a while: oneDNN takes 13 times torch's time for inner products."""
    switches = _onednn_matmul()
    if switches is None or switches.fp32_precision != "bf16":
        yield
        return
    switches.fp32_precision = "ieee"
    try:
        yield
    finally:
        switches.fp32_precision = "bf16"
