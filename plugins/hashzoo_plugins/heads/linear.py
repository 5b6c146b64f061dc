"""The hash layers that most methods share: a linear map, then an optional normalization and nonlinearity.

Each head also returns its input features, in ``extra["features"]``, for losses that compare codes with them.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from hashzoo import Backbone, Features, Head, Output, Setting


class Linear(Head):
    """One linear layer on the pooled features: z = W f + v."""

    def __init__(self, setting: Setting, backbone: Backbone) -> None:
        super().__init__()
        self.layer = nn.Linear(backbone.dim, setting.bits)

    def forward(self, features: Features) -> Output:
        """``code`` (B, K), unbounded."""
        return Output(self.layer(features.pooled), extra={"features": features.pooled})


class Tanh(Head):
    """A linear layer and tanh: codes in (-1, 1)."""

    def __init__(self, setting: Setting, backbone: Backbone) -> None:
        super().__init__()
        self.layer = nn.Linear(backbone.dim, setting.bits)

    def forward(self, features: Features) -> Output:
        """``code`` (B, K) in (-1, 1)."""
        return Output(torch.tanh(self.layer(features.pooled)), extra={"features": features.pooled})


class Norm(Head):
    """A linear layer without bias, then batch normalization: balanced bits, unbounded codes."""

    def __init__(self, setting: Setting, backbone: Backbone) -> None:
        super().__init__()
        self.layer = nn.Linear(backbone.dim, setting.bits, bias=False)
        self.norm = nn.BatchNorm1d(setting.bits)

    def forward(self, features: Features) -> Output:
        """``code`` (B, K), unbounded."""
        return Output(self.norm(self.layer(features.pooled)), extra={"features": features.pooled})


class NormTanh(Head):
    """A linear layer without bias, normalization over the batch (balanced bits) or over each code (``layer``), tanh."""

    def __init__(self, setting: Setting, backbone: Backbone, *, norm: Literal["batch", "layer"] = "batch") -> None:
        super().__init__()
        if norm == "layer" and setting.bits < 2:
            raise ValueError("norm = 'layer' needs codes of two bits or more: normalizing a single value gives zero")
        self.layer = nn.Linear(backbone.dim, setting.bits, bias=False)
        self.norm = nn.BatchNorm1d(setting.bits) if norm == "batch" else nn.LayerNorm(setting.bits)

    def forward(self, features: Features) -> Output:
        """``code`` (B, K) in (-1, 1)."""
        return Output(torch.tanh(self.norm(self.layer(features.pooled))), extra={"features": features.pooled})
