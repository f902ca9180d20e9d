"""/docs: Swagger UI from files beside this module, and what every error code means.

swagger-ui-dist 5.35.0 from npm, unchanged, Apache-2.0; its licence and notices lie beside it.
"""

from collections.abc import Iterator
from html import escape
from importlib.resources import files

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse

from api.errors import HttpError, UnknownRoute, status_of
from fda_core.errors import FdaError

router = APIRouter(include_in_schema=False)

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Swagger UI sets styles on elements; scripts come from here only."""
KINDS = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "start.js": "text/javascript",
    "LICENSE": "text/plain",
    "NOTICE": "text/plain",
    "swagger-ui-bundle.js.LICENSE.txt": "text/plain",
}
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>fda-merge API</title>
<link rel="icon" href="data:,"><link rel="stylesheet" href="/docs/static/swagger-ui.css"></head>
<body><div id="swagger-ui"></div>
<script src="/docs/static/swagger-ui-bundle.js"></script>
<script src="/docs/static/start.js"></script></body></html>
"""


@router.head("/docs")
@router.get("/docs")
def get_docs() -> Response:
    """Show the API's documentation."""
    return _page(PAGE)


@router.get("/docs/static/{name}")
def get_docs_file(name: str) -> Response:
    """Send one of the page's files."""
    if name not in KINDS:
        raise UnknownRoute(f"there is no {name!r} here")
    data = files("api.docs").joinpath("static", name).read_bytes()
    return Response(data, media_type=KINDS[name], headers={"Cache-Control": "max-age=86400"})


@router.get("/docs/errors")
def get_error_codes() -> Response:
    """Show every error code: where `type` of a problem leads."""
    rows = "".join(
        f'<tr id="{kind.code}"><th scope="row"><code>{kind.code}</code></th>'
        f"<td>{status_of(kind)}</td><td>{escape(_text(kind))}</td>"
        f"<td>{'yes' if kind.retryable else 'no'}</td></tr>"
        for kind in sorted(_classes(FdaError), key=lambda kind: kind.code)
    )
    return _page(
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Error codes</title>'
        "</head><body><h1>Error codes</h1><table><thead><tr><th>code</th><th>status</th>"
        "<th>meaning</th><th>trying again can help</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></body></html>"
    )


def _page(html: str) -> Response:
    return HTMLResponse(html, headers={"Content-Security-Policy": POLICY})


def _text(kind: type[FdaError]) -> str:
    return " ".join((kind.__doc__ or "").split())


def _classes(root: type[FdaError]) -> Iterator[type[FdaError]]:
    for kind in root.__subclasses__():
        if kind.__module__ in (FdaError.__module__, HttpError.__module__):
            yield kind
            yield from _classes(kind)
