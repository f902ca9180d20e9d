"""Devices by name, and a float32 kernel that stays float32."""

import subprocess
import sys

import pytest
import torch

from fda_core.engine.device import choose_device, fast_float32, float32_kernel
from fda_core.errors import NoDevice


def test_auto_without_an_accelerator_is_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"


@pytest.mark.parametrize("name", ["cuda", "cuda:7", "tpu", "meta", "cuda:x", ""])
def test_a_device_that_is_not_there_is_refused_by_name(monkeypatch, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(NoDevice, match=name or "''"):
        choose_device(name)


def test_the_chosen_kernel_keeps_float32_accuracy_and_the_setting_is_restored():
    a, b = torch.randn(200, 300), torch.randn(300, 150)
    exact = a.double() @ b.double()
    before = str(getattr(torch.backends.mkldnn, "matmul", None) and _precision())
    with fast_float32(float32_kernel()):
        error = ((a @ b).double() - exact).norm() / exact.norm()
    assert float(error) < 2e-6
    assert before == str(getattr(torch.backends.mkldnn, "matmul", None) and _precision())


def _precision() -> str:
    return torch.backends.mkldnn.matmul.fp32_precision


def test_a_kernel_that_rounds_to_bfloat16_is_not_chosen(monkeypatch):
    matmul = torch.Tensor.__matmul__

    def rounding(a, b):
        if a.dtype is torch.float32:
            return matmul(a.bfloat16(), b.bfloat16()).float()
        return matmul(a, b)

    monkeypatch.setattr(torch.Tensor, "__matmul__", rounding)
    assert float32_kernel() == "default"


def test_the_choice_is_the_same_each_time():
    assert len({float32_kernel() for _ in range(5)}) == 1


def test_the_peak_of_a_process_is_its_own_and_not_of_who_started_it():
    held = torch.ones(200 * 2**20)
    code = "import torch; from fda_core.engine.device import peak_memory_bytes as peak\n"
    code += "before = peak(torch.device('cpu')); x = torch.ones(50 * 2**20)\n"
    code += "print(before, peak(torch.device('cpu')))"
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    before, after = map(int, said)
    assert held.nbytes == 800 * 2**20
    assert before < held.nbytes
    assert 190 * 2**20 < after - before < 260 * 2**20
