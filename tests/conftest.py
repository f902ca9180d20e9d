"""One thread in every test process, since idle ones that spin slow all down; and Ctrl-C heard.

Property tests draw the same examples on every run, so that a gate says the same of the same
code; `make fuzz` draws new ones.
"""

import os
import signal

from hypothesis import settings

settings.register_profile("same", derandomize=True, database=None, print_blob=True)
settings.register_profile("new", derandomize=False, database=None, print_blob=True)
settings.load_profile("same")


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
