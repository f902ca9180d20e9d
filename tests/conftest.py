"""One thread in every test process, since idle ones that spin slow all down; and Ctrl-C heard."""

import os
import signal


def pytest_configure() -> None:
    """Say it before anything loads torch.

    A shell starts what it puts in the background with SIGINT ignored, and children inherit that;
    tests that interrupt a child need it to listen.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("KMP_BLOCKTIME", "0")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch

    torch.set_num_threads(1)
