"""Iterative Quantization: A Procrustean Approach to Learning Binary Codes (Gong & Lazebnik, CVPR 2011; with Gordo &
Perronnin, TPAMI 2013).

ITQ applies PCA, then rotates the data as close as possible to the corners of the binary hypercube.

    V = (X - mean) U  (N, K), U the top K principal directions
    minimize |B - V R|^2  over B in {-1, 1}^(N, K) and R' R = I, in turn
        B = sgn(V R);  B' V = S Sigma T' (SVD),  R = T S'
    code = sgn((f - mean) U R)

Resolved: R is initialized with a random rotation, and ``iterations`` is 50, as in the authors' code. The error never
increases.

Public code: the authors' code returns codes computed before the last update of the rotation; here images are encoded
with the final rotation. One toolkit confuses ``torch.svd``, which returns T, with ``torch.linalg.svd``, which returns
T'; as a result, its error fluctuates, and its ITQ is no better than PCAH. Centering the features is essential.

Cite: gong2011itq, gong2013itq
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from hashzoo import Backbone, Batch, Card, Codes, Integer, Method, Run, Setting, Split, signs
from hashzoo_plugins.shallow import projection, span


def rotations(v: Tensor, iterations: int, generator: torch.Generator) -> list[tuple[Tensor, float]]:
    """The rotations (K, K) of all ITQ iterations for ``v`` (N, K), each with its error |sgn(v R) - v R|^2 / N.

    The first is random, the last is the solution; the errors never rise.
    """
    r = torch.linalg.qr(torch.randn(v.shape[1], v.shape[1], generator=generator).to(v)).Q
    path = []
    for _ in range(iterations):
        b = signs(v @ r)  # fix R, update B
        path.append((r, float((b - v @ r).square().sum(1).mean())))
        s, _, th = torch.linalg.svd(b.T @ v)  # fix B, update R: Procrustes; B'V = S Sigma T', R = T S'
        r = (s @ th).T
    path.append((r, float((signs(v @ r) - v @ r).square().sum(1).mean())))
    return path


class ITQ(Method):
    """PCA, then the rotation with the least quantization error (Gong & Lazebnik, CVPR 2011)."""

    card = Card("shallow", "none", paper="Gong & Lazebnik, CVPR 2011", year=2011)

    def __init__(
        self, setting: Setting, backbone: Backbone, *, iterations: Annotated[int, Integer(5, 200, log=True)] = 50
    ) -> None:
        super().__init__()
        projection.require_dimensions("itq", setting, backbone)
        if iterations < 1:
            raise ValueError(f"itq needs iterations >= 1, not {iterations}")
        self.backbone, self.bits, self.iterations = backbone, setting.bits, iterations
        self.register_buffer("mean", torch.zeros(backbone.dim))
        self.register_buffer("projection", torch.zeros(backbone.dim, setting.bits))

    def fit(self, train: Split, run: Run) -> None:
        """Compute the PCA of the training features, then alternate between codes and rotation."""
        x = run.features(self.backbone, train).pooled  # (N, D)
        self.mean = x.mean(0)
        pca = span.principal(x - self.mean, self.bits)  # (D, K)
        rotation, error = rotations((x - self.mean) @ pca, self.iterations, run.generator)[-1]
        run.log({"quantization": error})
        self.projection = pca @ rotation

    def encode(self, batch: Batch) -> Codes:
        """sgn((f - mean) U R)."""
        return projection.encode(self.backbone, self.mean, self.projection, batch)
