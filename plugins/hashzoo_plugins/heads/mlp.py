"""A hash layer of two linear maps with a normalization over the batch."""

from __future__ import annotations

from torch import nn

from hashzoo import Backbone, Features, Head, Output, Setting


class MLP(Head):
    """A hidden layer with GELU, a linear layer and batch normalization: balanced bits, unbounded codes."""

    def __init__(self, setting: Setting, backbone: Backbone, *, hidden: int = 0) -> None:
        super().__init__()
        width = hidden or backbone.dim  # 0: as many units as features
        self.layers = nn.Sequential(
            nn.Linear(backbone.dim, width), nn.GELU(), nn.Linear(width, setting.bits), nn.BatchNorm1d(setting.bits)
        )

    def forward(self, features: Features) -> Output:
        """``code`` (B, K), unbounded; the input features in ``extra["features"]``."""
        return Output(self.layers(features.pooled), extra={"features": features.pooled})
