"""Deliver what is in the outbox: at least once, over hours, by any number of processes."""

import http.client
import random
import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy.orm import Session

from api.db.session import Database
from api.db.tables import DeliveryRow
from api.db.types import now
from api.webhooks import repository
from api.webhooks.addresses import Resolve, addresses_of, check_url, resolve_host
from api.webhooks.signing import encode, signed_headers
from api.webhooks.transport import Transport
from fda_core.errors import UnsafeAddress

WAITS_SECONDS = (5, 30, 120, 600, 3600, 3 * 3600, 10 * 3600)
"""Between one try and the next; after the last one it is given up."""
JITTER_RATIO = 0.2
CLAIM = timedelta(seconds=120)
"""Longer than any try: then others may take a delivery of a courier that died."""
AT_ONCE = 16
AT_ONCE_PER_URL = 4
USER_AGENT = "fda-merge"
GONE = 410

log = structlog.get_logger("webhooks")


@dataclass(frozen=True, kw_only=True)
class Sent:
    """How one try went."""

    status: int | None
    error: str | None
    """None: the receiver took it."""


@dataclass(frozen=True, kw_only=True)
class Claimed:
    """A delivery as it was before this try, and until when it is ours."""

    row: DeliveryRow
    until: datetime


class Courier:
    """Sends due messages. `step` may run in any number of processes at once."""

    def __init__(
        self,
        database: Database,
        *,
        allow_private: bool,
        transport: Transport | None = None,
        resolve: Resolve = resolve_host,
        clock: Callable[[], datetime] = now,
        chance: random.Random | None = None,
        on_outcome: Callable[[str], None] = lambda _outcome: None,
        patience_seconds: float | None = None,
    ) -> None:
        """Without patience given, a step waits for all its tries."""
        self._database = database
        self._allow_private = allow_private
        self._transport = transport or Transport()
        self._resolve = resolve
        self._clock = clock
        self._chance = chance or random.Random()
        self._on_outcome = on_outcome
        self._patience_seconds = patience_seconds
        self._pool = ThreadPoolExecutor(AT_ONCE, "courier")
        self._under_way: dict[Future[None], str] = {}
        """Tries that have not ended, with their addresses."""

    def step(self) -> int:
        """Try what is due, a few at once; return how many tries were begun.

        Those that take longer than our patience keep their places; the other places go on.
        """
        taken = self._claim()
        for claimed in taken:
            self._under_way[self._pool.submit(self._deliver, claimed)] = claimed.row.url
        ended, _ = wait(self._under_way, timeout=self._patience_seconds)
        for one in ended:
            del self._under_way[one]
        return len(taken)

    def close(self) -> None:
        """Wait until the tries under way have ended and are written down."""
        self._pool.shutdown()

    def _claim(self) -> Sequence[Claimed]:
        """Take deliveries that are due; a slow receiver gets a few of the places at most."""
        free = AT_ONCE - len(self._under_way)
        if not free:
            return []
        moment, places = self._clock(), Counter(self._under_way.values())
        with self._database.read() as session:
            found = repository.due(
                session,
                moment=moment,
                limit=free,
                limit_per_url=AT_ONCE_PER_URL,
                but_for=[url for url, taken in places.items() if taken >= AT_ONCE_PER_URL],
            )
        chosen: list[DeliveryRow] = []
        for row in found:
            if places[row.url] < AT_ONCE_PER_URL:
                places[row.url] += 1
                chosen.append(row)
        if not chosen:
            return []
        with self._database.write() as session:
            until = moment + CLAIM
            return [
                Claimed(row=row, until=until)
                for row in chosen
                if repository.claim(session, row, until=until)
            ]

    def _deliver(self, claimed: Claimed) -> None:
        try:
            secret = self._secret(claimed.row)
            if secret is not None:
                self._conclude(claimed, self._send(claimed.row, secret))
        except Exception as problem:  # it is due again when the claim ends
            log.error("delivery_broke", delivery=claimed.row.id, exc_info=problem)

    def _send(self, row: DeliveryRow, secret: str) -> Sent:
        """Make one try."""
        body = encode(row.payload)
        try:
            target = check_url(row.url, allow_private=self._allow_private)
            addresses = addresses_of(
                target, resolve=self._resolve, allow_private=self._allow_private
            )
            headers = signed_headers(secret, row.id, body, moment=self._clock())
            answer = self._transport.post(
                target, addresses, headers={"User-Agent": USER_AGENT, **headers}, body=body
            )
        except UnsafeAddress as problem:
            return Sent(status=None, error=problem.message)
        except (OSError, http.client.HTTPException, UnicodeError) as problem:
            return Sent(status=None, error=_words(problem))
        return Sent(status=answer.status, error=_complaint(answer.status))

    def _secret(self, row: DeliveryRow) -> str | None:
        """Return what to sign with; None if the webhook was deleted meanwhile."""
        with self._database.read() as session:
            if row.webhook_id is not None:
                webhook = repository.find(session, row.webhook_id, None)
                return webhook.secret if webhook else None
            secret = repository.job_secret(session, row.team)
        if secret is not None:
            return secret
        with self._database.write() as session:
            return repository.make_job_secret(session, row.team)

    def _conclude(self, claimed: Claimed, sent: Sent) -> None:
        """Write down how a try went, and when the next one is."""
        row = claimed.row
        tries, moment = row.tries + 1, self._clock()
        result: dict[str, Any] = {"last_status": sent.status, "last_error": sent.error}
        with self._database.write() as session:
            if sent.error is None:
                result |= {"state": "delivered", "next_try_at": None, "delivered_at": moment}
            elif sent.status == GONE or tries > len(WAITS_SECONDS):
                result |= {"state": "failed", "next_try_at": None}
            else:
                wait = WAITS_SECONDS[tries - 1] * (1 + self._chance.random() * JITTER_RATIO)
                result |= {"next_try_at": moment + timedelta(seconds=wait)}
            repository.conclude(session, row, claimed=claimed.until, **result)
            if sent.status == GONE:
                self._gone(session, row, moment)
        self._on_outcome(result.get("state", "retried"))
        if sent.error is not None:
            log.info(
                "delivery_failed", delivery=row.id, job=row.job_id, tries=tries, status=sent.status
            )

    def _gone(self, session: Session, row: DeliveryRow, moment: datetime) -> None:
        """Tell a receiver that does not want to be told nothing more."""
        if row.webhook_id is not None:
            repository.disable(
                session, row.webhook_id, moment=moment, reason="the receiver answered 410 Gone"
            )
            return
        repository.cancel_waiting(
            session,
            (DeliveryRow.job_id == row.job_id) & DeliveryRow.webhook_id.is_(None),
            reason="the receiver answered 410 Gone",
        )


def _complaint(status: int) -> str | None:
    if 200 <= status < 300:
        return None
    if 300 <= status < 400:
        return f"answered {status}: redirects are not followed"
    return f"answered {status}"


def _words(problem: Exception) -> str:
    if isinstance(problem, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {problem.verify_message}"
    return f"{type(problem).__name__}: {problem}"[:300]
