"""Random numbers from (job seed, what they are for): order and retries change nothing."""

import torch

from fda_core.seeds import derive


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """Return a CPU generator for one purpose."""
    return torch.Generator().manual_seed(derive(seed, *purpose))
