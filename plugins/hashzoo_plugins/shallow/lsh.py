"""Locality-sensitive hashing by random hyperplanes (Charikar, STOC 2002)."""

from __future__ import annotations

import torch

from hashzoo.method import Backbone, Card, Method
from hashzoo.run import Run
from hashzoo.types import Batch, Codes, Setting, Split
from hashzoo_plugins.shallow import projection


class LSH(Method):
    """Signs of random projections (Charikar, STOC 2002).

    Two vectors differ in a bit with probability angle / pi. Directions are Gaussian, so no direction is preferred.
    ``center`` removes the training mean: features behind a ReLU are non-negative, and hyperplanes through the
    origin would hardly cut them.
    """

    card = Card("shallow", "none", paper="Charikar, STOC 2002", year=2002)

    def __init__(self, setting: Setting, backbone: Backbone, *, center: bool = True) -> None:
        super().__init__()
        self.backbone, self.center = backbone, center
        self.register_buffer("mean", torch.zeros(backbone.dim))
        self.register_buffer("projection", torch.zeros(backbone.dim, setting.bits))

    def fit(self, train: Split, run: Run) -> None:
        """Draw the directions; the data gives only its mean."""
        x = run.features(self.backbone, train).pooled  # (N, D)
        if self.center:
            self.mean = x.mean(0)
        self.projection = torch.randn(self.projection.shape, generator=run.generator).to(x.device)

    def encode(self, batch: Batch) -> Codes:
        """sgn((f - mean) W)."""
        return projection.encode(self.backbone, self.mean, self.projection, batch)
