"""Webhooks: where a team is told how its jobs end, and what was delivered."""

from typing import Any, Literal

from pydantic import Field

from fda_core.contract.rest.base import Request, Resource, Time
from fda_core.contract.rest.jobs import WebhookEvent

DeliveryState = Literal["waiting", "delivered", "failed", "cancelled"]


class WebhookRequest(Request):
    """Where to tell what."""

    url: str = Field(min_length=1, max_length=2048, description="https, at a public address.")
    events: list[WebhookEvent] = Field(
        default=["job.succeeded", "job.failed", "job.cancelled", "job.expired"],
        min_length=1,
        max_length=16,
    )


class WebhookPatch(Request):
    """What can be changed of a webhook."""

    url: str | None = Field(default=None, min_length=1, max_length=2048)
    events: list[WebhookEvent] | None = Field(default=None, min_length=1, max_length=16)
    enabled: bool | None = None


class Webhook(Resource):
    """Where a team is told; the secret is shown only where it was just made."""

    id: str
    team: str
    owner: str
    url: str
    events: list[str]
    enabled: bool
    disabled_at: Time | None
    disabled_reason: str | None
    created_at: Time
    secret: str | None = Field(
        default=None, description="whsec_…, to check signatures with: shown once, keep it."
    )


class WebhookSecret(Resource):
    """What the messages of jobs' own webhooks are signed with from now on."""

    secret: str = Field(description="whsec_…, to check signatures with: shown once, keep it.")


class Delivery(Resource):
    """One message to one webhook, and how sending it went."""

    id: str = Field(description="The webhook-id header; the same at every try.")
    webhook: str | None = Field(description="None for the webhook a job was submitted with.")
    job: str | None
    url: str
    type: str
    state: DeliveryState
    tries: int
    next_try_at: Time | None
    last_status: int | None
    last_error: str | None
    created_at: Time
    delivered_at: Time | None
    payload: dict[str, Any]
