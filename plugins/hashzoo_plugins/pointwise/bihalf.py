"""Deep Unsupervised Image Hashing by Maximizing Bit Entropy (Li & van Gemert, AAAI 2021).

Each bit is 1 for the upper half of a batch and -1 for the lower half, the closest assignment with equal halves. Cosines
of these codes are matched to cosines of features.

    z = W f + v  (n, K)
    B_ik = +1 if z_ik is among the floor(n / 2) largest of its bit, else -1
    backward:  dL/dz = dL/dB + gamma (z - B) / (n K)
    loss = mean over i < j of (cos(b_i, b_j) - cos(f_i, f_j))^2
    code = sgn(z), for each image on its own

Resolved: all unordered pairs of the batch are matched; the features get no gradient. Ties are resolved by the order in
the batch. Features are centered by the mean of the batch (``center = False``: not centered), since cosines of features
after a ReLU are never negative but those of codes are.

Public code: query codes computed by sorting depend on the other queries; a port had a bug in this layer.

Cite: li2021bihalf
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor

from hashzoo import Batch, Card, Log, Loss, Output, Setting, deep
from hashzoo_plugins.pairwise import pairs
from hashzoo_plugins.pointwise.features import mismatch, read


class Halves(torch.autograd.Function):
    """1 for the upper half of each column, -1 for the rest; the gradient is passed on, plus a pull to that code."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, gamma: float) -> Tensor:
        """Map (n, K) values to (n, K) codes of -1 and 1."""
        order = z.sort(dim=0, descending=True, stable=True).indices
        b = torch.full_like(z, -1.0).scatter_(0, order[: len(z) // 2], 1.0)
        ctx.save_for_backward(z, b)
        ctx.gamma = gamma
        return b

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        """The incoming gradient plus gamma (z - B) / (n K)."""
        z, b = ctx.saved_tensors
        return slopes[0] + ctx.gamma * (z - b) / z.numel(), None


def halves(z: Tensor, gamma: float) -> Tensor:
    """(n, K) codes in which each bit is 1 for half of the rows and -1 for the others.

    >>> halves(torch.tensor([[0.3], [0.1], [-0.5], [0.9]]), 6.0).T
    tensor([[ 1., -1., -1.,  1.]])
    """
    made: Tensor = Halves.apply(z, gamma)
    return made


class BiHalf(Loss):
    """Match cosines of balanced codes to those of features, without labels (Li & van Gemert, AAAI 2021)."""

    def __init__(self, setting: Setting, *, gamma: Annotated[float, Log(0.1, 100)] = 6.0, center: bool = True) -> None:
        super().__init__()
        self.gamma, self.center = gamma, center

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """The term ``cosine`` of (B, K) codes and the features of the same images."""
        pairs.require("bihalf", batch)
        return {"cosine": mismatch(halves(output.code, self.gamma), read("bihalf", output, self.center))}


METHOD = deep(
    "linear",
    BiHalf,
    card=Card("deep", "none", paper="Li & van Gemert, AAAI 2021", year=2021),
    doc="Bi-half: bits that halve every batch, no labels (Li & van Gemert, AAAI 2021)",
)
