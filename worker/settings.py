"""Settings of a worker process: environment variables that start with FDA_, or secret files."""

from typing import Annotated, Any

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from fda_core.contract.service.names import QUEUES
from fda_core.errors import BadParameter
from fda_core.processes.settings import ProcessSettings

ENGINE = "fda_core.engine.units:UnitRunner"


class Settings(ProcessSettings):
    """What a worker is told."""

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
    runner: str = Field(
        default=ENGINE, description="module:Class that runs units, for tests and measurements."
    )

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
