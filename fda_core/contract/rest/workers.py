"""Workers, queues, the anchor cache and methods."""

from typing import Any, Literal

from pydantic import Field

from fda_core.contract.rest.base import Resource, Time


class Worker(Resource):
    """One worker process, from its last heartbeat."""

    id: str
    host: str
    version: str
    device: str
    device_kind: Literal["cpu", "gpu"]
    device_memory_bytes: int | None
    device_used_bytes: int | None
    host_memory_bytes: int
    host_used_bytes: int
    queues: list[str]
    state: Literal["idle", "busy", "draining", "silent"]
    job: str | None
    unit: str | None
    unit_seconds: float | None
    units_done: int
    units_failed: int
    started_at: Time
    heartbeat_age_seconds: float


class Queue(Resource):
    """One queue of units."""

    name: str
    depth: int = Field(description="Messages that wait.")
    oldest_wait_seconds: float | None
    workers: int = Field(description="Workers that take from it.")
    running: int
    draining: bool


class MethodView(Resource):
    """A merge method: text, cost and the JSON schema of its parameters."""

    name: str
    title: str
    summary: str
    paper: str
    cost: str
    min_experts: int
    max_experts: int | None
    uses_weights: bool
    expert_parameters: list[str] = Field(
        description="Which of them an expert may have of its own, under `experts[].parameters`."
    )
    parameters: dict[str, Any]


class CachedAnchors(Resource):
    """One entry of the anchor cache."""

    key: str
    size_bytes: int
    layer: int | None
    expert: str | None
    used_by: list[str] = Field(description="Jobs that constructed or took them, newest first.")
    last_used_at: Time | None
