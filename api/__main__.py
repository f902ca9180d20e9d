"""`python -m api`: serve until told to stop."""

import sys
from socket import socket

import uvicorn
from pydantic import ValidationError

from api.events.hub import Hub
from api.logs import set_up_logging
from api.main import create_app
from api.settings import Settings
from fda_core.errors import FdaError

DRAIN_SECONDS = 8
"""Streams are cut and long polls answered at once; other requests have so long."""


class Server(uvicorn.Server):
    """Ends streams and long polls first: they would keep it from stopping."""

    def __init__(self, config: uvicorn.Config, hub: Hub) -> None:
        super().__init__(config)
        self._hub = hub

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Stop listening, let everybody go, wait for those who are being answered."""
        self._hub.let_go()
        await super().shutdown(sockets)


def main() -> None:
    """Read the settings from the environment and serve."""
    try:
        settings = Settings()
    except (ValidationError, FdaError) as problem:
        sys.exit(f"settings: {problem}")
    set_up_logging(settings.log_level, process="api")
    try:
        app = create_app(settings)
    except FdaError as problem:
        sys.exit(f"settings: {problem}")
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        proxy_headers=False,
    )
    Server(config, app.state.context.hub).run()


if __name__ == "__main__":
    main()
