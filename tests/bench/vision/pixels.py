"""Turn pictures of any size and depth into the suite's 56 × 56 RGB."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.bench.vision.task import SIDE

GROUND = 128
"""The grey behind pictures that were cut out."""
Pixels = NDArray[np.uint8]


def resized(image: Image.Image, *, sampling: Image.Resampling) -> Pixels:
    """Return the picture as (56, 56, 3), its proportions changed where it is no square."""
    return np.asarray(image.convert("RGB").resize((SIDE, SIDE), sampling))


def grey_resized(images: NDArray[np.uint8]) -> Pixels:
    """Return grey pictures (N, h, w) as (N, 56, 56, 3), bicubic."""
    return np.stack(
        [resized(Image.fromarray(image), sampling=Image.Resampling.BICUBIC) for image in images]
    )


def on_grey(image: Image.Image, *, fill: float) -> Pixels:
    """Return a picture with transparency (56, 56, 3), centred on grey and never distorted.

    Its visible part is cut out and its longer side made `fill` of the square, so that the
    empty border of a file tells nothing about its class.
    """
    picture = image.convert("RGBA")
    box = picture.getchannel("A").point(lambda alpha: 255 * (alpha > 8)).getbbox()
    picture = picture.crop(box) if box else picture
    scale = fill * SIDE / max(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    # Resized with colours already weighted by alpha; else hidden colours bleed at the edges.
    small = picture.convert("RGBa").resize(size, Image.Resampling.LANCZOS).convert("RGBA")
    ground = Image.new("RGBA", (SIDE, SIDE), (GROUND, GROUND, GROUND, 255))
    ground.alpha_composite(small, ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    return np.asarray(ground.convert("RGB"))
