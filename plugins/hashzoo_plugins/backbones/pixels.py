"""The picture itself."""

from __future__ import annotations

import torch

from hashzoo.method import Backbone, Input
from hashzoo.types import Features


class Pixels(Backbone):
    """The flattened picture, for shallow methods on small pictures."""

    def __init__(self, shape: tuple[int, int, int], *, size: int | None = None) -> None:
        """``shape`` is (channels, height, width); ``size`` resizes pictures to a square first."""
        super().__init__()
        channels, height, width = shape if size is None else (shape[0], size, size)
        self.dim = channels * height * width
        self.input = Input(size=size, mean=(0.0,), std=(1.0,))

    def forward(self, images: torch.Tensor) -> Features:
        """``pooled`` (B, C * H * W), no maps."""
        return Features(images.flatten(1))
