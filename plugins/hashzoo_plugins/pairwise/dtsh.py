"""Deep Supervised Hashing with Triplet Labels (Wang, Shi & Kitani, ACCV 2016).

The likelihood that a query is closer to a similar image than to a dissimilar one is a logistic function of half the
difference between its inner products with these images, minus a margin.

    theta_ij = <u_i, u_j> / 2,  u = W f + v  (B, K)
    loss = mean over triplets (q, p, m) of
           softplus(-(theta_qp - theta_qm - alpha)),  alpha = K / 2
           + lambda / n mean over i of |sgn(u_i) - u_i|^2
    code = sgn(u);  n training images, lambda = 100

Resolved: the loss uses all triplets of a batch, but never the query as its own positive. For a batch without triplets,
it consists of the quantization term only. The normalization of the sum over triplets is unknown; here it is the mean.
The quantization term has the weight lambda / n, as in DPSH; if images have several labels, n counts labels.

Public code: ports use alpha = 5 for all code lengths, omit the factor 1/2, and allow the query as its own positive.

Cite: wang2016dtsh
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

from torch import Tensor
from torch.nn.functional import softplus

from hashzoo import Batch, Card, Log, Loss, Output, Setting, deep
from hashzoo_plugins.pairwise import pairs
from hashzoo_plugins.pairwise.dpsh import quantization_weight
from hashzoo_plugins.pairwise.triplets import mean_over
from hashzoo_plugins.quantization import gap


def disorder(near: Tensor, far: Tensor, alpha: float) -> Tensor:
    """-log p(near is closer to the query than far), for theta_qp and theta_qm of triplets, in their shape."""
    return softplus(alpha - near + far)


class DTSH(Loss):
    """Likelihood of triplets with a margin of K / 2, squared quantization error (Wang et al., ACCV 2016)."""

    def __init__(
        self, setting: Setting, *, alpha: float | None = None, quantization: Annotated[float, Log(0.1, 1000)] = 100.0
    ) -> None:
        super().__init__()
        self.alpha = setting.bits / 2 if alpha is None else alpha
        self.weight = quantization_weight(quantization, setting)

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Terms ``triplet`` and ``quantization`` of (B, K) codes; the first is 0 for a batch without a triplet."""
        pairs.require("dtsh", batch)
        theta = output.code @ output.code.T / 2  # (B, B)
        return {
            "triplet": mean_over(partial(disorder, alpha=self.alpha), theta, batch.similar),
            "quantization": self.weight * gap(output.code).square().sum(1).mean(),
        }


METHOD = deep(
    "linear",
    DTSH,
    card=Card("deep", "pairs", paper="Wang et al., ACCV 2016", year=2016),
    doc="Deep triplet-supervised hashing: a logistic likelihood of triplets (Wang et al., ACCV 2016)",
)
