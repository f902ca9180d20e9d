"""Every table. Rows of jobs change only by guarded updates (`api.jobs.transitions`)."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Boolean, Float, ForeignKey, Index, Integer, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from api.db.types import Json, UtcTime, now

ID = String(36)


class Base(DeclarativeBase):
    """Root of the tables."""


class KeyRow(Base):
    """An API key, hashed; the key itself is shown once and kept nowhere."""

    __tablename__ = "keys"

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    name: Mapped[str] = mapped_column(String(128))
    hash: Mapped[str] = mapped_column(String(64), unique=True)
    prefix: Mapped[str] = mapped_column(String(16))
    role: Mapped[str] = mapped_column(String(16))
    owner: Mapped[str] = mapped_column(String(128))
    team: Mapped[str] = mapped_column(String(128), index=True)
    created_at: Mapped[datetime] = mapped_column(UtcTime, default=now)
    expires_at: Mapped[datetime | None] = mapped_column(UtcTime)
    last_used_at: Mapped[datetime | None] = mapped_column(UtcTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcTime)


class JobRow(Base):
    """A job: what was asked, and how far it is."""

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    stage: Mapped[str | None] = mapped_column(String(16))
    attempt: Mapped[int] = mapped_column(Integer, default=1)
    priority: Mapped[int] = mapped_column(Integer, default=4)
    owner: Mapped[str] = mapped_column(String(128))
    team: Mapped[str] = mapped_column(String(128))
    labels: Mapped[dict[str, str]] = mapped_column(Json, default=dict)
    recipe: Mapped[Any] = mapped_column(Json)
    """As sent: an object or YAML text."""
    resolved: Mapped[dict[str, Any] | None] = mapped_column(Json)
    method: Mapped[str] = mapped_column(String(64))
    base: Mapped[str] = mapped_column(Text)
    output: Mapped[str | None] = mapped_column(Text)
    experts: Mapped[list[str]] = mapped_column(Json)
    plan: Mapped[dict[str, Any] | None] = mapped_column(Json)
    """`rest.jobs.PlanSummary`."""
    plan_digest: Mapped[str | None] = mapped_column(String(64))
    device: Mapped[str | None] = mapped_column(String(16))
    """Queue of its layers, once planned."""
    error: Mapped[dict[str, Any] | None] = mapped_column(Json)
    webhook: Mapped[dict[str, Any] | None] = mapped_column(Json)
    batch_id: Mapped[str | None] = mapped_column(ID, index=True)
    schedule_id: Mapped[str | None] = mapped_column(ID, index=True)
    deadline: Mapped[datetime | None] = mapped_column(UtcTime)
    created_at: Mapped[datetime] = mapped_column(UtcTime, default=now)
    updated_at: Mapped[datetime] = mapped_column(UtcTime, default=now)
    timestamps: Mapped[dict[str, str]] = mapped_column(Json, default=dict)
    """State to when it was last entered, RFC 3339."""
    units_total: Mapped[int] = mapped_column(Integer, default=0)
    units_done: Mapped[int] = mapped_column(Integer, default=0)
    bytes_total: Mapped[int] = mapped_column(BigInteger, default=0)
    bytes_done: Mapped[int] = mapped_column(BigInteger, default=0)
    progress: Mapped[dict[str, Any]] = mapped_column(Json, default=dict)
    """Current layer, expert, step, loss, alignment, seconds_left and how it was reckoned."""
    last_seq: Mapped[int] = mapped_column(Integer, default=0)
    """Number of its newest event; counted up under the row's lock, so events never overtake."""
    last_log: Mapped[int] = mapped_column(Integer, default=0)
    version: Mapped[int] = mapped_column(Integer, default=1)
    """Counted up by every change that a reader can see; the ETag."""
    trace: Mapped[dict[str, str]] = mapped_column(Json, default=dict)
    request_id: Mapped[str | None] = mapped_column(String(64))

    __table_args__ = (
        Index("ix_jobs_state", "state", "created_at"),
        Index("ix_jobs_team_created", "team", "created_at", "id"),
        Index("ix_jobs_team_state", "team", "state"),
        Index("ix_jobs_created", "created_at", "id"),
    )


class LabelRow(Base):
    """A job's label, for finding jobs by it."""

    __tablename__ = "job_labels"

    job_id: Mapped[str] = mapped_column(
        ID, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True
    )
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str] = mapped_column(String(256))

    __table_args__ = (Index("ix_job_labels_value", "name", "value"),)


