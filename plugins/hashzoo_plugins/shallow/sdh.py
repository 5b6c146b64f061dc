r"""Supervised discrete hashing (Shen, Shen, Liu & Shen, CVPR 2015).

Codes from which the labels can be regressed. They stay binary during the optimization: bits are solved for one at a
time, in closed form. A kernel regression then learns to predict the codes.

    objective = |Y - B W|^2 + lambda |W|^2 + nu |B - F|^2,  F = phi(X) P
                B in {-1, +1}^(N, K), labels Y (N, C) of 0 and 1,
                W (K, C), phi (N, 1 + m), P (1 + m, K)
    W   = (B'B + lambda I)^-1 B'Y
    P   = (phi'phi + rho I)^-1 phi'B
    b_k = sgn( q_k - B_\k W_\k w_k' ),  Q = Y W' + nu F,
          the other bits fixed; at most 10 sweeps over the bits
    code = sgn(phi(x) P),
           phi(x) = (1, exp(-|x - a_j|^2 / (2 sigma^2)) for anchors a_j),
           x at unit length

Resolved: features are scaled to unit length and not centered, since the width sigma = 0.4 assumes unit norm; the
factor 2 sigma^2 and the random initial codes are choices of this file (unverified against the paper). A bit whose
argument is 0 keeps its value. With fewer training images than anchors all images are anchors. In multi-label data Y is
the multi-hot matrix. The hinge-loss variant is not included.

Public code: another sdh (Liong et al. 2015, supervised deep hashing) has the same name.

Cite: shen2015sdh
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import normalize

from hashzoo import Backbone, Batch, Card, Codes, Integer, Log, Method, Run, Setting, Split, bits, signs
from hashzoo_plugins.shallow import anchors
from hashzoo_plugins.shallow.discrete import descent
from hashzoo_plugins.shallow.ridge import factor, ridge, solve


def objective(y: Tensor, b: Tensor, w: Tensor, f: Tensor, weight: float, nu: float) -> Tensor:
    """|Y - B W|^2 + weight |W|^2 + nu |B - F|^2 for Y (N, C), B and F (N, K), W (K, C)."""
    return (y - b @ w).square().sum() + weight * w.square().sum() + nu * (b - f).square().sum()


class SDH(Method):
    """Binary codes that predict the labels linearly, learned by a kernel regression (Shen et al., CVPR 2015)."""

    card = Card("shallow", "classes", paper="Shen et al., CVPR 2015", year=2015)

    def __init__(
        self,
        setting: Setting,
        backbone: Backbone,
        *,
        anchors: Annotated[int, Integer(50, 2000, log=True)] = 1000,
        width: Annotated[float, Log(0.05, 4)] = 0.4,
        weight: float = 1.0,
        rho: float = 1e-2,
        nu: Annotated[float, Log(1e-7, 0.1)] = 1e-5,
        iterations: int = 5,
        sweeps: int = 10,
    ) -> None:
        super().__init__()
        if anchors < 1 or min(width, weight, rho) <= 0:
            raise ValueError("sdh needs anchors >= 1, width > 0, weight > 0 and rho > 0")
        if iterations < 1 or sweeps < 1 or nu < 0:
            raise ValueError("sdh needs iterations >= 1, sweeps >= 1 and nu >= 0")
        self.backbone, self.bits, self.count, self.width = backbone, setting.bits, anchors, width
        self.weight, self.rho, self.nu, self.iterations, self.sweeps = weight, rho, nu, iterations, sweeps
        self.register_buffer("anchors", torch.zeros(anchors, backbone.dim))
        self.register_buffer("projection", torch.zeros(1 + anchors, setting.bits))

    def fit(self, train: Split, run: Run) -> None:
        """Alternate between codes, classifier and kernel regression, from random codes."""
        x = run.features(self.backbone, train).pooled  # (N, D)
        y = train.labels.to(x)  # (N, C)
        drawn = anchors.draw(normalize(x), self.count, run.generator)
        phi = anchors.lifted(x, drawn, self.width)  # (N, 1 + m)
        lower = factor(phi, self.rho)
        b = signs(torch.randn(len(x), self.bits, generator=run.generator)).to(x)  # (N, K)
        w, p = ridge(b, y, self.weight), solve(lower, phi, b)
        for _ in range(self.iterations):
            f = phi @ p
            b = descent(b, y @ w.T + self.nu * f, w, self.sweeps)
            run.log({"objective": objective(y, b, w, f, self.weight, self.nu) / len(x)})
            w, p = ridge(b, y, self.weight), solve(lower, phi, b)
        self.anchors = anchors.padded(drawn, self.count)
        self.projection = anchors.padded(p, 1 + self.count)

    def encode(self, batch: Batch) -> Codes:
        """sgn(phi(x) P)."""
        phi = anchors.lifted(self.backbone(batch.images).pooled, self.anchors, self.width)
        return {"code": bits(phi @ self.projection)}
