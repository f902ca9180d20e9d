"""The files that pages load: styles, icons, scripts. They hold nothing of anybody's."""

import hashlib
from importlib.resources import files
from pathlib import PurePosixPath

from fastapi import APIRouter, Request, Response

from api.errors import UnknownRoute
from api.web.pages import Pages

KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def routes(pages: Pages) -> APIRouter:
    """Return the route of the files."""
    router = pages.router()
    folder = files("api.web").joinpath("static")
    known = {item.name: item.read_bytes() for item in folder.iterdir() if item.is_file()}

    @router.get("/web/{name}")
    def get_web_file(name: str, request: Request) -> Response:
        data = known.get(name)
        if data is None:
            raise UnknownRoute(f"there is no {name!r} here")
        tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(data, media_type=KINDS[PurePosixPath(name).suffix], headers=headers)

    return router
