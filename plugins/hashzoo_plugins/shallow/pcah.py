"""PCA hashing, the baseline of Wang, Kumar & Chang (CVPR 2010) and Gong & Lazebnik (CVPR 2011)."""

from __future__ import annotations

import torch

from hashzoo.method import Backbone, Card, Method
from hashzoo.run import Run
from hashzoo.types import Batch, Codes, Setting, Split
from hashzoo_plugins.shallow import projection


class PCAH(Method):
    """Signs of the principal components (as in Gong & Lazebnik, CVPR 2011).

    The mean is that of the training pictures, for queries too. Needs no more bits than features.
    """

    card = Card("shallow", "none", paper="Wang et al., CVPR 2010", year=2010)

    def __init__(self, setting: Setting, backbone: Backbone) -> None:
        super().__init__()
        projection.require_dimensions("pcah", setting, backbone)
        self.backbone, self.bits = backbone, setting.bits
        self.register_buffer("mean", torch.zeros(backbone.dim))
        self.register_buffer("projection", torch.zeros(backbone.dim, setting.bits))

    def fit(self, train: Split, run: Run) -> None:
        """Mean and principal directions of the training features."""
        x = run.features(self.backbone, train).pooled  # (N, D)
        self.mean = x.mean(0)
        self.projection = projection.principal(x - self.mean, self.bits)

    def encode(self, batch: Batch) -> Codes:
        """sgn((f - mean) U)."""
        return projection.encode(self.backbone, self.mean, self.projection, batch)
