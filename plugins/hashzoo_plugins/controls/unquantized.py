"""What the features themselves score."""

from __future__ import annotations

import torch

from hashzoo import Backbone, Batch, Card, Codes, Cosine, Index, Method, Run, Scan, Setting, Split


class Unquantized(Method):
    """Cosine of the centerd features, no code: what quantizing the same features costs is measured from here."""

    card = Card("shallow", "none", beyond="real-valued features, 32 bits a feature")

    def __init__(self, setting: Setting, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.register_buffer("mean", torch.zeros(backbone.dim))

    def fit(self, train: Split, run: Run) -> None:
        """Only the mean is learned, so that the comparison with centerd hashes is fair."""
        self.mean = run.features(self.backbone, train).pooled.mean(0)

    def encode(self, batch: Batch) -> Codes:
        """Centerd features as side information."""
        return {"features": self.backbone(batch.images).pooled - self.mean}

    def index(self) -> Index:
        """An exact scan by cosine."""
        return Scan(Cosine("features"))
