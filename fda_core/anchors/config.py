"""Settings of both stages of FDA. Defaults are those of arXiv 2510.21223 and its code."""

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from fda_core.contract.recipe import Document

Distance = Literal["cosine", "l2", "l1"]
Init = Literal["weight", "gaussian", "spectral"]
Cosine = Literal["per_tensor", "layer"]
OptimiserName = Literal["adamw", "muon"]
Schedule = Literal["constant", "cosine"]
Metric = Literal["plain", "update"]

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]

SIGMAS = (1.0, 0.1, 0.01, 0.001)
"""What `sigma: search` tries, in this order; of two equally aligned the earlier is kept."""
TRIAL_STEPS = 120
"""How long each is tried."""
MIN_GAIN = 0.002

OPTIMISER: OptimiserName = "adamw"
LEARNING_RATES: dict[OptimiserName, float] = {"adamw": 0.01, "muon": 1.0}
SCHEDULES: dict[OptimiserName, Schedule] = {"adamw": "constant", "muon": "cosine"}
WEIGHT_DECAY = 0.01
POLAR_ITERATIONS = 5
"""Newton-Schulz iterations of Muon's polar factor; here so that costs count them without torch."""


def _number_or_search(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """Say in one sentence what pydantic would say of each half of the union."""
    try:
        return check(value)
    except ValidationError:
        raise ValueError(
            f"a number above 0 and at most 1000, or the word search, not {value!r}"
        ) from None


Sigma = Annotated[
    Annotated[float, Field(gt=0, le=1e3)] | Literal["search"], WrapValidator(_number_or_search)
]


class ConstructConfig(Document):
    """Stage I: how the anchors of one (layer, expert) are found."""

    anchors: Annotated[int, Field(ge=1, le=65536)] = Field(
        default=64, description="n, anchors per layer and expert."
    )
    tokens: Annotated[int, Field(ge=1, le=65536)] | None = Field(
        default=None,
        description="t, tokens per anchor; unset: 5 for text models, the model's own for images. "
        "Not for scope: mlp.",
    )
    init: Init = Field(
        default="weight",
        description="First anchors: rows of the expert's weights, noise of size sigma, or noise "
        "in the head subspace of the layer's update.",
    )
    sigma: Sigma = Field(
        default=0.01,
        description="Standard deviation of the gaussian init; search: of "
        f"{', '.join(f'{sigma:g}' for sigma in SIGMAS)} the one best aligned after "
        f"{TRIAL_STEPS} steps, per layer and expert.",
    )
    rank: Annotated[int, Field(ge=1, le=65536)] = Field(
        default=64, description="k of the spectral init: how many singular directions."
    )
    steps: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        default=1200, description="Optimiser steps at most."
    )
    patience: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None,
        description="Stop once the best alignment has risen by less than min_gain over so many "
        "steps; unset: never.",
    )
    min_gain: Annotated[float, Field(gt=0, le=1)] = Field(
        default=MIN_GAIN, description="In alignment (cosine); for patience."
    )
    optimiser: OptimiserName = Field(
        default=OPTIMISER,
        description="How anchors move: adamw (the paper), or muon on all of them as one matrix.",
    )
    schedule: Schedule | None = Field(
        default=None,
        description="Of the learning rate: constant, or cosine down to zero over steps; unset: "
        "constant for adamw, cosine for muon.",
    )
    learning_rate: Annotated[float, Field(gt=0, le=10)] | None = Field(
        default=None,
        description="adamw: about what an element moves in a step, unset 0.01; muon: the RMS of "
        "a step in units of the first anchors' RMS, unset 1.0.",
    )
    weight_decay: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="Of adamw, unset: 0.01. Not for muon."
    )
    metric: Metric = Field(
        default="plain",
        description="Where muon's steps go: plain, every direction alike, or update, each as far "
        "as the layer's update is large along it, which keeps anchors where real inputs are.",
    )
    distance: Distance = Field(
        default="cosine", description="Between the base layer's and the expert layer's outputs."
    )
    cosine: Cosine = Field(
        default="per_tensor",
        description="One cosine per tensor, summed (the code), or one over the layer (the paper).",
    )
    microbatch: Count | None = Field(
        default=None,
        description="Anchors per pass; unset: as many as fit in 4 GB. Less memory, more time.",
    )

    @model_validator(mode="after")
    def _settings_have_an_effect(self) -> "ConstructConfig":
        if self.sigma == "search" and self.init != "gaussian":
            raise ValueError(f"sigma: search is for init: gaussian, not for init: {self.init}")
        if self.patience is None and self.min_gain != MIN_GAIN:
            raise ValueError(f"min_gain is {self.min_gain:g}, but patience is unset")
        if self.optimiser == "muon" and self.weight_decay is not None:
            raise ValueError(
                f"weight_decay is {self.weight_decay:g}, but is for optimiser: adamw, not for "
                "optimiser: muon"
            )
        if self.optimiser != "muon" and self.metric != "plain":
            raise ValueError(
                f"metric: {self.metric} is for optimiser: muon, not for optimiser: {self.optimiser}"
            )
        return self

    @property
    def settled_schedule(self) -> Schedule:
        """Return the schedule, the optimiser's own where it is unset."""
        return self.schedule or SCHEDULES[self.optimiser]

    @property
    def settled_learning_rate(self) -> float:
        """Return the learning rate, the optimiser's own where it is unset."""
        if self.learning_rate is None:
            return LEARNING_RATES[self.optimiser]
        return self.learning_rate

    @property
    def settled_weight_decay(self) -> float:
        """Return AdamW's weight decay; Muon has none."""
        return WEIGHT_DECAY if self.weight_decay is None else self.weight_decay

    def settled(self) -> "ConstructConfig":
        """Return these settings with all that hangs on the optimiser written out."""
        decay = self.settled_weight_decay if self.optimiser == "adamw" else None
        return self.model_copy(
            update={
                "schedule": self.settled_schedule,
                "learning_rate": self.settled_learning_rate,
                "weight_decay": decay,
            }
        )

    @property
    def trial_steps(self) -> int:
        """Return the steps of each σ that is tried; 0 where none is."""
        return min(TRIAL_STEPS, self.steps) if self.sigma == "search" else 0

    @property
    def steps_in_all(self) -> int:
        """Return the steps at most, of the trials that are not kept, too."""
        return self.steps + (len(SIGMAS) - 1) * self.trial_steps


class AdaptConfig(Document):
    """Stage II: how one layer is fitted to all experts' anchors."""

    learning_rate: Annotated[float, Field(gt=0, le=10)] | None = Field(
        default=None,
        description="Of Adam; unset: from the base 5e-5 for text and 1e-5 for image models, "
        "1e-2 from any other start; with preset: quick ten times that from the base, 1e-3 from "
        "other starts than task_arithmetic.",
    )
    epochs: Annotated[int, Field(ge=0, le=100_000)] = Field(
        default=100, description="Passes over the pooled anchors; 0 keeps the start."
    )
    batch: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        default=128, description="Anchors per minibatch."
    )
    schedule: Schedule = Field(
        default="constant",
        description="Of the learning rate, minibatch by minibatch: constant, or a cosine that "
        "falls to 0.",
    )
    distance: Distance = Field(
        default="l2", description="Between the layer's and the experts' outputs, summed."
    )
