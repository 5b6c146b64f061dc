"""The features themselves in a float type: what is lost without a code, and by half of the bytes."""

from __future__ import annotations

import torch

from hashzoo import Backbone, Batch, Card, Codes, Index, Method, Run, Scan, Setting, Split
from hashzoo_plugins.shallow import estimates
from hashzoo_plugins.shallow.estimates import Metric


class Float32(Method):
    """Features in 32 bits, compared by the metric of the data: the reference for codes of vectors."""

    card = Card("shallow", "none", beyond="32 bits a feature, whatever the number of bits")
    dtype = torch.float32

    def __init__(self, setting: Setting, backbone: Backbone, *, metric: Metric = "data") -> None:
        super().__init__()
        self.backbone, self.metric = backbone, estimates.metric_of(setting, metric)

    def fit(self, train: Split, run: Run) -> None:
        """Nothing is learned."""

    def encode(self, batch: Batch) -> Codes:
        """Features (B, D) as they are stored, and in float32, with which an image is a query."""
        x = estimates.compared(self.backbone(batch.images).pooled, self.metric)
        return {"features": x.to(self.dtype), "query": x}

    def index(self) -> Index:
        """An exact scan by the distance of the query to the stored features."""
        return Scan(estimates.Decoded(self.metric, ("features",), lambda stored: stored["features"]))


class Float16(Float32):
    """Features in 16 bits, compared by the metric of the data: the reference for half of the bytes of float32."""

    card = Card("shallow", "none", beyond="16 bits a feature, whatever the number of bits")
    dtype = torch.float16
