"""Heatmaps drawn over images."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# RGB stops from low to high, light enough for the image to show through
_COLOR_STOPS = np.array([[13, 8, 60], [120, 28, 109], [200, 60, 76], [246, 130, 40], [252, 240, 150]], dtype=float)


def to_pil(image: NDArray[np.float32]) -> Image.Image:
    """An image (C, H, W) from 0 to 1 as a PIL image: in RGB for three channels, else the first channel in gray."""
    values = (image * 255).round().astype(np.uint8)
    return Image.fromarray(values.transpose(1, 2, 0) if len(values) == 3 else values[0])


def blend(image: Image.Image, heatmap: NDArray[Any]) -> Image.Image:
    """An image under a heatmap (H, W) from 0 to 1: gray where the heatmap is 0, colored where it is high.

    >>> np.asarray(blend(Image.new("RGB", (2, 1), (100, 100, 100)), np.array([[0.0, 1.0]]))).tolist()
    [[[82, 81, 92], [206, 198, 135]]]
    """
    stops = np.linspace(0, 1, len(_COLOR_STOPS))
    colors = np.stack([np.interp(heatmap, stops, channel) for channel in _COLOR_STOPS.T], axis=-1)
    grey = np.repeat(np.asarray(image.convert("RGB")).mean(2, keepdims=True), 3, axis=2)
    opacity = 0.2 + 0.5 * heatmap[..., None]
    return Image.fromarray(((1 - opacity) * grey + opacity * colors).clip(0, 255).astype(np.uint8))
