"""The dashboard in a real browser: Debian's Chromium, and `python -m api` as its own process."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from api.auth.service import create_key
from api.db.session import Database, open_engine
from fda_core.contract.rest.keys import KeyRequest
from tests.support.rest import SECRET
from tests.support.stand_ins import open_database

BINARIES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
START_SECONDS = 30


def chromium() -> str | None:
    """Return a Chromium of this machine, None if there is none; nothing is ever downloaded."""
    return next(filter(None, map(shutil.which, BINARIES)), None)


@dataclass(kw_only=True)
class Site:
    """A running service, the database under it, and a key of every role."""

    url: str
    folder: Path
    database: Database
    keys: dict[str, str]

    @property
    def workspace(self) -> Path:
        return self.folder / "workspace"


@contextmanager
def site(folder: Path, *, redis_url: str) -> Iterator[Site]:
    """Run `python -m api` on a free port until the block ends."""
    database_url = f"sqlite:///{folder / 'fda.db'}"
    open_database(database_url).close()
    database = Database(open_engine(database_url))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    settings = {
        "FDA_DATABASE_URL": database_url,
        "FDA_REDIS_URL": redis_url,
        "FDA_WORKSPACE": str(folder / "workspace"),
        "FDA_ROOTS": f'["/models", "{folder}"]',
        "FDA_SECRET": SECRET,
        "FDA_PORT": str(port),
    }
    with (folder / "api.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "api"], env={**os.environ, **settings}, stdout=log, stderr=log
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _await(url, process, folder / "api.log")
        keys = {
            role: create_key(
                database, KeyRequest(name=f"{role}'s", role=role, owner=f"ann-{role}", team="red")
            ).key
            for role in ("viewer", "submitter", "admin")
        }
        yield Site(url=url, folder=folder, database=database, keys=keys)
    finally:
        process.terminate()
        process.wait(30)
        database.close()


def _await(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            if httpx2.get(f"{url}/healthz").status_code == 200:
                return
        except httpx2.TransportError:
            time.sleep(0.05)
    raise RuntimeError(f"the api did not come up:\n{log.read_text()[-2000:]}")


@contextmanager
def browser(binary: str) -> Iterator[Browser]:
    """Run a browser until the block ends."""
    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=binary, args=FLAGS)
        try:
            yield opened
        finally:
            opened.close()


class Visit:
    """A browser's window on the site; remembers everything it complained about."""

    def __init__(self, context: BrowserContext, site: Site) -> None:
        self.site = site
        self.context = context
        self.page: Page = context.new_page()
        self.complaints: list[str] = []
        self.hosts: set[str] = set()
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.hosts.add(request.url.split("/")[2]))

    def _heard(self, message: object) -> None:
        kind, text = message.type, message.text  # type: ignore[attr-defined]
        if kind in ("error", "warning"):
            self.complaints.append(f"{kind}: {text}")

    def go(self, path: str) -> Page:
        self.page.goto(self.site.url + path)
        return self.page

    def sign_in(self, role: str = "submitter") -> Page:
        page = self.go("/sign-in")
        page.get_by_label("API key").fill(self.site.keys[role])
        page.get_by_role("button", name="Sign in").click()
        return page


@contextmanager
def visit(opened: Browser, site: Site, **options: object) -> Iterator[Visit]:
    """Open a window of its own, with no cookies."""
    context = opened.new_context(**options)  # type: ignore[arg-type]
    context.set_default_timeout(15_000)
    try:
        yield Visit(context, site)
    finally:
        context.close()
