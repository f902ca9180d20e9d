"""`fda verify`: every file of an output against its manifest."""

from pydantic import ValidationError

from fda_core.checkpoints.index import open_checkpoint
from fda_core.cli.console import out, print_json, size
from fda_core.cli.options import here
from fda_core.contract.artifacts import MANIFEST_FILE, ArtifactFile, Manifest
from fda_core.contract.uris import join, normalise
from fda_core.errors import NotFound, OutputCorrupt
from fda_core.storage.base import Storage


def verify_output(output: str, storage: Storage, *, as_json: bool) -> None:
    """Check lengths and digests of all files, and that the headers can be read.

    Raises `OutputCorrupt` naming the first file that is not what was published.
    """
    uri = normalise(output, cwd=here())
    manifest = _manifest(uri, storage)
    for file in manifest.outputs.values():
        _check(uri, file, storage)
    checkpoint = open_checkpoint(storage, uri)
    strays = sorted(set(checkpoint.files) - set(manifest.outputs))
    if strays:
        raise OutputCorrupt(
            f"{uri}: {strays[0]} is a weight file that was not published with this merge",
            hint="Remove it, or merge again to another folder.",
            file=strays[0],
        )
    if as_json:
        print_json({"status": "intact", "job_id": manifest.job_id, "files": len(manifest.outputs)})
        return
    total = sum(file.size_bytes for file in manifest.outputs.values())
    out.print(
        f"[bold green]intact[/]: {len(manifest.outputs)} files, {size(total)}, "
        f"{len(checkpoint.tensors)} tensors, job {manifest.job_id}"
    )


def _manifest(uri: str, storage: Storage) -> Manifest:
    try:
        return Manifest.model_validate_json(storage.read(join(uri, MANIFEST_FILE)))
    except NotFound:
        raise NotFound(
            f"{uri} has no {MANIFEST_FILE}",
            hint="Only outputs of a merge can be verified.",
            uri=uri,
        ) from None
    except ValidationError as problem:
        raise OutputCorrupt(
            f"{uri}: {MANIFEST_FILE} is damaged ({problem.error_count()} faults)",
            hint="The file was damaged or replaced after publishing; merge again.",
            uri=uri,
        ) from None


def _check(uri: str, file: ArtifactFile, storage: Storage) -> None:
    from fda_core.checkpoints.reader import digest_file
    from fda_core.contract.plan import PinnedFile

    address = join(uri, file.path)
    hint = "The file was damaged or replaced after publishing; merge again."
    try:
        info = storage.stat(address)
    except NotFound:
        raise OutputCorrupt(f"{address} is missing", hint=hint, file=file.path) from None
    if info.size_bytes != file.size_bytes:
        raise OutputCorrupt(
            f"{address} has {info.size_bytes} bytes, the manifest says {file.size_bytes}",
            hint=hint,
            file=file.path,
        )
    found = digest_file(storage, address, PinnedFile(size_bytes=info.size_bytes, etag=info.etag))
    if found != file.sha256:
        raise OutputCorrupt(
            f"{address} has SHA-256 {found[:16]}…, the manifest says {file.sha256[:16]}…",
            hint=hint,
            file=file.path,
        )
