"""A job's files: the list, and those in local folders themselves."""

from typing import Annotated
from urllib.parse import quote

from fastapi import Header, Path, Request, Response
from fastapi.responses import StreamingResponse

from api import openapi
from api.auth.dependency import Viewer
from api.context import Here
from api.jobs import artifacts
from api.jobs.routes import JobId
from api.openapi import problems
from api.ranges import read_range
from fda_core.contract.rest.base import Page
from fda_core.contract.rest.jobs import Artifact

router = openapi.router(tag="jobs", statuses=())

BYTES = "application/octet-stream"
_TEXT = {"schema": {"type": "string"}}
_CONTENT = {"content": {BYTES: {"schema": {"type": "string", "format": "binary"}}}}


@router.get("/v1/jobs/{job_id}/artifacts", responses=problems(*openapi.USUAL, 404, 502))
def list_artifacts(job_id: JobId, context: Here, caller: Viewer) -> Page[Artifact]:
    """List the files of a job's output with digests and addresses that need no key for a while."""
    return Page(data=artifacts.list_artifacts(context, caller, job_id))


@router.get(
    "/v1/files/{job_id}/{until}/{signature}/{path:path}",
    response_class=Response,
    responses={
        200: {"description": "The file.", **_CONTENT},
        206: {
            "description": "A part of the file.",
            "headers": {"Content-Range": {"description": "Which part.", **_TEXT}},
            **_CONTENT,
        },
        **problems(403, 404, 416, 422, 500, 502, 503),
    },
)
@router.head(
    "/v1/files/{job_id}/{until}/{signature}/{path:path}",
    name="head_file",
    response_class=Response,
    responses={200: {"description": "The file's length and digest."}, **problems(403, 404, 422)},
)
def get_file(
    job_id: JobId,
    until: Annotated[int, Path(ge=0, le=2**33, description="Unix seconds.")],
    signature: Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")],
    path: Annotated[str, Path(max_length=1024)],
    request: Request,
    context: Here,
    range_: Annotated[str | None, Header(alias="Range", max_length=256)] = None,
    if_range: Annotated[str | None, Header(max_length=256)] = None,
) -> Response:
    """Send a file, or the part that `Range` asks for. The address itself is the permission."""
    file = artifacts.open_file(context, job_id, until=until, signature=signature, path=path)
    size, tag = file.info.size_bytes, f'"{file.sha256}"'
    asked = request.method == "GET" and if_range in (None, tag)
    wanted = read_range(range_ if asked else None, size)
    start, end = wanted or (0, size)
    headers = {
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-transform",
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(file.name)}",
        "Content-Length": str(end - start),
        "ETag": tag,
        "Referrer-Policy": "no-referrer",
    }
    if wanted:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    status = 206 if wanted else 200
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=BYTES)
    pieces = artifacts.read_pieces(context, file, start, end)
    return StreamingResponse(pieces, status, headers, BYTES)
