"""Deep Cauchy Hashing for Hamming Space Retrieval (Cao, Long, Liu & Wang, CVPR 2018).

A Cauchy distribution instead of the logistic one: its probability falls steeply near distance 0, which concentrates
similar images in a small Hamming ball, where a lookup within a radius finds them.

    z = W f + v  (B, K)
    d(z, z') = K / 2 (1 - cos(z, z')),  p = gamma / (gamma + d)
    loss = mean over i < j of  w_ij [ s_ij log(1 + d_ij / gamma)
                                      + (1 - s_ij) log(1 + gamma / d_ij) ]
           + lambda mean over i of  log(1 + d(|z_i|, 1) / gamma)
    code = sgn(z);  w as in HashNet

Resolved: this is the cross-entropy of p, equal to the paper's s log(d / gamma) + log(1 + gamma / d) and finite for
equal codes; d is at least 1e-6 for dissimilar pairs. ``quantization``, the paper's lambda, is 0.1 (0 in the released
scripts).

Public code: released scripts use the squared Euclidean distance of unnormalized codes, and no quantization; ports count
each image as its own similar pair.

Cite: cao2018dch
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from hashzoo import Batch, Card, Log, Loss, Output, Setting, deep
from hashzoo_plugins.pairwise import pairs
from hashzoo_plugins.pairwise.hashnet import pair_weights

NEAR = 1e-6  # lower bound of the distance of dissimilar codes


def cross_entropy(distance: Tensor, similar: Tensor, gamma: float) -> Tensor:
    """-log of the Cauchy probability of a pair's label, for distances of any shape.

    >>> cross_entropy(torch.tensor([0.0, 20.0]), torch.tensor([1.0, 0.0]), 20.0)
    tensor([0.0000, 0.6931])
    """
    alike = torch.log1p(distance / gamma)
    return torch.where(similar > 0, alike, torch.log1p(gamma / distance.clamp(min=NEAR)))


class DCH(Loss):
    """Cauchy cross-entropy of balanced pairs and Cauchy quantization (Cao et al., CVPR 2018)."""

    def __init__(
        self,
        setting: Setting,
        *,
        gamma: Annotated[float, Log(1, 100)] = 20.0,
        quantization: Annotated[float, Log(1e-3, 10)] = 0.1,
    ) -> None:
        super().__init__()
        self.gamma, self.weight, self.multilabel = gamma, quantization, setting.multilabel

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Terms ``pair`` and ``quantization`` of (B, K) codes. ValueError for a batch of one."""
        pairs.require("dch", batch)
        z, half = output.code, output.code.shape[1] / 2
        distance = half * (1 - pairs.upper(pairs.cosines(z))).clamp(min=0)  # (P,)
        pair = cross_entropy(distance, pairs.upper(batch.similar), self.gamma)
        weights = pair_weights(batch.similar, batch.labels, self.multilabel)
        away = half * (1 - torch.cosine_similarity(z.abs(), torch.ones_like(z), dim=1, eps=pairs.SMALL))  # (B,)
        return {
            "pair": (weights * pair).mean(),
            "quantization": self.weight * torch.log1p(away.clamp(min=0) / self.gamma).mean(),
        }


METHOD = deep(
    "linear",
    DCH,
    card=Card("deep", "pairs", paper="Cao et al., CVPR 2018", year=2018),
    doc="Deep Cauchy Hashing: similar images within a small Hamming ball (Cao et al., CVPR 2018)",
)
