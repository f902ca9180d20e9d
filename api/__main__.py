"""`python -m api`: serve until told to stop."""

import sys

import uvicorn
from pydantic import ValidationError

from api.logs import set_up_logging
from api.main import create_app
from api.settings import Settings

DRAIN_SECONDS = 8
"""Streams are cut and long polls answered at once; other requests have so long."""


def main() -> None:
    """Read the settings from the environment and serve."""
    try:
        settings = Settings()
    except ValidationError as problem:
        sys.exit(f"settings: {problem}")
    set_up_logging(settings.log_level)
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        proxy_headers=False,
    )


if __name__ == "__main__":
    main()
