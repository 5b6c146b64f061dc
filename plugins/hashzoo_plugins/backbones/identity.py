"""Vectors as their own features."""

from __future__ import annotations

import torch

from hashzoo import Backbone, Features


class Identity(Backbone):
    """The vector itself: what a benchmark of vectors uses."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        """``shape`` is (D, 1, 1) for vectors of D dimensions."""
        super().__init__()
        if shape[1:] != (1, 1):
            raise ValueError(
                "it takes vectors, and these are images; use a network such as tiny, or pixels for raw values"
            )
        self.dim = shape[0]

    def forward(self, images: torch.Tensor) -> Features:
        """``pooled`` (B, D), no maps."""
        return Features(images)
