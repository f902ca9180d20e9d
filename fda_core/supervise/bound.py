"""Run a command that dies with its parent: `python -I -S bound.py PARENT COMMAND…`.

A file of its own, run before the command in the same process, since code between fork and
exec of a program with threads may hang. Linux kills the process when the thread that started
it ends; elsewhere the command just runs, and `leftovers` finds it at the next start.
Imports nothing of ours: it is started without our package's path.
"""

import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Tie this process to its parent, then become the command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the supervisor is gone")
    try:
        os.execvp(command[0], command)
    except OSError as problem:
        sys.exit(f"{command[0]} cannot be started: {problem.strerror}")


if __name__ == "__main__":
    main()
