"""See that the two stored copies of a tied tensor are one tensor.

A merge writes the merged source under both names. Where the copies differ the config does not
describe the weights: transformers loads such a model untied, and the copy's own values would
be lost without a word. Headers cannot show it, so it is checked where the copy is written.
"""

from math import prod
from typing import Final

import torch
from torch import Tensor

from fda_core.contract.plan import PlannedExpert, PlannedTensor
from fda_core.engine.layer_tensors import Inputs
from fda_core.engine.window import Stored
from fda_core.errors import CheckpointError

PIECE_ELEMENTS: Final = 2**20


def check_tied_copy(inputs: Inputs, tensor: PlannedTensor, expert: PlannedExpert | None) -> None:
    """Raise `CheckpointError` if the base (None) or an expert stores two different tensors.

    One that stores only one of them is fine, and so are other rows than the base has (`vocabulary:
    base`). Reads in pieces: a few megabytes.
    """
    source = tensor.tied_to
    who = None if expert is None else expert.name
    assert source is not None, "the tensor is tied"
    if expert is not None and not (tensor.name in expert.names and source in expert.names):
        return
    if not (inputs.is_stored(tensor.name, who) and inputs.is_stored(source, who)):
        return
    copies = inputs.stored(tensor.name, who), inputs.stored(source, who)
    inputs.count(tensor.name, who)
    at = _first_difference(*copies, stop=prod(tensor.shape))
    if at is not None:
        names = [expert.names[name] if expert else name for name in (tensor.name, source)]
        raise CheckpointError(
            f"{who or 'base'}: {names[0]} and {names[1]} differ (first at element {at}), though "
            "config.json ties them (tie_word_embeddings)",
            hint="If the model has an output matrix of its own, write tie_word_embeddings: false "
            "into its config.json; else remove the copy that is out of date.",
            expert=who or "base",
            tensor=names[0],
        )


def _first_difference(one: Stored, other: Stored, *, stop: int) -> int | None:
    count = min(one.numel, other.numel, stop)
    for start in range(0, count, PIECE_ELEMENTS):
        end = min(count, start + PIECE_ELEMENTS)
        apart = _read(one, start, end) != _read(other, start, end)
        if apart.any():
            return start + int(apart.nonzero()[0])
    return None


def _read(stored: Stored, start: int, stop: int) -> Tensor:
    elements = torch.empty(stop - start, dtype=stored.dtype)
    stored.read(start, elements)
    return elements.double()
