"""Fast supervised discrete hashing (Gui, Liu, Sun, Tao & Tan, TPAMI 2018).

SDH in the other direction: the codes are regressed on the labels instead of the labels on the codes, so that all bits
of all codes have a closed form and no bit-by-bit descent is needed.

    objective = |B - Y W|^2 + lambda |W|^2 + nu |B - phi(X) P|^2
                B in {-1, +1}^(N, K), labels Y (N, C) of 0 and 1,
                W (C, K), phi (N, 1 + m), P (1 + m, K)
    W = (Y'Y + lambda I)^-1 Y'B
    P = (phi'phi + rho I)^-1 phi'B
    B = sgn(Y W + nu phi(X) P)
    code = sgn(phi(x) P),  phi as in sdh

Resolved: features, anchors and weights as in sdh. With nu = 1e-5 all images with the same labels get one code, and
the code of a class is the majority vote of its random initial codes. The first step decides nearly everything, so the
class codes are random, not spread apart, and depend on the seed. The small term nu phi P breaks ties of the votes; if
it is 0 too, the bit is 1. In multi-label data Y is the multi-hot matrix, so the codes of labels are added.

Public code: an earlier method has the same acronym (Koutaki et al., arXiv 2016) and does not depend on initial codes.

Cite: gui2018fsdh
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import normalize

from hashzoo import Backbone, Batch, Card, Codes, Integer, Log, Method, Run, Setting, Split, bits, signs
from hashzoo_plugins.shallow import anchors, span
from hashzoo_plugins.shallow.ridge import factor, solve


def objective(b: Tensor, y: Tensor, w: Tensor, f: Tensor, weight: float, nu: float) -> Tensor:
    """|B - Y W|^2 + weight |W|^2 + nu |B - F|^2 of B and F (N, K), Y (N, C), W (C, K)."""
    return (b - y @ w).square().sum() + weight * w.square().sum() + nu * (b - f).square().sum()


def codes(y: Tensor, w: Tensor, f: Tensor, nu: float) -> Tensor:
    """B = sgn(Y W + nu F) (N, K), the codes that minimize the objective for fixed W and F."""
    return signs(y @ w + nu * f)


class FSDH(Method):
    """Binary codes regressed on the labels, all bits in closed form (Gui et al., TPAMI 2018)."""

    card = Card("shallow", "classes", paper="Gui et al., TPAMI 2018", year=2018)

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
    ) -> None:
        super().__init__()
        if anchors < 1 or min(width, weight, rho) <= 0:
            raise ValueError("fsdh needs anchors >= 1, width > 0, weight > 0 and rho > 0")
        if iterations < 1 or nu < 0:
            raise ValueError("fsdh needs iterations >= 1 and nu >= 0")
        self.backbone, self.bits, self.count, self.width = backbone, setting.bits, anchors, width
        self.weight, self.rho, self.nu, self.iterations = weight, rho, nu, iterations
        self.register_buffer("anchors", torch.zeros(anchors, backbone.dim))
        self.register_buffer("projection", torch.zeros(1 + anchors, setting.bits))

    def fit(self, train: Split, run: Run) -> None:
        """Alternate between codes, class codes and kernel regression, from random codes."""
        x = run.features(self.backbone, train).pooled  # (N, D)
        y, _ = span.coordinates(train.labels.to(x))  # (N, C), or (N, N) of very many classes
        drawn = anchors.draw(normalize(x), self.count, run.generator)
        phi = anchors.lifted(x, drawn, self.width)  # (N, 1 + m)
        lower, of_labels = factor(phi, self.rho), factor(y, self.weight)
        b = signs(torch.randn(len(x), self.bits, generator=run.generator)).to(x)  # (N, K)
        for _ in range(self.iterations):
            w, f = solve(of_labels, y, b), phi @ solve(lower, phi, b)
            b = codes(y, w, f, self.nu)
            run.log({"objective": objective(b, y, w, f, self.weight, self.nu) / len(x)})
        self.anchors = anchors.padded(drawn, self.count)
        self.projection = anchors.padded(solve(lower, phi, b), 1 + self.count)

    def encode(self, batch: Batch) -> Codes:
        """sgn(phi(x) P)."""
        phi = anchors.lifted(self.backbone(batch.images).pooled, self.anchors, self.width)
        return {"code": bits(phi @ self.projection)}
