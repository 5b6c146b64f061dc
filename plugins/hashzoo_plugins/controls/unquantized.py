"""The score of the features without quantization."""

from __future__ import annotations

import torch

from hashzoo import Backbone, Batch, Card, Codes, Cosine, Index, Method, Run, Scan, Setting, Split


class Unquantized(Method):
    """Cosine similarity of centered features: the reference for what quantizing the same features costs."""

    card = Card("shallow", "none", beyond="real-valued features, 32 bits a feature")

    def __init__(self, setting: Setting, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.register_buffer("mean", torch.zeros(backbone.dim))

    def fit(self, train: Split, run: Run) -> None:
        """Learn the mean only, since hashes of the same features are centered too."""
        self.mean = run.features(self.backbone, train).pooled.mean(0)

    def encode(self, batch: Batch) -> Codes:
        """Centered features (B, D) as side information."""
        return {"features": self.backbone(batch.images).pooled - self.mean}

    def index(self) -> Index:
        """An exact scan by cosine distance."""
        return Scan(Cosine("features"))
