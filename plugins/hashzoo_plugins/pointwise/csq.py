"""Central Similarity Quantization for Efficient Image and Video Retrieval (Yuan, Wang, Zhang, Tay, Jie, Liu & Feng,
CVPR 2020).

Each class has a binary center, a row of a Hadamard matrix, so that centers are far apart. Each bit of a code is trained
toward the center of its class.

    h = tanh(W f + v)  (B, K),  code = sgn(h)
    t_i = center of the class of i;
          of several labels, the sign of the sum of their centers
    loss = mean over i, k of  BCE((h_ik + 1) / 2, (t_ik + 1) / 2)  +  lambda Q
    Q = mean over i, k of (|h_ik| - 1)^2,
        or mean over i of sum_k log cosh(|h_ik| - 1)

Resolved: the quantization term is the squared one of the released code (``quantizer = "log-cosh"``: that of the paper);
lambda is 0.05. If a sum of centers is 0, a fixed random vector decides. If the number of bits is not a power of two, or
there are more than 2 K classes, each center is the one of 100 random vectors that is farthest from the previous centers
(``center = "mds"``: the centers of mdsh). Row 0 of a Hadamard matrix is all ones and is used. Probabilities are clamped
to 1e-6 from 0 and 1, so that the gradient of the logarithm is finite.

Public code: the published lists have 4,983 queries for ImageNet instead of 5,000.

Cite: yuan2020csq
"""

from __future__ import annotations

from typing import Annotated, Literal

from torch import Tensor
from torch.nn.functional import binary_cross_entropy

from hashzoo import Batch, Card, Choice, Log, Loss, Output, Setting, deep
from hashzoo_plugins.pointwise.centers import random_rows, require_labels, vote
from hashzoo_plugins.pointwise.mds import Kind, centers
from hashzoo_plugins.quantization import gap, log_cosh

SURE = 1e-6


class CSQ(Loss):
    """Cross-entropy of each bit with the class center, and a quantization term (Yuan et al., CVPR 2020)."""

    centers: Tensor
    ties: Tensor

    def __init__(
        self,
        setting: Setting,
        *,
        quantization: Annotated[float, Log(1e-4, 10)] = 0.05,
        quantizer: Annotated[Literal["squared", "log-cosh"], Choice("squared", "log-cosh")] = "squared",
        center: Kind = "auto",
    ) -> None:
        super().__init__()
        self.weight, self.quantizer = quantization, quantizer
        self.register_buffer("centers", centers(center, setting.classes, setting.bits))
        self.register_buffer("ties", random_rows(1, setting.bits)[0])

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Terms ``center`` and ``quantization`` of (B, K) codes in [-1, 1]."""
        h = output.code
        require_labels("csq", batch.labels)
        target = vote(batch.labels, self.centers, self.ties).to(h)  # (B, K)
        p = ((h + 1) / 2).clamp(SURE, 1 - SURE)
        away = gap(h)
        q = away.square().mean() if self.quantizer == "squared" else log_cosh(away).sum(1).mean()
        return {"center": binary_cross_entropy(p, (target + 1) / 2), "quantization": self.weight * q}


METHOD = deep(
    "tanh",
    CSQ,
    card=Card("deep", "classes", paper="Yuan et al., CVPR 2020", year=2020),
    doc="Central Similarity Quantization: Hadamard centers of classes (Yuan et al., CVPR 2020)",
)
