"""A job's files: listed with their digests, each behind an address that ends in time."""

import hashlib
import hmac
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from api.auth.service import Caller
from api.context import Context
from api.db.tables import JobRow
from api.errors import BadLink, UnknownResource
from api.jobs import repository
from api.jobs.removal import manifest_of
from api.jobs.service import visible
from fda_core.contract.artifacts import MANIFEST_FILE, ArtifactFile
from fda_core.contract.rest.jobs import Artifact
from fda_core.contract.service.states import JobState
from fda_core.contract.uris import join
from fda_core.storage.base import ObjectInfo

FILES = "/v1/files"


def list_artifacts(context: Context, caller: Caller, job_id: str) -> list[Artifact]:
    """Return the files of a job's output, by path; none unless it has published them."""
    with context.database.read() as session:
        row = visible(session, caller, job_id)
    moment = context.clock()
    seconds = context.settings.artifact_url_seconds
    expires = moment.replace(microsecond=0) + timedelta(seconds=seconds)
    return [
        Artifact(
            path=path,
            size_bytes=file.size_bytes,
            sha256=file.sha256 or None,
            url=_url(context, row.id, path, file.path, expires=expires, seconds=seconds),
            expires_at=expires,
            uri=file.path,
        )
        for path, file in sorted(_files(context, row).items())
    ]


def _files(context: Context, row: JobRow) -> dict[str, ArtifactFile]:
    """Return what the manifest names and the manifest itself, with whole addresses."""
    if row.state != JobState.SUCCEEDED or not row.output:
        return {}
    manifest = manifest_of(context.storage, row.output, row.id)
    if manifest is None:
        return {}
    address = join(row.output, MANIFEST_FILE)
    data = context.storage.read(address)
    files = {
        path: file.model_copy(update={"path": join(row.output, path)})
        for path, file in manifest.outputs.items()
    }
    files[MANIFEST_FILE] = ArtifactFile(
        path=address, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest()
    )
    return files


def _url(
    context: Context, job_id: str, path: str, uri: str, *, expires: datetime, seconds: int
) -> str:
    signed = context.storage.signed_url(uri, seconds=seconds)
    if signed is not None:
        return signed
    until = int(expires.timestamp())
    mark = sign(context.secret, job_id, path, until)
    return f"{context.base_url}{FILES}/{job_id}/{until}/{mark}/{quote(path)}"


def sign(secret: bytes, job_id: str, path: str, until: int) -> str:
    """Return the signature of a file's address: HMAC-SHA256 over all that it says."""
    said = "\n".join((FILES, job_id, str(until), path)).encode()
    return hmac.new(secret, said, hashlib.sha256).hexdigest()


@dataclass(frozen=True, kw_only=True)
class ServedFile:
    """A file that may be read now."""

    info: ObjectInfo
    name: str
    sha256: str


def open_file(
    context: Context, job_id: str, *, until: int, signature: str, path: str
) -> ServedFile:
    """Return the file a signed address names, or raise `BadLink`.

    The signature alone would do; the manifest is asked nevertheless, so that nothing but
    what this job published is ever served.
    """
    good = hmac.compare_digest(sign(context.secret, job_id, path, until), signature)
    if not good or datetime.fromtimestamp(until, UTC) <= context.clock():
        raise BadLink(
            "this address was changed, or its time is over",
            hint="Ask for GET /v1/jobs/{id}/artifacts again.",
        )
    with context.database.read() as session:
        row = repository.find(session, job_id)
    file = _files(context, row).get(path) if row is not None else None
    if file is None:
        raise UnknownResource(f"the job has no file {path!r} any more")
    info = context.storage.stat(file.path)
    return ServedFile(info=info, name=path.rpartition("/")[2], sha256=file.sha256)


def read_pieces(
    context: Context, file: ServedFile, start: int, end: int, *, piece_bytes: int = 2**20
) -> Iterator[bytes]:
    """Yield bytes [start, end) of a file, and stop with an error if it is replaced meanwhile."""
    while start < end:
        stop = min(end, start + piece_bytes)
        yield context.storage.read(file.info.uri, start=start, end=stop, etag=file.info.etag)
        start = stop
