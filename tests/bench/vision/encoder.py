"""From images to the class token's features, in float32 or in bfloat16 where it trains."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fda_core.engine.device import fast_float32, float32_kernel

MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
"""Of ImageNet's colours, as DINOv2 was trained with."""
BATCH = 64


def pixels_of(images: NDArray[np.uint8]) -> Tensor:
    """Return images (N, s, s, 3) as the encoder takes them: (N, 3, s, s) float32."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(255.0)
    mean = torch.tensor(MEAN).view(1, 3, 1, 1)
    deviation = torch.tensor(DEVIATION).view(1, 3, 1, 1)
    return pixels.sub_(mean).div_(deviation).contiguous()


def class_token(module: nn.Module, pixels: Tensor) -> Tensor:
    """Return the class token after the final layer norm, (N, d)."""
    found: Tensor = module(pixel_values=pixels).last_hidden_state[:, 0]
    return found


@torch.inference_mode()
def features(module: nn.Module, images: NDArray[np.uint8], *, batch: int = BATCH) -> Tensor:
    """Return the features of images, (N, d) float32, without a graph."""
    with fast_float32(float32_kernel()):
        found = [
            class_token(module, pixels_of(images[first : first + batch]))
            for first in range(0, len(images), batch)
        ]
    return torch.cat(found).clone()
