"""The pixels of an image as its features."""

from __future__ import annotations

import torch

from hashzoo import Backbone, Features, Input


class Pixels(Backbone):
    """The flattened image, for shallow methods on small images."""

    def __init__(self, shape: tuple[int, int, int], *, size: int | None = None) -> None:
        """``shape`` is (channels, height, width); ``size`` resizes images to a square first."""
        super().__init__()
        channels, height, width = shape if size is None else (shape[0], size, size)
        self.dim = channels * height * width
        self.input = Input(size=size, mean=(0.0,), std=(1.0,))

    def forward(self, images: torch.Tensor) -> Features:
        """``pooled`` (B, C * H * W), no maps."""
        return Features(images.flatten(1))
