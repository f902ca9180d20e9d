"""Programs that stand in for the service's processes, and `fda up` with them.

Every one writes to the diary (STANDIN_DIARY) when it starts, when it is asked to end and
when it ends. `python -m tests.support.stand_in_processes up …` is the command itself, with these;
so is `demo`.
"""

import http.server
import json
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

LONGEST_SECONDS = 20.0


def until(is_so: Callable[[], Any], what: str, *, seconds: float = LONGEST_SECONDS) -> Any:
    """Wait for something and return it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = is_so()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"not so after {seconds:g} s: {what}")


def write(line: str) -> None:
    with Path(os.environ["STANDIN_DIARY"]).open("a") as diary:
        diary.write(line + "\n")


class Api(http.server.BaseHTTPRequestHandler):
    """Is ready, and knows the keys that `admin` made for its database."""

    def do_GET(self) -> None:
        key = (self.headers.get("authorization") or "").removeprefix("Bearer ")
        known = self.path == "/readyz" or key in keys_file().read_text().split()
        missing = os.environ.get("STANDIN_MISSING") if self.path == "/readyz" else None
        body = json.dumps({"detail": missing}).encode() if missing else b""
        self.send_response(503 if missing else 200 if known else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        print("api was asked", self.path, flush=True)


def keys_file() -> Path:
    return Path(unquote(os.environ["FDA_DATABASE_URL"].removeprefix("sqlite:///")))


def admin(arguments: list[str]) -> None:
    keys_file().touch()
    if arguments[0] == "create-key":
        key = f"fda_{secrets.token_hex(8)}"
        with keys_file().open("a") as file:
            file.write(key + "\n")
        print("a warning of a library", file=sys.stderr)
        print(key)
    write(f"admin {arguments[0]}")


def serve(name: str) -> None:
    """Run until told to stop, taking a moment for it."""
    stop = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: write(f"{name} interrupted"))
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    write(f"{name} started {os.getpid()} {json.dumps(dict(os.environ))}")
    print(f"{name} says hello", flush=True)
    if os.environ.get("STANDIN_DIES") == name:
        print(f"{name} has no luck", flush=True)
        sys.exit(3)
    if name == "api":
        keys_file().touch()
        server = http.server.ThreadingHTTPServer(
            (os.environ["FDA_HOST"], int(os.environ["FDA_PORT"])), Api
        )
        threading.Thread(target=server.serve_forever, daemon=True).start()
    stop.wait()
    write(f"{name} asked")
    if os.environ.get("STANDIN_HANGS") == name:
        time.sleep(600)
    time.sleep(0.1)
    write(f"{name} ended")


def up(arguments: list[str]) -> None:
    """Run the real command with stand-ins for the service's processes."""
    from functools import partial

    from fda_core.cli import up as module
    from fda_core.cli.embedded import EmbeddedSettings, Programs
    from fda_core.cli.main import run
    from fda_core.supervise.supervisor import Restarts

    me = (sys.executable, "-m", "tests.support.stand_in_processes")
    programs = Programs(
        api=(*me, "api"),
        controller=(*me, "controller"),
        worker=(*me, "worker"),
        admin=(*me, "admin"),
    )
    module.Programs = lambda: programs  # type: ignore[assignment,misc]
    patience = float(os.environ.get("STANDIN_PATIENCE", "90"))
    module.EmbeddedSettings = partial(EmbeddedSettings, ready_seconds=patience)  # type: ignore[assignment,misc]
    module.Restarts = lambda: Restarts(first_wait_seconds=0.05, deaths=3)  # type: ignore[assignment,misc]
    run(["up", *arguments])


def demo(folder: str) -> None:
    """Run the real demo with the fake service as its api."""
    from fda_core.cli import demo as module
    from fda_core.cli.embedded import Programs
    from fda_core.cli.main import run

    me = (sys.executable, "-m")
    programs = Programs(
        api=(*me, "tests.support.fake_service"),
        controller=(*me, "tests.support.stand_in_processes", "controller"),
        worker=(*me, "tests.support.stand_in_processes", "worker"),
        admin=(sys.executable, "-c", "print('fda_test')"),
    )
    module.Programs = lambda: programs  # type: ignore[assignment,misc]
    run(["demo", folder])


if __name__ == "__main__":
    if sys.argv[1] == "demo":
        demo(sys.argv[2])
    elif sys.argv[1] == "up":
        up(sys.argv[2:])
    elif sys.argv[1] == "admin":
        admin(sys.argv[2:])
    else:
        serve(sys.argv[1])
