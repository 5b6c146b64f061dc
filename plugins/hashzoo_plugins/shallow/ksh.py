"""Supervised hashing with kernels (Liu, Wang, Ji, Jiang & Chang, CVPR 2012).

A hash function of kernel values to m anchors, learned bit by bit from a sample of l labeled images: each bit is fitted
to the residual that the previous bits leave of the similarity matrix.

    kappa(x, y) = exp(-|x - y|^2 / (2 sigma)),
                  sigma = mean squared distance of training images to anchors
    objective   = | S - H H' / K |^2,
                  S_ij = +1 for similar, -1 for dissimilar pairs  (l, l)
    R_0 = K S;  bit k maximizes h' R h, h = sgn(Kbar a);  R <- R - h h'
    code_k = sgn( sum_j a_jk (kappa(x_j, x) - mu_j) ),
             mu_j the mean kernel value of the training images

A bit starts from the top generalized eigenvector of (Kbar' R Kbar, Kbar' Kbar), scaled to a' Kbar' Kbar a = l, and
descends on -phi' R phi with phi = 2 / (1 + exp(-Kbar a)) - 1; the one with the larger h' R h is kept.

Resolved: sigma is the mean squared distance and is not squared again. A ridge of 1e-6 of the mean diagonal keeps
Kbar' Kbar invertible if there are as many anchors as images. L-BFGS minimizes the smooth objective instead of the
paper's Nesterov method: the objective and the bound on iterations are the same, and there is no step size to choose.
With fewer training images than anchors, or than the sample, all images are used. In multi-label data a shared label
makes a pair similar. A bit is 1 for a value >= 0; the authors' code has > 0.

Public code: the authors' code ends the descent of a bit at the first step that gains less than l / 100 (unverified);
this file does the same.

Cite: liu2012ksh
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashzoo import Backbone, Batch, Card, Codes, Integer, Method, Run, Setting, Split, bits, signs
from hashzoo_plugins.shallow import anchors, labelled, similarity

GAIN = 0.01  # the descent ends when a step lowers the smooth objective by less than this times l
RIDGE = 1e-6  # share of the mean diagonal of Kbar' Kbar that is added to it
FLAT = 1e-12  # the smallest ridge, for constant features


def spectral(kernel: Tensor, r: Tensor) -> Tensor:
    """(m,) the a that maximizes a' Kbar' R Kbar a with a' Kbar' Kbar a = l, for Kbar (l, m) and R (l, l)."""
    gram = kernel.T @ kernel  # (m, m)
    eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    ridge = (RIDGE * gram.diagonal().mean()).clamp(min=FLAT)
    lower = torch.linalg.cholesky(gram + ridge * eye)  # regularized Gram matrix G = L L', a = L'^-1 u
    half = torch.linalg.solve_triangular(lower, kernel.T, upper=False)  # (m, l)
    top = torch.linalg.eigh(half @ r @ half.T).eigenvectors[:, -1:]  # (m, 1)
    a: Tensor = torch.linalg.solve_triangular(lower.T, top, upper=True)[:, 0]
    # a' G a = u' u = 1; if it is far less without the ridge, the kernel has no such direction
    return a * (len(kernel) / (a @ gram @ a).clamp(min=0.5)).sqrt()


def smoothed(a: Tensor, kernel: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """-phi' R phi and its gradient (m,), where phi = 2 / (1 + exp(-Kbar a)) - 1 replaces the sign."""
    phi = torch.tanh(kernel @ a / 2)  # (l,)
    back = r @ phi
    return -(phi @ back), -(kernel.T @ (back * (1 - phi * phi)))


def refined(a: Tensor, kernel: Tensor, r: Tensor, iterations: int) -> Tensor:
    """(m,) the minimizer of the smooth objective that ``iterations`` steps or fewer reach from ``a``."""
    import scipy.optimize

    bound = max(1.0, float(r.abs().sum()))  # an upper bound of the objective: divided by it, the tolerance is absolute

    def objective(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        value, slope = smoothed(torch.from_numpy(values).to(kernel), kernel, r)
        return float(value) / bound, slope.cpu().numpy() / bound

    found = scipy.optimize.minimize(
        objective,
        a.cpu().numpy(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": iterations, "ftol": GAIN * len(kernel) / bound, "gtol": 0.0},
    )
    return torch.from_numpy(found.x).to(kernel)


def greedy(kernel: Tensor, similar: Tensor, count: int, iterations: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield ``count`` bits one by one: coefficients a (m,), bits h (l,) and the residual R (l, l) after them.

    ``kernel`` is Kbar (l, m) and ``similar`` is S (l, l), both in float64.
    """
    r = count * similar
    for _ in range(count):
        start = spectral(kernel, r)
        ways = [(a, signs(kernel @ a)) for a in (start, refined(start, kernel, r, iterations))]
        a, h = max(ways, key=lambda way: float(way[1] @ r @ way[1]))
        r = r - torch.outer(h, h)
        yield a, h, r


class KSH(Method):
    """Kernel hash functions fitted bit by bit to the similarity of pairs (Liu et al., CVPR 2012)."""

    card = Card("shallow", "pairs", paper="Liu et al., CVPR 2012", year=2012)

    def __init__(
        self,
        setting: Setting,
        backbone: Backbone,
        *,
        anchors: Annotated[int, Integer(50, 1000, log=True)] = 300,
        sample: int = 2000,
        iterations: Annotated[int, Integer(100, 1000, log=True)] = 500,
    ) -> None:
        super().__init__()
        if anchors < 1 or sample < 2 or iterations < 1:
            raise ValueError(
                f"ksh needs anchors >= 1, sample >= 2 and iterations >= 1, "
                f"not anchors={anchors}, sample={sample}, iterations={iterations}"
            )
        self.backbone, self.bits, self.count = backbone, setting.bits, anchors
        self.sample, self.iterations = sample, iterations
        self.register_buffer("anchors", torch.zeros(anchors, backbone.dim))
        self.register_buffer("scale", torch.ones(()))  # 2 sigma
        self.register_buffer("mean", torch.zeros(anchors))
        self.register_buffer("coefficients", torch.zeros(anchors, setting.bits))

    def fit(self, train: Split, run: Run) -> None:
        """Compute anchors, kernel and its mean from all training images, and the bits from a sample of them."""
        x = run.features(self.backbone, train).pooled  # (N, D)
        drawn = anchors.draw(x, self.count, run.generator)
        self.scale = 2 * anchors.squared_distances(x, drawn).double().mean().to(x).clamp(min=1e-12)
        kernel = anchors.rbf(x, drawn, self.scale)  # (N, m)
        mean = kernel.double().mean(0)
        rows = labelled.sample(len(x), self.sample, run.generator)
        labels = train.labels[rows].to(x.device).double()
        found = []
        centered = kernel[rows.to(x.device)].double() - mean  # (l, m)
        for a, _, r in greedy(centered, similarity.signed(labels, labels), self.bits, self.iterations):
            found.append(a)
            run.log({"residual": r.square().mean().sqrt() / self.bits})
        self.anchors, self.mean = anchors.padded(drawn, self.count), anchors.padded(mean.to(x), self.count)
        self.coefficients = anchors.padded(torch.stack(found, 1).to(x), self.count)

    def encode(self, batch: Batch) -> Codes:
        """sgn((kappa - mu) A)."""
        kernel = anchors.rbf(self.backbone(batch.images).pooled, self.anchors, self.scale)
        return {"code": bits((kernel - self.mean) @ self.coefficients)}
