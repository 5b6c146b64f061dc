"""HashNet: Deep Learning to Hash by Continuation (Cao, Long, Wang & Yu, ICCV 2017).

tanh(beta z) approaches the sign as beta grows during training, so no quantization term is needed. Pairs are weighted so
that the few similar ones count as much as the many dissimilar ones.

    z = W f + v  (B, K),  h = tanh(beta z),  code = sgn(z)
    beta = sqrt(1 + growth t),  t = 0..1 through the training
    w_ij = |S| / |S_1| for similar pairs, |S| / |S_0| for the others
    loss = mean over i < j of
           w_ij [ softplus(alpha <h_i, h_j>) - alpha s_ij <h_i, h_j> ],
           alpha = 10 / K

Resolved: pairs are the unordered pairs of one batch (the authors pair two batches). Their beta is sqrt(1 + 0.005 n)
after n of 10,000 steps, updated every 200 steps; here it reaches the same final value, sqrt(51), continuously. For
images with several labels the paper multiplies by the Jaccard index of the label sets; here only similar pairs are
multiplied, since dissimilar pairs would get a weight of zero. If a batch has no similar or no dissimilar pair, the
weights are 1.

Public code: dividing by the number of similar pairs fails in a batch without one; a port changes beta by whole epochs;
some evaluate tanh instead of the sign.

Cite: cao2017hashnet
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from hashzoo import Batch, Card, Log, Loss, Output, Setting, deep
from hashzoo_plugins.pairwise import pairs


def pair_weights(similar: Tensor, labels: Tensor, multilabel: bool) -> Tensor:
    """(P,) balanced weights of the unordered pairs of a batch; in multi-label data similar ones times Jaccard index."""
    weights = pairs.balance(pairs.upper(similar))
    if not multilabel:
        return weights
    alike = pairs.upper(pairs.jaccard(labels))
    return torch.where(pairs.upper(similar) > 0, alike * weights, weights)


class HashNet(Loss):
    """Balanced likelihood of pairs under a tanh of increasing slope (Cao et al., ICCV 2017)."""

    def __init__(
        self, setting: Setting, *, alpha: float | None = None, growth: Annotated[float, Log(1, 500)] = 50.0
    ) -> None:
        super().__init__()
        self.alpha = 10 / setting.bits if alpha is None else alpha
        self.growth, self.multilabel = growth, setting.multilabel

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """The term ``pair`` of (B, K) codes before tanh. ValueError for a batch of one."""
        pairs.require("hashnet", batch)
        h = torch.tanh((1 + self.growth * batch.progress) ** 0.5 * output.code)  # (B, K)
        pair = pairs.upper(pairs.likelihood(self.alpha * (h @ h.T), batch.similar))  # (P,)
        return {"pair": (pair_weights(batch.similar, batch.labels, self.multilabel) * pair).mean()}


METHOD = deep(
    "linear",
    HashNet,
    card=Card("deep", "pairs", paper="Cao et al., ICCV 2017", year=2017),
    doc="HashNet: the sign by continuation, balanced pairs (Cao et al., ICCV 2017)",
)
