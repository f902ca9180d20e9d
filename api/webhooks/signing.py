"""Standard Webhooks: secrets, headers and signatures (https://www.standardwebhooks.com)."""

import base64
import json
import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from standardwebhooks import Webhook

SECRET_BYTES = 32


def new_secret() -> str:
    """Return a new signing secret, in the form that receivers' libraries take."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def encode(payload: Mapping[str, Any]) -> bytes:
    """Return a payload as the bytes that are signed and sent."""
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()


def signed_headers(
    secret: str, message_id: str, body: bytes, *, moment: datetime
) -> dict[str, str]:
    """Return the headers that go with a body; the id stays the same at every try."""
    return {
        "Content-Type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": Webhook(secret).sign(message_id, moment, body.decode()),
    }
