"""Settings of every process: environment variables that start with FDA_, or secret files."""

import os
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
)

from fda_core.contract.uris import normalise
from fda_core.errors import BadParameter

SECRETS = Path("/run/secrets")
"""Where containers find secrets as files; FDA_SECRETS_DIR names another folder."""


class ProcessSettings(BaseSettings):
    """What every process is told. The same names in upper case, after FDA_."""

    model_config = SettingsConfigDict(env_prefix="FDA_", extra="ignore", frozen=True)

    redis_url: SecretStr = Field(default=SecretStr("redis://127.0.0.1:6379/0"))
    workspace: str = Field(
        default="fda-workspace",
        validate_default=True,
        description="Journals and the anchor cache: a folder or s3://.",
    )
    roots: tuple[str, ...] = Field(
        default=(), description="Storage recipes may name: folders and s3://bucket/prefix, JSON."
    )
    log_level: str = "info"
    otlp_endpoint: str = Field(default="", description="OpenTelemetry collector; none if empty.")
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = Field(
        default=None, ge=0, le=65535, description="Prometheus; none if unset, 0 for any free port."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - there are no such files
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - made here, not at import
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return where settings come from: arguments, the environment, files of secrets."""
        folder = secrets_folder(os.environ.get("FDA_SECRETS_DIR"))
        return init_settings, env_settings, SecretsSettingsSource(settings_cls, folder)

    @field_validator("workspace", mode="after")
    @classmethod
    def _whole_workspace(cls, value: str) -> str:
        return normalise(value, cwd=str(Path.cwd()))

    @field_validator("roots", mode="after")
    @classmethod
    def _whole_roots(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(normalise(root, cwd=str(Path.cwd())) for root in value)

    @field_validator("metrics_port", mode="before")
    @classmethod
    def _unset(cls, value: Any) -> Any:
        return None if value == "" else value

    @cached_property
    def allowed(self) -> tuple[str, ...]:
        """Return every root that may be read or written, the workspace's too."""
        return (*self.roots, self.workspace)


def secrets_folder(told: str | None) -> Path | None:
    """Return the folder of secret files: the one that was told, else the usual one if there."""
    if told:
        if not Path(told).is_dir():
            raise BadParameter(
                f"FDA_SECRETS_DIR: {told} is no folder", hint="Name the folder of secret files."
            )
        return Path(told)
    return SECRETS if SECRETS.is_dir() else None
