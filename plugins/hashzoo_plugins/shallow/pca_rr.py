"""PCA-RR: PCA and a random rotation, the baseline of Gong & Lazebnik (CVPR 2011) and, as Hashing-Baseline, of
Moummad, Zaher, Rauch & Joly (arXiv 2025).

    U (D, K) = the top K principal directions of the training features
    R (K, K) = a random rotation: Q of the QR decomposition of a Gaussian matrix
    code = sgn(R' U' (f - mean))

The rotation spreads the variance over all bits, so that, other than for ``pcah``, longer codes are not worse. ``itq``
starts from the same code and fits the rotation to the data.

Resolved: the rotation is drawn from the seed of the run. QR gives every rotation with the same probability up to the
signs of its columns; a sign turns a bit over for all images alike and changes no distance. More bits than features are
an error. The sigmoid of Hashing-Baseline with its threshold of 1/2 is the sign.

Public code: the scores of Hashing-Baseline are not of Hamming distances: each sigmoid of the query is compared with the
bits of the database, so the query is real. Its principal directions are those of a randomized decomposition without a
seed, and average precision is divided by the hits among the first R.

Cite: gong2011itq, moummad2025baseline
"""

from __future__ import annotations

import torch

from hashzoo import Backbone, Batch, Card, Codes, Method, Run, Setting, Split
from hashzoo_plugins.shallow import projection, span


class PCARR(Method):
    """PCA and a random rotation, the start of ITQ (Gong & Lazebnik, CVPR 2011)."""

    card = Card("shallow", "none", paper="Gong & Lazebnik, CVPR 2011; Moummad et al., arXiv 2025", year=2011)

    def __init__(self, setting: Setting, backbone: Backbone) -> None:
        super().__init__()
        projection.require_dimensions("pca-rr", setting, backbone)
        self.backbone, self.bits = backbone, setting.bits
        self.register_buffer("mean", torch.zeros(backbone.dim))
        self.register_buffer("projection", torch.zeros(backbone.dim, setting.bits))

    def fit(self, train: Split, run: Run) -> None:
        """Compute the mean and the principal directions, and rotate the directions at random."""
        x = run.features(self.backbone, train).pooled  # (N, D)
        self.mean = x.mean(0)
        rotation = torch.linalg.qr(torch.randn(self.bits, self.bits, generator=run.generator)).Q
        self.projection = span.principal(x - self.mean, self.bits) @ rotation.to(x)

    def encode(self, batch: Batch) -> Codes:
        """sgn((f - mean) U R)."""
        return projection.encode(self.backbone, self.mean, self.projection, batch)