class UnitRow(Base):
    """One unit of a job's plan, and how far it is."""

    __tablename__ = "units"

    job_id: Mapped[str] = mapped_column(
        ID, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True
    )
    id: Mapped[str] = mapped_column(String(128), primary_key=True)
    place: Mapped[int] = mapped_column(Integer)
    """Its place in the plan, in which units can run one by one."""
    kind: Mapped[str] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(String(16), default="pending")
    layer: Mapped[int | None] = mapped_column(Integer)
    expert: Mapped[str | None] = mapped_column(String(64))
    shard: Mapped[int | None] = mapped_column(Integer)
    needs: Mapped[list[str]] = mapped_column(Json, default=list)
    tries: Mapped[int] = mapped_column(Integer, default=0)
    token: Mapped[str | None] = mapped_column(String(160))
    """Of the try that counts now; reports under another are late."""
    worker: Mapped[str | None] = mapped_column(String(128))
    device: Mapped[str | None] = mapped_column(String(128))
    source: Mapped[str | None] = mapped_column(String(16))
    step: Mapped[int] = mapped_column(Integer, default=0)
    steps: Mapped[int] = mapped_column(Integer, default=0)
    loss: Mapped[float | None] = mapped_column(Float)
    alignment: Mapped[float | None] = mapped_column(Float)
    read_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    write_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    """Reckoned by the plan."""
    moved_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    """Read and written so far by the try that counts."""
    memory_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    flops: Mapped[float] = mapped_column(Float, default=0)
    seconds: Mapped[float | None] = mapped_column(Float)
    microbatch: Mapped[int | None] = mapped_column(Integer)
    queue: Mapped[str | None] = mapped_column(String(16))
    not_before: Mapped[datetime | None] = mapped_column(UtcTime)
    """After a failure that may pass: when it may be tried again."""
    started_at: Mapped[datetime | None] = mapped_column(UtcTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcTime)
    error: Mapped[dict[str, Any] | None] = mapped_column(Json)


