"""Deep Unsupervised Image Hashing by Maximizing Bit Entropy (Li & van Gemert, AAAI 2021).

Every bit is 1 for the upper half of a batch and -1 for the lower half, the nearest assignment that halves it; cosines
of these codes are matched to cosines of features.

    B_ik = +1 if z_ik is among the floor(n / 2) largest of its bit, -1 otherwise,  z = W f + v  (n, K)
    backward:  dL/dz = dL/dB + gamma (z - B) / (n K)
    loss = mean over i < j of (cos(b_i, b_j) - cos(f_i, f_j))^2
    code = sgn(z): an image is encoded alone, by its sign

Resolved: all unordered pairs of the batch are matched; the features get no gradient from it. Ties stand in the order
of the batch. Features are centered by the batch's mean (``center = False``: as they are), since cosines of features
behind a ReLU are never negative and those of codes are.

Public code: codes of queries made by sorting depend on the other queries; a port had a mistake in
this layer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hashzoo import Batch, Card, Output, Setting, deep
from hashzoo_plugins.pairwise import pairs
from hashzoo_plugins.pointwise.features import mismatch, read


class Halves(torch.autograd.Function):
    """The upper half of each column 1, the rest -1; the gradient passed on, and a pull towards that code."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, gamma: float) -> Tensor:
        """(n, K) in, (n, K) of -1 and 1 out."""
        order = z.sort(dim=0, descending=True, stable=True).indices
        b = torch.full_like(z, -1.0).scatter_(0, order[: len(z) // 2], 1.0)
        ctx.save_for_backward(z, b)
        ctx.gamma = gamma
        return b

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        """The slope of what follows, plus gamma (z - B) / (n K)."""
        z, b = ctx.saved_tensors
        return slopes[0] + ctx.gamma * (z - b) / z.numel(), None


def halves(z: Tensor, gamma: float) -> Tensor:
    """(n, K) of -1 and 1, half of each bit.

    >>> halves(torch.tensor([[0.3], [0.1], [-0.5], [0.9]]), 6.0).T
    tensor([[ 1., -1., -1.,  1.]])
    """
    made: Tensor = Halves.apply(z, gamma)
    return made


class BiHalf(nn.Module):
    """Cosines of half-and-half codes as those of features, no labels (Li & van Gemert, AAAI 2021)."""

    def __init__(self, setting: Setting, *, gamma: float = 6.0, center: bool = True) -> None:
        super().__init__()
        self.gamma, self.center = gamma, center

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """The term ``cosine`` of (B, K) codes, beside the features of the same images."""
        pairs.require("bihalf", batch)
        return {"cosine": mismatch(halves(output.code, self.gamma), read("bihalf", output, self.center))}


METHOD = deep(
    "linear",
    BiHalf,
    card=Card("deep", "none", paper="Li & van Gemert, AAAI 2021", year=2021),
    doc="Bi-half: bits that halve every batch, no labels (Li & van Gemert, AAAI 2021)",
)
