"""What a stage of a plan takes, and how long that is predicted to be."""

from pydantic import BaseModel, ConfigDict, Field


class Seconds(BaseModel):
    """A predicted time: with the best and the worst speed that is assumed, and in between."""

    model_config = ConfigDict(frozen=True)

    low: float
    likely: float
    high: float


class StageCost(BaseModel):
    """A stage of a plan, or all of a method's work on the same inputs, one unit after another."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(description="construct, adapt, merge, publish, all; or a method.")
    flops: int = Field(description="Two per multiply-add; products and factorisations.")
    moved_bytes: int = Field(description="Through the device's memory.")
    launches: int = Field(description="Kernels started.")
    read_bytes: int
    write_bytes: int
    memory_bytes: int = Field(description="Of the unit that needs most.")
    seconds: dict[str, Seconds] = Field(
        default_factory=dict, description="By device, predicted for one worker."
    )
