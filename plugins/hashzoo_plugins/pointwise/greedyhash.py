"""Greedy Hash: Towards Fast Optimization for Accurate Hash Coding in CNN (Su, Zhang, Han & Tian, NeurIPS 2018).

The forward pass takes the sign, the backward pass skips it; a classifier reads the binary code. Without labels, cosines
of codes are matched to cosines of features instead.

    b = sgn(z) forward, db/dz = 1 backward,  z = W f + v  (B, K)
    loss = cross-entropy(V b + a, y)  +  alpha mean over i, k of |z_ik - b_ik|^3
    without labels:
           mean over i < j of (cos(b_i, b_j) - cos(f_i, f_j))^2
           + alpha mean |z - b|^3
    code = sgn(z)

Resolved: images with several labels have one binary cross-entropy per label. alpha is 0.1, the paper's value for CIFAR
(1 for ImageNet). The features get no gradient. They are centered by the mean of the batch (``center = False``: not
centered); without centering, nearly all codes were equal for scattering features of digits, which are non-negative
(map@all 0.143, chance 0.106; centered 0.640).

Public code: sgn(0) = 0 gives values that are neither bit.

Cite: su2018greedyhash
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from hashzoo import Batch, Card, Log, Loss, Output, Setting, deep
from hashzoo_plugins.pairwise import pairs
from hashzoo_plugins.pointwise.features import mismatch, read
from hashzoo_plugins.quantization import gap, straight_through

PAPER = "Su et al., NeurIPS 2018"


def cubic(code: Tensor) -> Tensor:
    """The mean of |z - sgn(z)|^3 over a batch of codes (B, K)."""
    return gap(code).abs().pow(3).mean()


class GreedyHash(Loss):
    """A classifier on the sign of the code, its gradient passed straight through (Su et al., NeurIPS 2018)."""

    def __init__(self, setting: Setting, *, alpha: Annotated[float, Log(1e-3, 10)] = 0.1) -> None:
        super().__init__()
        self.alpha, self.multilabel = alpha, setting.multilabel
        self.classifier = nn.Linear(setting.bits, setting.classes)

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Terms ``classification`` and ``quantization`` of (B, K) codes."""
        logits = self.classifier(straight_through(output.code))
        loss = binary_cross_entropy_with_logits if self.multilabel else cross_entropy
        return {"classification": loss(logits, batch.labels), "quantization": self.alpha * cubic(output.code)}


class Unsupervised(Loss):
    """Match cosines of codes to those of features, without labels (Su et al., NeurIPS 2018)."""

    def __init__(self, setting: Setting, *, alpha: Annotated[float, Log(1e-3, 10)] = 0.1, center: bool = True) -> None:
        super().__init__()
        self.alpha, self.center = alpha, center

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Terms ``cosine`` and ``quantization`` of (B, K) codes and the features of the same images."""
        pairs.require("greedyhash-u", batch)
        b = straight_through(output.code)
        return {
            "cosine": mismatch(b, read("greedyhash-u", output, self.center)),
            "quantization": self.alpha * cubic(output.code),
        }


METHOD = deep(
    "linear",
    GreedyHash,
    card=Card("deep", "classes", paper=PAPER, year=2018),
    doc="GreedyHash: the sign in the forward pass, a classifier on the bits (Su et al., NeurIPS 2018)",
)

METHOD_U = deep(
    "linear",
    Unsupervised,
    card=Card("deep", "none", paper=PAPER, year=2018),
    doc="GreedyHash without labels: cosines of codes as those of features (Su et al., NeurIPS 2018)",
)
