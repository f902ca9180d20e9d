"""API keys: like every kind of resource, but that making one shows it."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from fda_core.client.collections import Collection, data_of, read
from fda_core.client.transport import Request
from fda_core.contract.rest.keys import Key, NewKey


class Keys(Collection[Key]):
    """All API keys."""

    def create(
        self, model: BaseModel | Mapping[str, Any], *, idempotency_key: str | None = None
    ) -> NewKey:
        """Make a key and return it with the key itself, which is never shown again."""
        if idempotency_key is not None:
            raise ValueError("a key is shown once, so making one cannot be repeated")
        request = Request(method="POST", path=self._path, body=data_of(model))
        return read(NewKey, self._transport.send(request).content)
