"""Routes of webhooks: decode, call the service, encode."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import JSONResponse

from api.gate import Cursor, Gate, Id, Limit, refusals
from api.jobs.submitting import Caller, Once
from api.webhooks.service import WebhookService
from fda_core.contract.rest.base import Page
from fda_core.contract.rest.webhooks import (
    Delivery,
    DeliveryState,
    Webhook,
    WebhookPatch,
    WebhookRequest,
    WebhookSecret,
)


def router(gate: Gate, service: WebhookService) -> APIRouter:
    """Return the routes under /v1/webhooks."""
    routes = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])
    viewer, submitter = Depends(gate.viewer), Depends(gate.submitter)

    @routes.post(
        "",
        status_code=201,
        operation_id="createWebhook",
        summary="Be told how jobs end; shows the signing secret this once",
        response_model=Webhook,
        responses=refusals(409, 422),
    )
    def create(
        request: WebhookRequest,
        caller: Annotated[Caller, submitter],
        once: Annotated[Once | None, Depends(gate.once)],
    ) -> JSONResponse:
        return service.create(caller, request, once=once).response()

    @routes.post(
        "/job-secret",
        operation_id="replaceJobWebhookSecret",
        summary="Make the secret that jobs' own webhooks are signed with; shown this once",
        responses=refusals(422),
    )
    def job_secret(caller: Annotated[Caller, submitter], response: Response) -> WebhookSecret:
        response.headers["Cache-Control"] = "no-store"
        return service.new_job_secret(caller)

    @routes.get(
        "",
        operation_id="listWebhooks",
        summary="List webhooks, newest first",
        responses=refusals(422),
    )
    def page(
        caller: Annotated[Caller, viewer], cursor: Cursor = None, limit: Limit = 50
    ) -> Page[Webhook]:
        return service.page(caller, cursor=cursor, limit=limit)

    @routes.get(
        "/{webhook_id}",
        operation_id="getWebhook",
        summary="Show a webhook",
        responses=refusals(404, 422),
    )
    def get(webhook_id: Id, caller: Annotated[Caller, viewer]) -> Webhook:
        return service.get(caller, webhook_id)

    @routes.patch(
        "/{webhook_id}",
        operation_id="updateWebhook",
        summary="Change a webhook, or switch it off or on",
        responses=refusals(404, 422),
    )
    def update(
        webhook_id: Id, patch: WebhookPatch, caller: Annotated[Caller, submitter]
    ) -> Webhook:
        return service.update(caller, webhook_id, patch)

    @routes.delete(
        "/{webhook_id}",
        status_code=204,
        operation_id="deleteWebhook",
        summary="Delete a webhook",
        responses=refusals(404, 422),
    )
    def delete(webhook_id: Id, caller: Annotated[Caller, submitter]) -> None:
        service.delete(caller, webhook_id)

    @routes.post(
        "/{webhook_id}/test",
        status_code=202,
        operation_id="testWebhook",
        summary="Send a test message",
        responses=refusals(404, 409, 422),
    )
    def test(webhook_id: Id, caller: Annotated[Caller, submitter]) -> Delivery:
        return service.test(caller, webhook_id)

    @routes.get(
        "/{webhook_id}/deliveries",
        operation_id="listDeliveries",
        summary="List what was sent, newest first",
        responses=refusals(404, 422),
    )
    def deliveries(
        webhook_id: Id,
        caller: Annotated[Caller, viewer],
        cursor: Cursor = None,
        limit: Limit = 50,
        state: Annotated[DeliveryState | None, Query()] = None,
    ) -> Page[Delivery]:
        return service.deliveries(caller, webhook_id, cursor=cursor, limit=limit, state=state)

    @routes.post(
        "/{webhook_id}/deliveries/{delivery_id}/redeliver",
        status_code=202,
        operation_id="redeliver",
        summary="Send a message again",
        responses=refusals(404, 409, 422),
    )
    def redeliver(
        webhook_id: Id, delivery_id: Id, caller: Annotated[Caller, submitter]
    ) -> Delivery:
        return service.redeliver(caller, webhook_id, delivery_id)

    return routes
