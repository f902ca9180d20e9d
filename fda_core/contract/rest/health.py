"""Whether the service works."""

from typing import Literal

from fda_core.contract.rest.base import Resource


class Health(Resource):
    """The process answers."""

    status: Literal["ok"] = "ok"
    version: str


class Check(Resource):
    """One thing the service needs."""

    ok: bool
    detail: str
    seconds: float


class Readiness(Resource):
    """Everything the service needs answers."""

    status: Literal["ready"] = "ready"
    checks: dict[str, Check]
    """database, broker, storage, heartbeat."""
