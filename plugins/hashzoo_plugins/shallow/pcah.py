"""PCAH: PCA hashing, the baseline of Wang, Kumar & Chang (CVPR 2010) and of Gong & Lazebnik (CVPR 2011).

The principal components of the features, thresholded at the mean.

    U (D, K) = the top K eigenvectors of the covariance of the training features
    code = sgn(U' (f - mean))

Resolved: the mean is that of the training images, also for queries. The sign of an eigenvector is arbitrary; its
largest entry is made positive. More bits than features are an error.

All bits have the same weight, however small the variance of their component, so longer codes are worse. Measured: on
the pixels of ``digits.standard`` map@all is 0.363, 0.319 and 0.275 at 16, 32 and 64 bits. ``itq`` rotates the
components instead.

Public code: a demo subtracts the mean outside the function, so that queries are centered by their own mean.

Cite: wang2010ssh
"""

from __future__ import annotations

import torch

from hashzoo import Backbone, Batch, Card, Codes, Method, Run, Setting, Split
from hashzoo_plugins.shallow import projection, span


class PCAH(Method):
    """Signs of the principal components (as in Wang et al., CVPR 2010)."""

    card = Card("shallow", "none", paper="Wang et al., CVPR 2010", year=2010)

    def __init__(self, setting: Setting, backbone: Backbone) -> None:
        super().__init__()
        projection.require_dimensions("pcah", setting, backbone)
        self.backbone, self.bits = backbone, setting.bits
        self.register_buffer("mean", torch.zeros(backbone.dim))
        self.register_buffer("projection", torch.zeros(backbone.dim, setting.bits))

    def fit(self, train: Split, run: Run) -> None:
        """Compute the mean and the principal directions of the training features."""
        x = run.features(self.backbone, train).pooled  # (N, D)
        self.mean = x.mean(0)
        self.projection = span.principal(x - self.mean, self.bits)

    def encode(self, batch: Batch) -> Codes:
        """sgn((f - mean) U)."""
        return projection.encode(self.backbone, self.mean, self.projection, batch)
