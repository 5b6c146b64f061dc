"""S3PLH: Sequential Projection Learning for Hashing with Compact Codes (Wang, Kumar & Chang, ICML 2010).

Directions one by one, as in ``ssh``; each bit focuses on the pairs that the previous bit got wrong.

    X (n, D), X_l (l, D) centered
    S (l, l): 1 for a pair that shares a label, -1 for one that does not,
              0 on the diagonal
    for each bit:  M = X' X / n + eta X_l' S X_l / l
                   w = the top eigenvector of M
                   P = X_l w w' X_l',  S <- S - P where P S < 0
                   X <- X (I - w w')
    code = sgn(W' (f - mean))

Resolved: ``eta`` multiplies the supervised part, as in the authors' code. X_l is not deflated, so a direction can
recur while its pairs are wrong, and more bits than features are possible. X is used only through its covariance, which
is deflated instead. ``labelled`` images are drawn by seed; S is l x l.

P is quadratic in the features and S is not, so the method as published depends on their scale. With small features S
hardly changes and the same direction recurs: on a validation part of ``digits.standard``, pixels multiplied by 0.03
give map@all 0.16 at any code length; multiplied by 1 or more, 0.64 to 0.67 at 32 bits. Features are therefore divided
by a single number, their root mean square.

Measured: on the pixels of ``digits.standard`` the method equals ``itq``, which uses no labels, but does not beat it:
0.583, 0.646 and 0.678 at 16, 32 and 64 bits, compared with 0.613, 0.648 and 0.675. On scattering features it is worse,
0.496 and 0.413 at 16 and 32 bits of a validation part, compared with 0.582 and 0.610: directions recur (cosine 0.9997
between two of 32), and none is rotated. With the rotation of ITQ, the same directions give 0.588 and 0.601.

Public code: the authors' code computes the mean without subtracting it and thresholds at 0: center the features first.
An unsupervised sequel, with pseudo-labels from images near and far from the threshold, is a different method.

Cite: wang2010s3plh
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from hashzoo import Backbone, Batch, Card, Codes, Log, Method, Run, Setting, Split
from hashzoo_plugins.shallow import projection, similarity, span
from hashzoo_plugins.shallow.labelled import sample

TINY = 1e-12  # the smallest scale, for constant features


def sequential(covariance: Tensor, some: Tensor, s: Tensor, eta: float, count: int) -> Tensor:
    """Directions W (D, count), one by one, for X' X / n (D, D), labeled images (l, D) and their pairs (l, l)."""
    chosen = []
    for _ in range(count):
        w = projection.leading(covariance + eta * some.T @ (s @ some) / len(some), 1)  # (D, 1)
        p = (some @ w) @ (some @ w).T  # (l, l) the agreement of this bit on each pair
        s = torch.where(p * s < 0, s - p, s)
        residual = torch.eye(len(w)).to(w) - w @ w.T
        covariance = residual @ covariance @ residual  # that of X (I - w w')
        chosen.append(w)
    return torch.cat(chosen, 1)


class S3PLH(Method):
    """Directions one by one, each for the pairs that the previous one got wrong (Wang et al., ICML 2010)."""

    card = Card("shallow", "pairs", paper="Wang et al., ICML 2010", year=2010)

    def __init__(
        self, setting: Setting, backbone: Backbone, *, labelled: int = 1000, eta: Annotated[float, Log(0.01, 10)] = 0.2
    ) -> None:
        super().__init__()
        if labelled < 2:
            raise ValueError(f"s3plh learns from pairs: labelled must be at least 2, not {labelled}")
        self.backbone, self.bits, self.labelled, self.eta = backbone, setting.bits, labelled, eta
        self.register_buffer("mean", torch.zeros(backbone.dim))
        self.register_buffer("projection", torch.zeros(backbone.dim, setting.bits))

    def fit(self, train: Split, run: Run) -> None:
        """Compute one direction per bit."""
        f = run.features(self.backbone, train).pooled  # (n, D)
        self.mean = f.mean(0)
        x = (f - self.mean).double()
        x = x / x.square().mean().sqrt().clamp(min=TINY)  # a single scale, so directions do not change
        rows = sample(len(x), self.labelled, run.generator)  # (l,)
        y = train.labels[rows].to(x)
        s = similarity.signed(y, y).fill_diagonal_(0)  # (l, l)
        x, back = span.coordinates(x)
        self.projection = back(sequential(x.T @ x / len(x), x[rows], s, self.eta, self.bits)).to(f)

    def encode(self, batch: Batch) -> Codes:
        """sgn(W' (f - mean))."""
        return projection.encode(self.backbone, self.mean, self.projection, batch)
