"""One thread in every test process: idle threads that spin slow everything else down."""

import os


def pytest_configure() -> None:
    """Say it before anything loads torch."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("KMP_BLOCKTIME", "0")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch

    torch.set_num_threads(1)
