"""Simultaneous Feature Learning and Hash Coding with Deep Neural Networks (Lai, Pan, Liu & Yan, CVPR 2015).

Divide and encode: the features are cut into K slices, and each bit depends on one slice only, so that bits are less
redundant. The loss is a triplet hinge.

    s = V f  (B, 50 K), cut into K slices of 50
    v_k = sigmoid(<w_k, s_k> + c_k)
    F_k = 0 below 1/2 - epsilon, v_k in between, 1 above 1/2 + epsilon
    loss = mean over triplets (q, p, n) of
           max(0, |F_q - F_p|^2 - |F_q - F_n|^2 + 1)
    code = [v >= 1/2]

Resolved: the step has the gradient of v, since its own gradient is 0 outside the band. The paper does not give
``epsilon``; it is 0.25 here. Slices of 50 and the margin of 1 are from memory of the preprint (unverified). All
triplets of a batch are used, never with the query as its own positive; the loss of a batch without triplets is 0. The
code of the head is 2 F - 1.

Measured: with 1,280 features and 64 bits, the layer of slices has 4.1 million weights, 50 times those of a linear hash
layer. Its products and optimizer steps are nearly all of a fit, which takes over five times as long as the median of
deep methods on stored features.

Public code: a port scales the gradient by an additional factor 2; codes in {0, 1} are compared with codes in {-1, 1}.

Cite: lai2015dnnh
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from hashzoo import Backbone, Batch, Card, Features, Head, Integer, Loss, Output, Setting, Uniform, deep
from hashzoo_plugins.pairwise import pairs
from hashzoo_plugins.pairwise.triplets import mean_over


def step(v: Tensor, epsilon: float) -> Tensor:
    """v inside the band around 1/2, 0 below and 1 above it, with the gradient of the identity.

    >>> step(torch.tensor([0.1, 0.4, 0.9]), 0.2)
    tensor([0.0000, 0.4000, 1.0000])
    """
    hard = torch.where((v - 0.5).abs() <= epsilon, v, (v > 0.5).to(v))
    return hard.detach() + (v - v.detach())


class DivideAndEncode(Head):
    """One slice of the features per bit (Lai et al., CVPR 2015)."""

    def __init__(
        self,
        setting: Setting,
        backbone: Backbone,
        *,
        slice: Annotated[int, Integer(10, 100, log=True)] = 50,
        epsilon: Annotated[float, Uniform(0, 0.5)] = 0.25,
    ) -> None:
        super().__init__()
        if slice < 1 or not 0 <= epsilon <= 0.5:
            raise ValueError(f"divide-and-encode needs slice >= 1 and epsilon in 0..0.5, not {slice} and {epsilon}")
        self.slice, self.epsilon = slice, epsilon
        self.layer = nn.Linear(backbone.dim, slice * setting.bits)
        self.weight = nn.Parameter(torch.randn(setting.bits, slice) / slice**0.5)
        self.bias = nn.Parameter(torch.zeros(setting.bits))

    def forward(self, features: Features) -> Output:
        """``code`` (B, K) in [-1, 1]."""
        s = self.layer(features.pooled).unflatten(1, (-1, self.slice))  # (B, K, slice)
        v = torch.sigmoid((s * self.weight).sum(2) + self.bias)
        return Output(2 * step(v, self.epsilon) - 1)


def distances(f: Tensor) -> Tensor:
    """(B, B) squared distances |F_i - F_j|^2 of codes (B, K)."""
    return (f[:, None] - f[None]).square().sum(2)


def hinge(near: Tensor, far: Tensor) -> Tensor:
    """max(0, |F_q - F_p|^2 - |F_q - F_n|^2 + 1) for the squared distances of triplets, in their shape."""
    return (near - far + 1).clamp(min=0)


class DNNH(Loss):
    """A hinge over triplets of codes in [0, 1] (Lai et al., CVPR 2015)."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """The term ``triplet`` of (B, K) codes in [-1, 1]; 0 for a batch without a triplet."""
        pairs.require("dnnh", batch)
        f = (output.code + 1) / 2
        return {"triplet": mean_over(hinge, distances(f), batch.similar)}


METHOD = deep(
    DivideAndEncode,
    DNNH,
    card=Card("deep", "pairs", paper="Lai et al., CVPR 2015", year=2015),
    doc="DNNH: divide-and-encode, one slice of the features per bit, triplet hinge (Lai et al., CVPR 2015)",
)
