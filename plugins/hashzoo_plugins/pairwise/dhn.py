"""Deep Hashing Network for Efficient Similarity Retrieval (Zhu, Long, Wang & Cao, AAAI 2016).

Maximum a posteriori codes: a logistic likelihood of pairs and a bimodal Laplacian prior that pulls codes to +-1.

Resolved where the paper is silent, or public code differs: the inner product carries no factor 1/2; pairs are
unordered, without the diagonal, and their mean is taken, so the counterpart of the quantization sum is
2/B sum_i (every picture is in B - 1 pairs); the prior's L1 is smoothed to log cosh(|u| - 1) as in the paper's
eq. 7. ``weight`` is the paper's lambda, cross-validated there.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from hashzoo.method import Card, deep
from hashzoo.types import Batch, Output, Setting


def upper(pairs: Tensor) -> Tensor:
    """The entries of a (B, B) table above its diagonal: each unordered pair once.

    >>> upper(torch.tensor([[1, 2, 3], [4, 5, 6], [7, 8, 9]]))
    tensor([2, 3, 6])
    """
    rows, columns = torch.triu_indices(len(pairs), len(pairs), 1, device=pairs.device)
    return pairs[rows, columns]


def log_cosh(t: Tensor) -> Tensor:
    """log cosh t without overflow: |t| + softplus(-2 |t|) - log 2.

    >>> round(float(log_cosh(torch.tensor(-1.0))), 6), float(log_cosh(torch.tensor(1e3))) > 999
    (0.433781, True)
    """
    return t.abs() + softplus(-2 * t.abs()) - math.log(2)


class DHN(nn.Module):
    """Pairwise cross-entropy and a smooth quantization term (Zhu et al., AAAI 2016)."""

    def __init__(self, setting: Setting, *, weight: float = 0.1) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Terms ``pair`` and ``quantization``. ValueError for a batch of one, which has no pair."""
        if len(batch) < 2:
            raise ValueError("dhn learns from pairs: a batch needs two pictures or more")
        theta = output.code @ output.code.T  # (B, B) log-odds that a pair is similar
        pair = softplus(theta) - batch.similar * theta  # (B, B) -log p(similar | code), eq. 5
        gap = log_cosh(output.code.abs() - 1).sum(1)  # (B,) a smooth | |u| - 1 |, eq. 7
        return {"pair": upper(pair).mean(), "quantization": self.weight * 2 * gap.mean()}


METHOD = deep(
    "tanh",
    DHN,
    card=Card("deep", "pairs", paper="Zhu et al., AAAI 2016", year=2016),
    doc="Deep Hashing Network: pairwise cross-entropy with quantization control",
)
