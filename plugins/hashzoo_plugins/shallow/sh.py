"""Spectral Hashing (Weiss, Torralba & Fergus, NIPS 2008).

Balanced and uncorrelated bits that agree for similar images are eigenvectors of a graph Laplacian. For data that fill a
box uniformly they have a closed form: waves along the sides. The box is that of the principal components.

    v = U' (f - mean)  (n,), U the top n = min(K, D) principal directions
    side j runs over [a_j, a_j + R_j], the training range
    omega = pi t / R_j,  t = 1 .. ceil((K + 1) R_j / max R) - 1
    the K waves (j, t) of the smallest omega, which have the smallest
        eigenvalues 1 - exp(-epsilon^2 omega^2 / 2)
    code_k = sgn(sin(omega_k (v_j - a_j) + pi / 2))

Resolved: the constant wave is omitted. The paper's product over sides has only one factor other than 1, since waves
along more than one side are not candidates. Equal eigenvalues are taken in the order of components. The ranges are
those of the training images, also for queries; outside the range the wave continues. n is also at most the number of
training images.

The first wave of a component thresholds it at the middle of its range, not at the mean; further waves cut it into
bands. Longer codes are worse. Measured: on the pixels of ``digits.standard`` map@all is 0.420, 0.429, 0.402 and 0.385
at 8, 16, 32 and 64 bits (``lsh`` 0.297, 0.376, 0.502 and 0.569). The cause is the same as for ``pcah``: the last
components vary little, and all bits have the same weight. Further waves reduce the effect: 32 bits consist of 22 first
waves and 10 further ones; 32 first waves give 0.320.

Public code: query ranges computed from the queries; an order of equal eigenvalues that differs between runs.

Cite: weiss2008sh
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hashzoo import Backbone, Batch, Card, Codes, Method, Run, Setting, Split, bits
from hashzoo_plugins.shallow.span import principal


def waves(ranges: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The sides (count,) and the frequencies (count,) of the smoothest waves in a box with sides of length (n,).

    >>> sides, omega = waves(torch.tensor([4.0, 2.0]), 3)
    >>> sides.tolist(), (omega * 4 / math.pi).tolist()
    ([0, 0, 1], [1.0, 2.0, 2.0])
    """
    most = torch.ceil((count + 1) * ranges / ranges.max())  # (n,) m_j
    t = torch.arange(1, count + 1, device=ranges.device)
    side, step = (t < most[:, None]).nonzero(as_tuple=True)  # candidates by side, then by frequency
    omega = math.pi * t[step].to(ranges) / ranges[side]
    smoothest = omega.square().argsort(stable=True)[:count]
    return side[smoothest], omega[smoothest]


class SH(Method):
    """The smoothest waves along principal components, as if data filled a box (Weiss et al., NIPS 2008)."""

    card = Card("shallow", "none", paper="Weiss et al., NIPS 2008", year=2008)

    def __init__(self, setting: Setting, backbone: Backbone) -> None:
        super().__init__()
        self.backbone, self.bits = backbone, setting.bits
        self.register_buffer("mean", torch.zeros(backbone.dim))
        self.register_buffer("projection", torch.zeros(backbone.dim, setting.bits))  # the component of each bit
        self.register_buffer("start", torch.zeros(setting.bits))  # a
        self.register_buffer("omega", torch.zeros(setting.bits))

    def fit(self, train: Split, run: Run) -> None:
        """Compute principal components, their ranges, and the K smoothest waves along them."""
        x = run.features(self.backbone, train).pooled  # (N, D)
        self.mean = x.mean(0)
        pca = principal(x - self.mean, min(self.bits, *x.shape))  # (D, n)
        v = (x - self.mean) @ pca  # (N, n)
        tiny = torch.finfo(torch.float64).eps  # as in the authors' code: a constant component gets no wave
        low = v.amin(0).double() - tiny
        side, omega = waves(v.amax(0).double() + tiny - low, self.bits)
        self.projection, self.start, self.omega = pca[:, side], low[side].to(x), omega.to(x)

    def encode(self, batch: Batch) -> Codes:
        """sgn(sin(omega (v - a) + pi / 2))."""
        v = (self.backbone(batch.images).pooled - self.mean) @ self.projection  # (B, K)
        return {"code": bits(torch.sin(self.omega * (v - self.start) + math.pi / 2))}
