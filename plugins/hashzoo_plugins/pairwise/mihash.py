"""MIHash: Online Hashing with Mutual Information (Cakir, He, Bargal & Sclaroff, ICCV 2017; TPAMI 2019).

For every image of a batch, the distances to its neighbors and to all other images have two distributions. The loss
maximizes the mutual information between distance and neighborhood, with differentiable soft histograms.

    z = W f + v  (B, K),  phi = 2 sigmoid(a z) - 1
    D_ij = (K - <phi_i, phi_j>) / 2,  j != i
    p(D) by n + 1 triangles of half width K / n around 0, K / n, .., K
    loss = - mean over i of
           H(p(D)) - p_+ H(p(D | neighbor)) - p_- H(p(D | other)),  log base 2
    code = sgn(z)

Resolved: the image itself is excluded. ``slope`` is a; the number of bins is K / 2. Without neighbors, or without
other images, the information is 0.

Public code: a toolkit returns the information itself as the loss, and so minimizes it; it omits the last bin, which
holds opposite codes; and it counts an image as dissimilar to itself. One computes average precision without rank 1.

Cite: cakir2017mihash, cakir2019mihash
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from hashzoo import Batch, Card, Log, Loss, Output, Setting, deep
from hashzoo_plugins.pairwise import pairs


def histogram(phi: Tensor, bins: int) -> Tensor:
    """(B, B, bins + 1) weights of each pair in the bins, with a sum of 1; ``phi`` (B, K) in [-1, 1]."""
    width = phi.shape[1] / bins
    distance = (phi.shape[1] - phi @ phi.T) / 2  # (B, B)
    centers = width * torch.arange(bins + 1).to(phi)
    return (1 - (distance[:, :, None] - centers).abs() / width).clamp(min=0)


def entropy(p: Tensor) -> Tensor:
    """Entropy in bits over the last axis; an empty bin contributes 0 and has a finite gradient.

    >>> entropy(torch.tensor([0.5, 0.5, 0.0]))
    tensor(1.)
    """
    return -(p * p.clamp(min=1e-12).log2()).sum(-1)


def information(phi: Tensor, similar: Tensor, bins: int) -> Tensor:
    """(B,) mutual information, in bits, between distance and neighborhood; an image is not its own neighbor."""
    others = 1 - torch.eye(len(phi)).to(phi)  # (B, B)
    shares = histogram(phi, bins)  # (B, B, n + 1)
    total = others.sum(1, keepdim=True)
    gain = entropy((others[:, :, None] * shares).sum(1) / total)
    for side in (similar * others, (1 - similar) * others):
        count = side.sum(1, keepdim=True)  # (B, 1)
        given = (side[:, :, None] * shares).sum(1) / count.clamp(min=1)
        gain = gain - (count / total)[:, 0] * entropy(given)
    return gain


class MIHash(Loss):
    """Negative mutual information of distance and neighborhood (Cakir et al., ICCV 2017)."""

    def __init__(
        self, setting: Setting, *, bins: int | None = None, slope: Annotated[float, Log(0.1, 10)] = 1.0
    ) -> None:
        super().__init__()
        self.bins = max(1, setting.bits // 2) if bins is None else bins
        if self.bins < 1:
            raise ValueError(f"mihash needs bins >= 1, not {bins}")
        self.slope = slope

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """The term ``information``, negative, of (B, K) codes. ValueError for a batch of one."""
        pairs.require("mihash", batch)
        phi = 2 * torch.sigmoid(self.slope * output.code) - 1
        return {"information": -information(phi, batch.similar, self.bins).mean()}


METHOD = deep(
    "linear",
    MIHash,
    card=Card("deep", "pairs", paper="Cakir et al., ICCV 2017", year=2017),
    doc="MIHash: mutual information between distance and neighborhood (Cakir et al., ICCV 2017)",
)