class AttemptRow(Base):
    """One try at one unit."""

    __tablename__ = "attempts"

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    job_id: Mapped[str] = mapped_column(ID, ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    attempt: Mapped[int] = mapped_column(Integer)
    unit: Mapped[str] = mapped_column(String(128))
    token: Mapped[str] = mapped_column(String(160), unique=True)
    worker: Mapped[str] = mapped_column(String(128))
    outcome: Mapped[str] = mapped_column(String(16), default="running")
    started_at: Mapped[datetime] = mapped_column(UtcTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcTime)
    error: Mapped[dict[str, Any] | None] = mapped_column(Json)


class EventRow(Base):
    """One fact about a job, numbered from 1 within it: the number is the SSE id."""

    __tablename__ = "events"

    job_id: Mapped[str] = mapped_column(
        ID, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True
    )
    seq: Mapped[int] = mapped_column(Integer, primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcTime, default=now)
    kind: Mapped[str] = mapped_column(String(32))
    data: Mapped[dict[str, Any]] = mapped_column(Json)


class LogRow(Base):
    """One line of a job's log."""

    __tablename__ = "logs"

    job_id: Mapped[str] = mapped_column(
        ID, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True
    )
    seq: Mapped[int] = mapped_column(Integer, primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcTime, default=now)
    level: Mapped[str] = mapped_column(String(16))
    unit: Mapped[str | None] = mapped_column(String(128))
    worker: Mapped[str | None] = mapped_column(String(128))
    text: Mapped[str] = mapped_column(Text)
    fields: Mapped[dict[str, Any]] = mapped_column(Json, default=dict)


class IdempotencyRow(Base):
    """An Idempotency-Key that was used, and what was answered."""

    __tablename__ = "idempotency"

    scope: Mapped[str] = mapped_column(String(256), primary_key=True)
    """Team and route."""
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    body_hash: Mapped[str] = mapped_column(String(64))
    status: Mapped[int | None] = mapped_column(Integer)
    """None while the first request is under way."""
    headers: Mapped[dict[str, str]] = mapped_column(Json, default=dict)
    body: Mapped[Any] = mapped_column(Json, nullable=True)
    created_at: Mapped[datetime] = mapped_column(UtcTime, default=now, index=True)


class BatchRow(Base):
    """Jobs that were submitted together."""

    __tablename__ = "batches"

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    name: Mapped[str] = mapped_column(String(128), default="")
    owner: Mapped[str] = mapped_column(String(128))
    team: Mapped[str] = mapped_column(String(128), index=True)
    request: Mapped[dict[str, Any]] = mapped_column(Json)
    jobs: Mapped[int] = mapped_column(Integer)
    entries: Mapped[list[dict[str, Any]]] = mapped_column(Json, default=list)
    """For every job: its id, the swept values, and its output; in the batch's order."""
    schedule_id: Mapped[str | None] = mapped_column(ID, index=True)
    labels: Mapped[dict[str, str]] = mapped_column(Json, default=dict)
    created_at: Mapped[datetime] = mapped_column(UtcTime, default=now)


class ScheduleRow(Base):
    """A batch that is made again and again."""

    __tablename__ = "schedules"

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    name: Mapped[str] = mapped_column(String(128))
    owner: Mapped[str] = mapped_column(String(128))
    team: Mapped[str] = mapped_column(String(128), index=True)
    cron: Mapped[str] = mapped_column(String(128))
    zone: Mapped[str] = mapped_column(String(64))
    overlap: Mapped[str] = mapped_column(String(16))
    missed: Mapped[str] = mapped_column(String(16))
    batch: Mapped[dict[str, Any]] = mapped_column(Json)
    """`rest.batches.BatchRequest`."""
    paused: Mapped[bool] = mapped_column(Boolean, default=False)
    next_fire_at: Mapped[datetime | None] = mapped_column(UtcTime, index=True)
    last_fire_at: Mapped[datetime | None] = mapped_column(UtcTime)
    created_at: Mapped[datetime] = mapped_column(UtcTime, default=now)
    updated_at: Mapped[datetime] = mapped_column(UtcTime, default=now)
    version: Mapped[int] = mapped_column(Integer, default=1)


class FireRow(Base):
    """A fire time of a schedule: the primary key lets it make one batch and no second."""

    __tablename__ = "fires"

    schedule_id: Mapped[str] = mapped_column(
        ID, ForeignKey("schedules.id", ondelete="CASCADE"), primary_key=True
    )
    fire_at: Mapped[datetime] = mapped_column(UtcTime, primary_key=True)
    outcome: Mapped[str] = mapped_column(String(16))
    """fired, skipped, missed, waiting, failed."""
    batch_id: Mapped[str | None] = mapped_column(ID)
    detail: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcTime, default=now)


class WebhookRow(Base):
    """Where a team wants to be told."""

    __tablename__ = "webhooks"

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    team: Mapped[str] = mapped_column(String(128), index=True)
    owner: Mapped[str] = mapped_column(String(128))
    url: Mapped[str] = mapped_column(Text)
    secret: Mapped[str] = mapped_column(String(128))
    events: Mapped[list[str]] = mapped_column(Json)
    disabled_at: Mapped[datetime | None] = mapped_column(UtcTime)
    disabled_reason: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcTime, default=now)


class DeliveryRow(Base):
    """One message to one webhook, and how sending it went."""

    __tablename__ = "deliveries"

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    webhook_id: Mapped[str | None] = mapped_column(ID, index=True)
    """None for the webhook a job was submitted with."""
    job_id: Mapped[str | None] = mapped_column(ID, index=True)
    team: Mapped[str] = mapped_column(String(128))
    url: Mapped[str] = mapped_column(Text)
    type: Mapped[str] = mapped_column(String(32))
    payload: Mapped[dict[str, Any]] = mapped_column(Json)
    state: Mapped[str] = mapped_column(String(16), default="waiting")
    """waiting, delivered, failed, cancelled."""
    tries: Mapped[int] = mapped_column(Integer, default=0)
    next_try_at: Mapped[datetime | None] = mapped_column(UtcTime, index=True)
    last_status: Mapped[int | None] = mapped_column(Integer)
    last_error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcTime, default=now)
    delivered_at: Mapped[datetime | None] = mapped_column(UtcTime)


class LeaderRow(Base):
    """Who leads one of the controller's loops; taken over when `until` has passed."""

    __tablename__ = "leaders"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    holder: Mapped[str] = mapped_column(String(128))
    until: Mapped[datetime] = mapped_column(UtcTime)


class NoteRow(Base):
    """A small fact to remember by name, such as how far a stream is folded."""

    __tablename__ = "notes"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[dict[str, Any]] = mapped_column(Json)
