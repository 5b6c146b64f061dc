"""Where a method looks, laid over the image that it saw."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# From cold to hot; light enough to see the image under it.
_HEAT = np.array([[13, 8, 60], [120, 28, 109], [200, 60, 76], [246, 130, 40], [252, 240, 150]], dtype=float)


def to_pil(seen: NDArray[np.float32]) -> Image.Image:
    """An image (C, H, W) in 0..1 for people; of other than three channels the first, as grey."""
    values = (seen * 255).round().astype(np.uint8)
    return Image.fromarray(values.transpose(1, 2, 0) if len(values) == 3 else values[0])


def heated(image: Image.Image, where: NDArray[Any]) -> Image.Image:
    """An image under a map (H, W) in 0..1: grey where the map is 0, coloured where it is high.

    >>> np.asarray(heated(Image.new("RGB", (2, 1), (100, 100, 100)), np.array([[0.0, 1.0]]))).tolist()
    [[[82, 81, 92], [206, 198, 135]]]
    """
    stops = np.linspace(0, 1, len(_HEAT))
    heat = np.stack([np.interp(where, stops, channel) for channel in _HEAT.T], axis=-1)
    grey = np.repeat(np.asarray(image.convert("RGB")).mean(2, keepdims=True), 3, axis=2)
    share = 0.2 + 0.5 * where[..., None]
    return Image.fromarray(((1 - share) * grey + share * heat).clip(0, 255).astype(np.uint8))
