"""Settings of a worker process: environment variables that start with FDA_, or secret files."""

import os
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
)

from fda_core.contract.service.names import QUEUES
from fda_core.contract.uris import normalise
from fda_core.errors import BadParameter

SECRETS = Path("/run/secrets")
"""Where containers find secrets as files; FDA_SECRETS_DIR names another folder."""
ENGINE = "fda_core.engine.units:UnitRunner"


class Settings(BaseSettings):
    """What a worker is told. The same names in upper case, after FDA_."""

    model_config = SettingsConfigDict(
        env_prefix="FDA_",
        extra="ignore",
        frozen=True,
    )

    redis_url: SecretStr = Field(default=SecretStr("redis://127.0.0.1:6379/0"))
    workspace: str = Field(
        default="fda-workspace", description="Journals and the anchor cache: a folder or s3://."
    )
    roots: tuple[str, ...] = Field(
        default=(), description="Storage recipes may name: folders and s3://bucket/prefix, JSON."
    )
    queues: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="What to take units from, with commas; empty: gpu and cpu on a GPU, else cpu.",
    )
    device: str = Field(default="auto", description="auto, cpu, gpu (or cuda), cuda:1.")
    threads: int = Field(
        default=1, ge=1, description="Processor threads of a unit; the same on all workers."
    )
    grace_seconds: float = Field(
        default=20.0, ge=0, description="How long a unit may go on after SIGTERM."
    )
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = Field(
        default=None, ge=0, le=65535, description="Prometheus; none if unset, 0 for any free port."
    )
    log_level: str = "info"
    otlp_endpoint: str = Field(default="", description="OpenTelemetry collector; none if empty.")
    runner: str = Field(
        default=ENGINE, description="module:Class that runs units, for tests and measurements."
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

    @field_validator("queues", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(filter(None, map(str.strip, value.split(",")))) if _is_text(value) else value

    @field_validator("queues")
    @classmethod
    def _known(cls, queues: tuple[str, ...]) -> tuple[str, ...]:
        for queue in queues:
            if queue not in QUEUES:
                raise ValueError(f"{queue!r} is no queue; there are {', '.join(QUEUES)}")
        return queues

    @field_validator("metrics_port", mode="before")
    @classmethod
    def _unset(cls, value: Any) -> Any:
        return None if value == "" else value

    @cached_property
    def allowed(self) -> tuple[str, ...]:
        """Return every root that may be read or written, the workspace's too."""
        here = os.getcwd()  # noqa: PTH109
        return tuple(normalise(root, cwd=here) for root in (*self.roots, self.workspace))

    @property
    def torch_device(self) -> str:
        """Return the device as torch calls it; queues' names are understood too."""
        return "cuda" if self.device in ("gpu", "gpu-large") else self.device


def visible_devices(device: str, visible: str | None) -> tuple[str, str | None]:
    """Return the device's name once CUDA sees it alone, and CUDA_VISIBLE_DEVICES for that.

    A process that sees one GPU keeps no context on another. None leaves the variable alone.
    """
    if device == "cpu":
        return device, ""
    kind, _, index = device.partition(":")
    if kind != "cuda" or not index:
        return device, None
    if not index.isdigit():
        raise BadParameter(f"{device!r} is no device", hint="Use auto, cpu, cuda or cuda:0.")
    if visible is None:
        return "cuda:0", index
    known = [name.strip() for name in visible.split(",") if name.strip()]
    if int(index) >= len(known):
        raise BadParameter(
            f"{device}: CUDA_VISIBLE_DEVICES shows {len(known)} devices: {visible!r}",
            hint="Count from the first that is shown, cuda:0.",
        )
    return "cuda:0", known[int(index)]


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def secrets_folder(told: str | None) -> Path | None:
    """Return the folder of secret files: the one that was told, else the usual one if there."""
    if told:
        if not Path(told).is_dir():
            raise BadParameter(
                f"FDA_SECRETS_DIR: {told} is no folder", hint="Name the folder of secret files."
            )
        return Path(told)
    return SECRETS if SECRETS.is_dir() else None
