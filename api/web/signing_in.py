"""Signing in with an API key, and out."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from api.auth.sessions import COOKIE, LASTS, open_session
from api.context import Context, Here
from api.errors import Unauthorized
from api.web.pages import HEADERS, Pages, see
from api.web.visitors import Form

Next = Annotated[str, Query(max_length=2048)]


def routes(pages: Pages) -> APIRouter:
    """Return the routes of signing in and out."""
    router = pages.router()

    @router.get("/sign-in")
    def show_sign_in(request: Request, next: Next = "/") -> Response:
        return pages.page(request, "sign_in.html", caller=None, next=place(next), error=None)

    @router.post("/sign-in")
    def sign_in(request: Request, context: Here, form: Form) -> Response:
        to = place(form.get("next", "/"))
        try:
            value = open_session(context, form.get("key", "").strip())
        except Unauthorized as error:
            return pages.page(
                request, "sign_in.html", caller=None, status=401, next=to, error=error
            )
        answer = see(to)
        answer.set_cookie(
            COOKIE,
            value,
            max_age=int(LASTS.total_seconds()),
            httponly=True,
            samesite="strict",
            secure=_is_secure(request, context),
        )
        return answer

    @router.post("/sign-out")
    def sign_out(form: Form) -> Response:  # noqa: ARG001 - read for where it comes from
        answer = see("/sign-in")
        answer.headers.update(HEADERS)
        answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return answer

    return router


def place(path: str) -> str:
    """Return where to go after signing in: a path here, never another host."""
    plain = path.startswith("/") and not path.startswith(("//", "/\\", "/sign-"))
    return path if plain and path.isprintable() else "/"


def _is_secure(request: Request, context: Context) -> bool:
    return request.url.scheme == "https" or context.settings.public_url.startswith("https://")
