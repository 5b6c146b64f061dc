"""HyP2 Loss: Beyond Hypersphere Metric Space for Multi-label Image Retrieval (Xu, Chai, Xu, Yuan, Fan & Wang, ACM MM
2022).

Learned class proxies attract the images of a label and repel the others, up to a margin. Proxies alone can bring images
of different labels together if both have several labels; such pairs are pushed apart directly.

    u = W f + v  (B, K),  code = sgn(u);  proxies p (C, K)
    loss = mean over i, labels j of i of      1 - cos(u_i, p_j)
           + mean over i, other classes j of  max(0, cos(u_i, p_j) - zeta)
           + beta mean over i, j with two labels or more each, and none
             in common, of                    max(0, cos(u_i, u_j) - zeta)
    zeta = max(0, 1 - 2 d / K),
      d = largest distance of a linear code with K bits and log2 C dimensions

Resolved: beta is 0.5. d is looked up in the tables of Brouwer and Grassl for 12 to 64 bits and up to 1,024 classes, the
dimension rounded up; otherwise it is the largest even number that Griesmer's bound permits, which for most lengths is
reached (``margin`` replaces zeta). Proxies are trained at twice the rate of the network. With one label per image the
last term is 0.

Public code: means over no pair give NaN, in a batch without labels or if every image has every label; the best epoch on
the test set is reported.

Cite: xu2022hyp2
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from hashzoo import Batch, Card, Log, Loss, Output, Setting, deep
from hashzoo_plugins.pairwise.pairs import SMALL, cosines

#: Distances of the best known linear codes by length and dimension, where they are below :func:`griesmer`.
BEST = {(12, 8): 3, (16, 8): 5, (24, 8): 8, (32, 8): 13, (32, 9): 12, (48, 9): 20}
BEST |= {(64, 8): 29, (64, 9): 28, (64, 10): 28}


def griesmer(bits: int, dimension: int) -> int:
    """The largest even d with sum_{i < dimension} ceil(d / 2^i) <= bits, but at least 1.

    >>> [griesmer(bits, 7) for bits in (16, 32, 48, 64)]
    [6, 14, 22, 32]
    """
    even = range(2, bits + 1, 2)
    return max((d for d in even if sum(-(-d // 2**i) for i in range(dimension)) <= bits), default=1)


def threshold(classes: int, bits: int) -> float:
    """The cosine of two codewords at the largest distance d of a linear code of so many words, but at least 0.

    >>> [threshold(classes, bits) for classes, bits in ((80, 16), (80, 32), (10, 32), (200, 64))]
    [0.25, 0.125, 0.0, 0.09375]
    """
    dimension = max(1, (classes - 1).bit_length())
    return max(0.0, 1 - 2 * BEST.get((bits, dimension), griesmer(bits, dimension)) / bits)


def mean_where(values: Tensor, chosen: Tensor) -> Tensor:
    """The mean of the values where ``chosen`` holds; 0 if it holds nowhere."""
    return (values * chosen).sum() / chosen.sum().clamp(min=1)


class HyP2(Loss):
    """Class proxies with a margin, and a push between images without a common label (Xu et al., ACM MM 2022)."""

    def __init__(
        self, setting: Setting, *, beta: Annotated[float, Log(0.01, 10)] = 0.5, margin: float | None = None
    ) -> None:
        super().__init__()
        self.beta = beta
        self.margin = threshold(setting.classes, setting.bits) if margin is None else margin
        self.proxies = nn.Parameter(torch.empty(setting.classes, setting.bits))
        nn.init.kaiming_normal_(self.proxies, mode="fan_out")

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Terms ``positive``, ``negative`` and ``irrelevant`` of (B, K) codes and (B, C) labels."""
        own = batch.labels > 0
        code = normalize(output.code, dim=1, eps=SMALL)
        cosine = code @ normalize(self.proxies.to(code), dim=1, eps=SMALL).T  # (B, C)
        several = own.sum(1) > 1
        apart = several[:, None] & several[None] & (batch.similar == 0)  # (B, B)
        near = (cosines(output.code) - self.margin).clamp(min=0)
        return {
            "positive": mean_where(1 - cosine, own),
            "negative": mean_where((cosine - self.margin).clamp(min=0), ~own),
            "irrelevant": self.beta * mean_where(near, apart),
        }


METHOD = deep(
    "linear",
    HyP2,
    card=Card("deep", "classes", paper="Xu et al., ACM MM 2022", year=2022),
    doc="HyP2: class proxies, and a push between images of several labels (Xu et al., ACM MM 2022)",
    loss_rate=2.0,
)
