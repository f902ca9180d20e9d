"""The HTTP application, made by a factory: nothing is opened at import or by making it."""

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import structlog
from fastapi import APIRouter, Depends, FastAPI
from redis import Redis

from api import health, openapi, parts, problems
from api.anchors import routes as anchors
from api.auth import routes as keys
from api.broker import open_redis
from api.context import Context
from api.db.migrate import migrate
from api.db.session import Database, open_engine
from api.db.types import Clock, now
from api.docs import routes as docs
from api.events import routes as events
from api.events.hub import Hub
from api.jobs import artifact_routes, detail_routes
from api.jobs import routes as jobs
from api.methods import routes as methods
from api.plans import routes as plans
from api.prometheus import HttpCounts
from api.query import only_known_parameters
from api.requests import RequestMiddleware
from api.settings import Settings
from api.tracing import Tracing, make_tracing
from api.workers import queue_routes
from api.workers import routes as workers
from fda_core import __version__
from fda_core.storage.base import Storage
from fda_core.storage.resolve import storages

ROUTERS: tuple[APIRouter, ...] = (
    jobs.router,
    detail_routes.router,
    events.router,
    artifact_routes.router,
    plans.router,
    methods.router,
    workers.router,
    queue_routes.router,
    anchors.router,
    keys.router,
    health.router,
    docs.router,
)
"""Everything that is served. A new part of the service is one line here, or in `parts` if it
has a service of its own to be made."""

log = structlog.get_logger("api")


def create_app(
    settings: Settings | None = None,
    *,
    database: Database | None = None,
    redis: Redis | None = None,
    storage: Storage | None = None,
    tracing: Tracing | None = None,
    clock: Clock = now,
) -> FastAPI:
    """Return the application. What is not given is made from the settings, and closed again."""
    settings = settings or Settings()
    closing: list[Callable[[], object]] = []
    if database is None:
        database = Database(open_engine(settings.database_url))
        closing.append(database.close)
    if redis is None:
        redis = open_redis(settings.redis_url.get_secret_value())
        closing.append(redis.close)
    if tracing is None:
        tracing = make_tracing(settings.otlp_endpoint, service="fda-api")
        closing.append(tracing.close)
    context = Context(
        settings=settings,
        database=database,
        redis=redis,
        storage=storage or storages(settings.allowed),
        hub=Hub(database),
        counts=HttpCounts(),
        clock=clock,
        secret=_secret(settings),
    )

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await anyio.to_thread.run_sync(migrate, context.database.engine)
        if not settings.secret.get_secret_value():
            log.warning(
                "no_secret",
                detail="FDA_SECRET is unset: file URLs and sign-ins end with this process",
            )
        try:
            yield
        finally:
            await context.hub.close()
            for close in closing:
                close()

    app = FastAPI(
        title="fda-merge",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        dependencies=[Depends(only_known_parameters)],
    )
    app.state.context = context
    problems.install(app)
    openapi.install(app)
    for router in (*ROUTERS, *parts.routers(context)):
        app.include_router(router)
    app.add_middleware(RequestMiddleware, counts=context.counts, tracing=tracing)
    return app


def _secret(settings: Settings) -> bytes:
    """Return what file URLs are signed with; without a setting, one of this process's own."""
    return settings.secret.get_secret_value().encode() or secrets.token_bytes(32)
