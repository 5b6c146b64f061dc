"""SSH: Semi-Supervised Hashing for Scalable Image Retrieval (Wang, Kumar & Chang, CVPR 2010; TPAMI 2012), orthogonal.

Directions along which labeled pairs agree with their labels and all images vary; the second term regularizes, since
few labels alone overfit.

    X (n, D) all training images, X_l (l, D) labeled ones,
             centered by the mean of X
    S (l, l) 1 for a pair that shares a label, -1 for one that does not,
             0 on the diagonal
    M = X_l' S X_l / l^2 + eta X' X / n  (D, D)
    J(W) = 1/2 tr W' M W,  W' W = I
    W = the top K eigenvectors of M;  code = sgn(W' (f - mean))

Resolved: both terms are means, over pairs and over images; as sums, their relative weight would depend on n and l.
``eta`` = 1 gives them equal weight; the paper's value is unverified. The zero diagonal leaves -X_l' X_l in the first
term: divided by l only, as in ``s3plh``, it would cancel the second term exactly if every image is labeled and eta is
1. ``labelled`` images are drawn by seed, the labels of the other images are not used, and S is the largest matrix of
pairs. The paper's variant that is not orthogonal is not included. More bits than features are an error.

Measured: on the pixels of ``digits.standard``, with all images labeled, map@all is 0.431, 0.368 and 0.317 at 8, 16
and 32 bits (``pcah`` 0.407, 0.363 and 0.319; ``lsh`` 0.297, 0.376 and 0.502). Long codes have the same weakness as in
``pcah``, by design: orthogonal directions are thresholded without a rotation, the data hardly vary along the last
ones, and all bits have the same weight. With the rotation of ITQ after the same directions, 0.372 and 0.309 become
0.608 and 0.644 on a validation part, at 16 and 32 bits (``itq`` 0.620 and 0.640); on scattering features 0.391 and
0.336 become 0.582 and 0.618 (``itq`` 0.582 and 0.610). The authors address this in ``s3plh``.

Cite: wang2010ssh, wang2012ssh
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from hashzoo import Backbone, Batch, Card, Codes, Log, Method, Run, Setting, Split
from hashzoo_plugins.shallow import projection, similarity, span
from hashzoo_plugins.shallow.labelled import sample


def adjusted(x: Tensor, some: Tensor, s: Tensor, eta: float) -> Tensor:
    """M (D, D) for all images (n, D), labeled images (l, D) and their similarities (l, l)."""
    return some.T @ (s @ some) / len(some) ** 2 + eta * (x.T @ x) / len(x)


class SSH(Method):
    """Orthogonal directions that agree with labeled pairs and vary over all images (Wang et al., CVPR 2010)."""

    card = Card("shallow", "pairs", paper="Wang et al., CVPR 2010", year=2010)

    def __init__(
        self, setting: Setting, backbone: Backbone, *, labelled: int = 1000, eta: Annotated[float, Log(0.01, 100)] = 1.0
    ) -> None:
        super().__init__()
        projection.require_dimensions("ssh", setting, backbone)
        if labelled < 2:
            raise ValueError(f"ssh learns from pairs: labelled must be at least 2, not {labelled}")
        self.backbone, self.bits, self.labelled, self.eta = backbone, setting.bits, labelled, eta
        self.register_buffer("mean", torch.zeros(backbone.dim))
        self.register_buffer("projection", torch.zeros(backbone.dim, setting.bits))

    def fit(self, train: Split, run: Run) -> None:
        """Compute the top eigenvectors of the adjusted covariance."""
        f = run.features(self.backbone, train).pooled  # (n, D)
        if len(f) < self.bits:
            raise ValueError(f"ssh needs at least as many training images as bits: {self.bits} bits, {len(f)} images")
        self.mean = f.mean(0)
        x = (f - self.mean).double()
        rows = sample(len(x), self.labelled, run.generator)  # (l,)
        y = train.labels[rows].to(x)
        s = similarity.signed(y, y).fill_diagonal_(0)  # (l, l)
        x, back = span.coordinates(x)
        self.projection = back(projection.leading(adjusted(x, x[rows], s, self.eta), self.bits)).to(f)

    def encode(self, batch: Batch) -> Codes:
        """sgn(W' (f - mean))."""
        return projection.encode(self.backbone, self.mean, self.projection, batch)
