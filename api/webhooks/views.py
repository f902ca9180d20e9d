"""Webhooks and deliveries as resources."""

from typing import cast

from api.db.tables import DeliveryRow, WebhookRow
from fda_core.contract.rest.webhooks import Delivery, DeliveryState, Webhook


def webhook_view(row: WebhookRow, *, secret: str | None = None) -> Webhook:
    """Return a webhook, with its secret only if it is given."""
    return Webhook(
        id=row.id,
        team=row.team,
        owner=row.owner,
        url=row.url,
        events=row.events,
        enabled=row.disabled_at is None,
        disabled_at=row.disabled_at,
        disabled_reason=row.disabled_reason,
        created_at=row.created_at,
        secret=secret,
    )


def delivery_view(row: DeliveryRow) -> Delivery:
    """Return a delivery."""
    return Delivery(
        id=row.id,
        webhook=row.webhook_id,
        job=row.job_id,
        url=row.url,
        type=row.type,
        state=cast(DeliveryState, row.state),
        tries=row.tries,
        next_try_at=row.next_try_at if row.state == "waiting" else None,
        last_status=row.last_status,
        last_error=row.last_error,
        created_at=row.created_at,
        delivered_at=row.delivered_at,
        payload=row.payload,
    )
