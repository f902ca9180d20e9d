"""The rules of webhooks."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from api.db.session import Database
from api.db.tables import DeliveryRow, WebhookRow
from api.db.types import now
from api.idempotency import Answer
from api.ids import new_id
from api.jobs.submitting import Caller, Once, team_seen
from api.webhooks import repository
from api.webhooks.addresses import check_url
from api.webhooks.signing import new_secret
from api.webhooks.views import delivery_view, webhook_view
from fda_core.contract.rest.base import Page, utc
from fda_core.contract.rest.webhooks import (
    Delivery,
    Webhook,
    WebhookPatch,
    WebhookRequest,
    WebhookSecret,
)
from fda_core.errors import UnknownDelivery, UnknownWebhook, WebhookDisabled

TEST_EVENT = "webhook.test"


class WebhookService:
    """Makes, shows, changes and tries webhooks."""

    def __init__(
        self,
        database: Database,
        *,
        allow_private: bool,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._database = database
        self._allow_private = allow_private
        self._clock = clock

    def create(self, caller: Caller, request: WebhookRequest, *, once: Once | None) -> Answer:
        """Make a webhook. Its secret is in this answer alone, not even in a repeated one."""
        check_url(request.url, allow_private=self._allow_private)
        secret = new_secret()
        with self._database.write() as session:
            before = once.replay(session) if once else None
            if before is not None:
                return before
            row = WebhookRow(
                id=new_id(),
                team=caller.team,
                owner=caller.owner,
                url=request.url,
                secret=secret,
                events=sorted(set(request.events)),
                created_at=self._clock(),
            )
            repository.add(session, row)
            shown = webhook_view(row, secret=secret).model_dump(mode="json")
            where = {"Location": f"/v1/webhooks/{row.id}"}
            if once:  # the secret is not kept a second time
                once.keep(
                    session, Answer(status=201, headers=where, body={**shown, "secret": None})
                )
        return Answer(status=201, headers={**where, "Cache-Control": "no-store"}, body=shown)

    def get(self, caller: Caller, webhook_id: str) -> Webhook:
        """Return a webhook."""
        with self._database.read() as session:
            return webhook_view(_found(session, caller, webhook_id))

    def page(self, caller: Caller, *, cursor: str | None, limit: int) -> Page[Webhook]:
        """Return a piece of the list, newest first."""
        with self._database.read() as session:
            rows = repository.page(session, team_seen(caller), cursor=cursor, limit=limit + 1)
        shown = [webhook_view(row) for row in rows[:limit]]
        more = len(rows) > limit
        return Page(data=shown, next_cursor=shown[-1].id if more else None, has_more=more)

    def update(self, caller: Caller, webhook_id: str, patch: WebhookPatch) -> Webhook:
        """Change what is given; switching one on forgets why it was off."""
        if patch.url is not None:
            check_url(patch.url, allow_private=self._allow_private)
        with self._database.write() as session:
            row = _found(session, caller, webhook_id)
            if patch.url is not None:
                row.url = patch.url
                repository.move_waiting(session, row.id, url=patch.url)
            if patch.events is not None:
                row.events = sorted(set(patch.events))
            if patch.enabled is True:
                row.disabled_at = row.disabled_reason = None
            session.flush()
            if patch.enabled is False:
                reason = f"switched off by {caller.owner}"
                repository.disable(session, row.id, moment=self._clock(), reason=reason)
                session.refresh(row)
            return webhook_view(row)

    def delete(self, caller: Caller, webhook_id: str) -> None:
        """Delete a webhook; what still waits for it is cancelled."""
        with self._database.write() as session:
            repository.remove(session, _found(session, caller, webhook_id))

    def test(self, caller: Caller, webhook_id: str) -> Delivery:
        """Put a test message into the outbox; the courier sends it within seconds."""
        with self._database.write() as session:
            row = _enabled(_found(session, caller, webhook_id))
            moment = self._clock()
            data: dict[str, Any] = {"webhook": row.id, "sent_by": caller.owner}
            delivery = DeliveryRow(
                id=f"msg_{new_id().replace('-', '')}",
                webhook_id=row.id,
                team=row.team,
                url=row.url,
                type=TEST_EVENT,
                payload={"type": TEST_EVENT, "timestamp": utc(moment), "data": data},
                state=repository.WAITING,
                tries=0,
                next_try_at=moment,
                created_at=moment,
            )
            repository.add(session, delivery)
            return delivery_view(delivery)

    def deliveries(
        self,
        caller: Caller,
        webhook_id: str,
        *,
        cursor: str | None,
        limit: int,
        state: str | None,
    ) -> Page[Delivery]:
        """Return a piece of what was sent to a webhook, newest first."""
        with self._database.read() as session:
            _found(session, caller, webhook_id)
            rows = repository.deliveries(
                session, webhook_id, cursor=cursor, limit=limit + 1, state=state
            )
        shown = [delivery_view(row) for row in rows[:limit]]
        more = len(rows) > limit
        return Page(data=shown, next_cursor=shown[-1].id if more else None, has_more=more)

    def redeliver(self, caller: Caller, webhook_id: str, delivery_id: str) -> Delivery:
        """Send a message again, from the first try on, to where the webhook leads now."""
        with self._database.write() as session:
            webhook = _enabled(_found(session, caller, webhook_id))
            row = repository.delivery(session, delivery_id)
            if row is None or row.webhook_id != webhook.id:
                raise UnknownDelivery(
                    f"webhook {webhook.id} has no delivery {delivery_id!r}",
                    hint=f"GET /v1/webhooks/{webhook.id}/deliveries lists them.",
                    delivery=delivery_id,
                )
            row.url, row.state, row.tries = webhook.url, repository.WAITING, 0
            row.next_try_at, row.delivered_at = self._clock(), None
            session.flush()
            return delivery_view(row)

    def new_job_secret(self, caller: Caller) -> WebhookSecret:
        """Return a new secret for the webhooks that the team's jobs are submitted with."""
        with self._database.write() as session:
            return WebhookSecret(secret=repository.replace_job_secret(session, caller.team))


def _found(session: Session, caller: Caller, webhook_id: str) -> WebhookRow:
    row = repository.find(session, webhook_id, team_seen(caller))
    if row is None:
        raise UnknownWebhook(
            f"there is no webhook {webhook_id!r}",
            hint="GET /v1/webhooks lists those of your team.",
            webhook=webhook_id,
        )
    return row


def _enabled(row: WebhookRow) -> WebhookRow:
    if row.disabled_at is not None:
        raise WebhookDisabled(
            f"webhook {row.id} is disabled: {row.disabled_reason}",
            hint='PATCH it with {"enabled": true} first.',
            webhook=row.id,
        )
    return row
