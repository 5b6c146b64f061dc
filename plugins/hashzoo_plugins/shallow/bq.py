"""Binary and Scalar Embedding Quantization for Significantly Faster & Cheaper Retrieval (Shakir, Aarsen & Lee,
Hugging Face 2024), its binary part.

The sign of each feature is a bit. Nothing is learned but the mean.

    mean (D,) of the training features; 0 with ``center = False``
    code_k = sgn(f_k - mean_k),  k = 1..K: the first K features

Resolved: K is the number of features in the source. Fewer bits take the first K features, which is what embeddings
with nested dimensions are made for (Kusupati et al., NeurIPS 2022); of another embedding they are an arbitrary part,
and ``pca-rr`` is the better choice. Embeddings of text have features of both signs, and the source does not center
them (``center = False``). Features of images after a ReLU are never negative: without centering all their bits are 1.

Measured: on digits.standard (324 scattering features) map@all is .404, .525 and .622 at 16, 32 and 64 bits, for
``pca-rr`` .487, .532 and .565, for ``itq`` .580, .618 and .637.

Public code: packing functions fill up the last byte with zeros without a word if K is not a multiple of 8; here K is
stored with the codes.

Cite: shakir2024binary
"""

from __future__ import annotations

from typing import Annotated

import torch

from hashzoo import Backbone, Batch, Card, Choice, Codes, Method, Run, Setting, Split, bits
from hashzoo_plugins.shallow import projection


class BQ(Method):
    """Signs of the features themselves, the first K of them (Shakir et al., Hugging Face 2024)."""

    card = Card("shallow", "none", paper="Shakir et al., Hugging Face 2024", year=2024)

    def __init__(
        self, setting: Setting, backbone: Backbone, *, center: Annotated[bool, Choice(True, False)] = True
    ) -> None:
        super().__init__()
        projection.require_dimensions("bq", setting, backbone)
        self.backbone, self.bits, self.center = backbone, setting.bits, center
        self.register_buffer("mean", torch.zeros(setting.bits))

    def fit(self, train: Split, run: Run) -> None:
        """Compute the mean of the first K training features."""
        if self.center:
            self.mean = run.features(self.backbone, train).pooled[:, : self.bits].mean(0)

    def encode(self, batch: Batch) -> Codes:
        """sgn(f - mean) of the first K features."""
        return {"code": bits(self.backbone(batch.images).pooled[:, : self.bits] - self.mean)}
