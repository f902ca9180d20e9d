"""What a command took is its own, however large the process that asked for it."""

import resource
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.bench.vision.command import Taken, run

MEGABYTE = 10**6


def taken(tmp_path: Path, code: str) -> Taken:
    return run([sys.executable, "-S", "-c", code], log=tmp_path / "log.txt", environment={})


def test_the_peak_is_the_commands_and_not_of_who_runs_it(tmp_path: Path) -> None:
    held = np.ones(300 * MEGABYTE // 8)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 > 300 * MEGABYTE
    little = taken(tmp_path, "pass")
    much = taken(tmp_path, "held = bytes(range(256)) * 400_000")
    assert held.size
    assert little.peak < 60 * MEGABYTE
    assert 100 * MEGABYTE < much.peak < 160 * MEGABYTE


def test_seconds_of_the_processor_the_code_and_the_words_are_the_commands(tmp_path: Path) -> None:
    code = "import sys, time\nwhile time.process_time() < 0.3: pass\nprint('done')\nsys.exit(3)"
    found = taken(tmp_path, code)
    assert found.code == 3
    assert found.cpu_seconds == pytest.approx(0.3, abs=0.2)
    assert found.wall_seconds > 0.3
    assert (tmp_path / "log.txt").read_text() == "done\n"
