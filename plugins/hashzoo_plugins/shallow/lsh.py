"""LSH: Similarity Estimation Techniques from Rounding Algorithms (Charikar, STOC 2002), random hyperplanes.

Each bit is the side of a random hyperplane that an image lies on; only the mean is learned.

    w_k ~ N(0, I)  (D,)
    code_k = sgn(<w_k, f - mean>)
    P[code_k(f) != code_k(g)] = angle(f - mean, g - mean) / pi

Resolved: ``center`` removes the training mean. Features after a ReLU are non-negative, and hyperplanes through the
origin would hardly separate them: the bits would be highly correlated.

Public code: directions drawn uniformly from [0, 1), which favors some; different seeds for queries and database.

Cite: charikar2002similarity
"""

from __future__ import annotations

from typing import Annotated

import torch

from hashzoo import Backbone, Batch, Card, Choice, Codes, Method, Run, Setting, Split
from hashzoo_plugins.shallow import projection


class LSH(Method):
    """Signs of random projections (Charikar, STOC 2002)."""

    card = Card("shallow", "none", paper="Charikar, STOC 2002", year=2002)

    def __init__(
        self, setting: Setting, backbone: Backbone, *, center: Annotated[bool, Choice(True, False)] = True
    ) -> None:
        super().__init__()
        self.backbone, self.bits, self.center = backbone, setting.bits, center
        self.register_buffer("mean", torch.zeros(backbone.dim))
        self.register_buffer("projection", torch.zeros(backbone.dim, setting.bits))

    def fit(self, train: Split, run: Run) -> None:
        """Draw the directions; only the mean is computed from the data."""
        x = run.features(self.backbone, train).pooled  # (N, D)
        if self.center:
            self.mean = x.mean(0)
        self.projection = torch.randn(x.shape[1], self.bits, generator=run.generator).to(x.device)

    def encode(self, batch: Batch) -> Codes:
        """sgn((f - mean) W)."""
        return projection.encode(self.backbone, self.mean, self.projection, batch)
