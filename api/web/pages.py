"""How every page is made: templates that escape all values, headers, errors as pages.

The policy lets a page load nothing but what lies here, and no script or style within a page:
what somebody writes into a label can at worst be read.
"""

from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import quote

import structlog
from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.exceptions import HTTPException

from api.auth.service import Caller
from api.context import Context, context_of
from api.problems import invalid_request, problem_of
from api.web import words
from fda_core.contract.rest.base import Problem
from fda_core.errors import FdaError, InternalError

POLICY = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "object-src 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""With `no-referrer` browsers would hide where our own forms come from."""
SIGN_IN = "/sign-in"
Handler = Callable[[Request], Coroutine[Any, Any, Response]]
log = structlog.get_logger("api")


class SignInNeeded(Exception):
    """Whoever asks is not signed in."""


class Pages:
    """Makes pages from templates."""

    def __init__(self) -> None:
        self._templates = Environment(
            loader=PackageLoader("api.web"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters.update(
            duration=words.duration,
            size=words.size,
            figure=words.figure,
            cell=words.cell,
            percent=words.percent,
            iso=words.iso,
            exact=words.exact,
            tail=words.tail,
        )

    def page(
        self,
        request: Request,
        template: str,
        *,
        caller: Caller | None,
        status: int = 200,
        **values: Any,
    ) -> Response:
        """Return a page."""
        moment = context_of(request).clock()
        html = self._templates.get_template(template).render(
            caller=caller,
            path=request.url.path,
            now=moment,
            ago=lambda then: words.ago(then, moment),
            **values,
        )
        return HTMLResponse(html, status, headers=HEADERS)

    def error(self, request: Request, error: FdaError) -> Response:
        """Return an error as a page: its code, its words, and what to do."""
        problem = problem_of(
            error,
            path=request.url.path,
            request_id=getattr(request.state, "request_id", ""),
        )
        return self.problem(request, problem)

    def problem(self, request: Request, problem: Problem) -> Response:
        """Return a problem as a page."""
        caller: Caller | None = getattr(request.state, "caller", None)
        return self.page(
            request, "error.html", caller=caller, status=problem.status, problem=problem
        )

    def router(self) -> APIRouter:
        """Return a router whose errors are pages and that the API's document does not list."""
        return APIRouter(include_in_schema=False, route_class=_page_route(self))


def _page_route(pages: Pages) -> type[APIRoute]:
    class PageRoute(APIRoute):
        """Answers with pages, whatever happens."""

        def get_route_handler(self) -> Handler:
            """Return what answers a request."""
            handle = super().get_route_handler()

            async def answer(request: Request) -> Response:
                try:
                    return await handle(request)
                except SignInNeeded:
                    return _to_sign_in(pages, request)
                except RequestValidationError as problem:
                    return pages.error(request, invalid_request(problem))
                except FdaError as problem:
                    if isinstance(problem, InternalError):
                        log.error("page_broke", path=request.url.path, exc_info=problem)
                    return pages.error(request, problem)
                except HTTPException:
                    raise
                except Exception as problem:
                    log.error("page_broke", path=request.url.path, exc_info=problem)
                    return pages.error(request, InternalError(type(problem).__name__))

            return answer

    return PageRoute


def _to_sign_in(pages: Pages, request: Request) -> Response:
    """Lead to signing in, and from there back.

    A strict cookie is not sent when a link on another site is followed. Whoever is signed in
    and comes from one is sent on from a page of ours, and then it is.
    """
    path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    if request.method == "GET" and request.headers.get("sec-fetch-site") == "cross-site":
        return pages.page(request, "again.html", caller=None, again=path)
    back = f"?next={quote(path, safe='')}" if request.method == "GET" and path != "/" else ""
    return RedirectResponse(SIGN_IN + back, 303, headers=HEADERS)


def see(path: str) -> Response:
    """Return a redirect to a page, after a form was done."""
    return RedirectResponse(path, 303, headers=HEADERS)


def base_url(request: Request, context: Context) -> str:
    """Return how this service is reached, for commands to copy."""
    return context.base_url or str(request.base_url).rstrip("/")
