"""Download what a job left: whole or not at all, resumable, every byte checked.

Files are gathered in a hidden folder beside the target, which becomes the target in one
rename after the last digest was right. A second run goes on with what is there.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urljoin, urlsplit

import httpx2

from fda_core.client.problems import problem_of
from fda_core.client.retries import Trying
from fda_core.client.transport import Transport
from fda_core.contract.rest.jobs import Artifact
from fda_core.errors import (
    AlreadyRunning,
    Forbidden,
    NotFound,
    OutOfDisk,
    OutputCorrupt,
    OutputExists,
    ServiceError,
    StorageError,
)

STALE_LINK = frozenset({401, 403, 404, 410})
Progress = Callable[[int, int], None]
Listing = Callable[[], Sequence[Artifact]]


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """What was downloaded."""

    folder: Path
    files: int
    size_bytes: int
    resumed_bytes: int
    """Of these, what an earlier run had left."""


def fetch(
    transport: Transport, job: str, listing: Listing, folder: Path, *, progress: Progress
) -> Fetched:
    """Download the files of a listing to `folder`, which must not be there yet, or be empty."""
    folder = folder.absolute()
    if folder.is_symlink() or (folder.exists() and not _is_empty(folder)):
        raise OutputExists(
            f"{folder} is there already and not empty",
            hint="Name a new folder; nothing is overwritten.",
            uri=str(folder),
        )
    artifacts = listing()
    if not artifacts:
        raise NotFound(
            f"job {job} left no files", hint="Only jobs that succeeded have files.", job=job
        )
    places = _places(artifacts)
    part = folder.with_name(f".{folder.name}.fda-part")
    try:
        with _alone(part):
            _same_files_or_empty(part, job, artifacts)
            run = _Run(transport, listing, artifacts, progress)
            for artifact, place in zip(artifacts, places, strict=True):
                run.file(artifact, part / "files" / place)
            _put_in_place(part, folder)
    except OSError as problem:
        raise _disk_error(problem, folder) from problem
    return Fetched(
        folder=folder,
        files=len(artifacts),
        size_bytes=run.total,
        resumed_bytes=run.resumed,
    )


class _Run:
    """One download of all files of a job."""

    def __init__(
        self,
        transport: Transport,
        listing: Listing,
        artifacts: Sequence[Artifact],
        progress: Progress,
    ) -> None:
        self._transport = transport
        self._listing = listing
        self._urls = {artifact.path: artifact.url for artifact in artifacts}
        self._progress = progress
        self._done = 0
        self.total = sum(artifact.size_bytes for artifact in artifacts)
        self.resumed = 0

    def file(self, artifact: Artifact, place: Path) -> None:
        """Download one file, going on after what is there, until its digest is right."""
        place.parent.mkdir(parents=True, exist_ok=True)
        resumed = place.stat().st_size if place.exists() else 0
        if resumed > artifact.size_bytes:
            place.unlink()
            resumed = 0
        self.resumed += resumed
        self._tell(resumed)
        self._bytes(artifact, place)
        found = _digest(place)
        if artifact.sha256 is not None and found != artifact.sha256:
            place.unlink()
            raise OutputCorrupt(
                f"{artifact.path} came with SHA-256 {found[:16]}…, expected "
                f"{artifact.sha256[:16]}…",
                hint="Fetch again; if it stays so the file was damaged after publishing.",
                file=artifact.path,
            )

    def _bytes(self, artifact: Artifact, place: Path) -> None:
        trying = Trying(self._transport.retries)
        while True:
            have = place.stat().st_size if place.exists() else 0
            if have == artifact.size_bytes:
                place.touch()
                return
            try:
                self._some(artifact, place, have)
                continue
            except httpx2.TransportError as broken:
                problem: ServiceError = self._transport.unreachable(broken)
            except _StaleLink as stale:
                problem = stale.problem
                fresh = {found.path: found.url for found in self._listing()}
                if fresh.get(artifact.path, self._urls[artifact.path]) == self._urls[artifact.path]:
                    raise problem from None
                self._urls.update(fresh)
                continue
            except ServiceError as refused:
                problem = refused
            if place.exists() and place.stat().st_size > have:
                trying.progressed()
            if not problem.retryable or not trying.again():
                raise problem

    def _some(self, artifact: Artifact, place: Path, have: int) -> None:
        """Append what one request brings. The link needs no key, and gets none."""
        url = urljoin(self._transport.url + "/", self._urls[artifact.path])
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        with self._transport.http.stream("GET", url, headers=headers, timeout=60.0) as answer:
            if not answer.is_success:
                answer.read()
                shown = urlsplit(url)._replace(query="", fragment="").geturl()
                problem = problem_of(
                    answer.status_code, answer.content, request=f"GET {shown}", request_id=None
                )
                if answer.status_code == 416:
                    place.unlink()
                    raise OutputCorrupt(
                        f"{artifact.path} is shorter than its {artifact.size_bytes} bytes",
                        hint="The file was cut off after publishing.",
                        file=artifact.path,
                    )
                if answer.status_code in STALE_LINK:
                    raise _StaleLink(problem)
                raise problem
            start = _start_of(answer, have)
            if start < have:
                self._tell(start - have)
            with place.open("r+b" if place.exists() else "wb") as file:
                file.truncate(start)
                file.seek(start)
                for block in answer.iter_raw():
                    start += len(block)
                    if start > artifact.size_bytes:
                        file.truncate(0)
                        raise OutputCorrupt(
                            f"{artifact.path} came longer than its {artifact.size_bytes} bytes",
                            hint="The file was replaced after publishing.",
                            file=artifact.path,
                        )
                    file.write(block)
                    self._tell(len(block))
        if start == have:
            raise ServiceError(
                f"{artifact.path} ended after {start} of {artifact.size_bytes} bytes",
                hint="The file was cut off after publishing.",
                retryable=True,
            )

    def _tell(self, moved: int) -> None:
        self._done += moved
        self._progress(self._done, self.total)


class _StaleLink(Exception):
    """A link that worked for a while does not any more."""

    def __init__(self, problem: ServiceError) -> None:
        super().__init__(str(problem))
        self.problem = problem


def _start_of(answer: httpx2.Response, have: int) -> int:
    """Return where the body begins in the file: a server may ignore the range."""
    if answer.status_code != 206:
        return 0
    said = answer.headers.get("content-range", "")
    begin = said.removeprefix("bytes ").partition("-")[0]
    if begin != str(have):
        raise ServiceError(
            f"asked for bytes from {have}, got {said!r}",
            hint="Something between here and the service answers wrongly.",
            code="bad_range",
        )
    return have


def _places(artifacts: Sequence[Artifact]) -> list[Path]:
    """Return where each file goes below the folder. Paths that lead elsewhere are refused."""
    seen: set[PurePosixPath] = set()
    for artifact in artifacts:
        path = PurePosixPath(artifact.path)
        bad = (
            path.is_absolute()
            or not path.parts
            or any(part in ("..", ".", "") for part in artifact.path.split("/"))
            or any(letter in artifact.path for letter in "\\\0:")
            or path in seen
        )
        if bad or any(above in seen for above in path.parents):
            raise Forbidden(
                f"the service names a file {artifact.path!r}, which does not stay in the folder",
                hint="Nothing was downloaded. Do not trust this service.",
                file=artifact.path,
            )
        seen.add(path)
    if any(above in seen for path in seen for above in path.parents):
        raise Forbidden("the service names a file that is a folder too", hint="Nothing was kept.")
    return [Path(*PurePosixPath(artifact.path).parts) for artifact in artifacts]


@contextmanager
def _alone(part: Path) -> Iterator[None]:
    """Make the hidden folder and hold its lock. The dead hold none."""
    part.mkdir(parents=True, exist_ok=True)
    with (part / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(
                f"another process is downloading to {part}",
                hint="Wait for it, or name another folder.",
            ) from None
        yield


def _same_files_or_empty(part: Path, job: str, artifacts: Sequence[Artifact]) -> None:
    """Keep what an earlier run left only if it was of these very files."""
    listed = [[found.path, found.size_bytes, found.sha256] for found in artifacts]
    wanted = json.dumps({"job": job, "files": listed}, sort_keys=True)
    note = part / "listing.json"
    if not note.exists() or note.read_text() != wanted:
        shutil.rmtree(part / "files", ignore_errors=True)
        note.write_text(wanted)
    (part / "files").mkdir(exist_ok=True)


def _put_in_place(part: Path, folder: Path) -> None:
    for path in part.joinpath("files").rglob("*"):
        _sync(path)
    if folder.exists():
        folder.rmdir()
    part.joinpath("files").rename(folder)
    _sync(folder.parent)
    shutil.rmtree(part)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _digest(place: Path) -> str:
    with place.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


def _disk_error(problem: OSError, folder: Path) -> Exception:
    import errno

    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutOfDisk(
            f"{folder}: the disk is full",
            hint="Free some space and fetch again; what came is kept.",
            uri=str(folder),
        )
    if problem.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Forbidden(
            f"{folder} cannot be written: {problem.strerror}",
            hint="Name a folder that you may write.",
            uri=str(folder),
        )
    return StorageError(f"{folder}: {problem.strerror or problem}", uri=str(folder))
