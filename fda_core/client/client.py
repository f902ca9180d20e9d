"""One service, from Python."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import httpx2

from fda_core.client.collections import Collection, read
from fda_core.client.jobs import Jobs
from fda_core.client.keys import Keys
from fda_core.client.retries import Retries
from fda_core.client.transport import Request, Transport
from fda_core.contract.rest.batches import Batch
from fda_core.contract.rest.jobs import PlanView, Recipe
from fda_core.contract.rest.keys import Key
from fda_core.contract.rest.schedules import Schedule
from fda_core.contract.rest.webhooks import Webhook
from fda_core.contract.rest.workers import CachedAnchors, MethodView, Queue, Worker


class Plans:
    """What recipes would take."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def make(self, recipe: Recipe) -> PlanView:
        """Return a recipe's plan, made from headers alone; nothing is queued."""
        answer = self._transport.send(
            Request(method="POST", path="/v1/plans", body={"recipe": recipe}, repeatable=True)
        )
        return read(PlanView, answer.content)


class Client:
    """A service by its address and a key. Errors are `ServiceError`s with the answer's code.

    `http` is for tests and proxies: an `httpx2.Client` of your own.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout_seconds: float = 30.0,
        retries: Retries | None = None,
        http: httpx2.Client | None = None,
    ) -> None:
        transport = Transport(
            url, key, retries=retries or Retries(), timeout_seconds=timeout_seconds, http=http
        )
        self.transport = transport
        self.jobs = Jobs(transport)
        self.plans = Plans(transport)
        self.methods = Collection(transport, "/v1/methods", MethodView)
        self.workers = Collection(transport, "/v1/workers", Worker)
        self.queues = Collection(transport, "/v1/queues", Queue)
        self.anchors = Collection(transport, "/v1/anchors", CachedAnchors)
        self.keys = Keys(transport, "/v1/keys", Key)
        self.schedules = Collection(transport, "/v1/schedules", Schedule)
        self.batches = Collection(transport, "/v1/batches", Batch)
        self.webhooks = Collection(transport, "/v1/webhooks", Webhook)

    def ready(self) -> Mapping[str, Any]:
        """Return what the service says of its parts; an exception if it is not ready."""
        answer = self.transport.send(Request(method="GET", path="/readyz"))
        found: Mapping[str, Any] = answer.json()
        return found

    def close(self) -> None:
        """Close all connections."""
        self.transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
