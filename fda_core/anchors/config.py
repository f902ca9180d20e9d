"""Settings of both stages of FDA. Defaults are those of arXiv 2510.21223 and its code."""

from typing import Annotated, Literal

from pydantic import Field

from fda_core.contract.recipe import Document

Distance = Literal["cosine", "l2", "l1"]
Init = Literal["weight", "gaussian", "spectral"]
Cosine = Literal["per_tensor", "layer"]

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


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
    sigma: Annotated[float, Field(gt=0, le=1e3)] = Field(
        default=0.01, description="Standard deviation of the gaussian init."
    )
    rank: Annotated[int, Field(ge=1, le=65536)] = Field(
        default=64, description="k of the spectral init: how many singular directions."
    )
    steps: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        default=1200, description="Optimiser steps."
    )
    learning_rate: Annotated[float, Field(gt=0, le=10)] = Field(
        default=0.01, description="Of AdamW on the anchors."
    )
    weight_decay: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.01, description="Of AdamW on the anchors."
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


class AdaptConfig(Document):
    """Stage II: how one layer is fitted to all experts' anchors."""

    learning_rate: Annotated[float, Field(gt=0, le=10)] | None = Field(
        default=None,
        description="Of Adam; unset: from the base 5e-5 for text and 1e-5 for image models, "
        "1e-2 from any other start.",
    )
    epochs: Annotated[int, Field(ge=0, le=100_000)] = Field(
        default=100, description="Passes over the pooled anchors; 0 keeps the start."
    )
    batch: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        default=128, description="Anchors per minibatch."
    )
    distance: Distance = Field(
        default="l2", description="Between the layer's and the experts' outputs, summed."
    )
