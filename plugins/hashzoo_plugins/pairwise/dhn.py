"""Deep Hashing Network for Efficient Similarity Retrieval (Zhu, Long, Wang & Cao, AAAI 2016).

Maximum a posteriori codes: a logistic likelihood of pairs and a bimodal Laplacian prior that pulls codes to +-1.

    theta_ij = <u_i, u_j>,  u = tanh(W f + v)  (B, K)
    loss = mean over i < j of  softplus(theta_ij) - s_ij theta_ij
           + lambda mean over i < j of
             sum_k log cosh(|u_ik| - 1) + log cosh(|u_jk| - 1)
    code = sgn(u)

Resolved: the paper does not specify the following, or public code differs. The inner product has no factor 1/2. Pairs
are unordered, without the diagonal, and the loss is their mean, so that the quantization term is 2/B sum_i (every image
is in B - 1 pairs). The L1 norm of the prior is smoothed to log cosh(|u| - 1), as in eq. 7 of the paper. ``weight`` is
the paper's lambda, which it cross-validates.

Variants from the paper: DHN-B ranks by the real values, DHN-Q has no quantization term, DHN-E has squared error instead
of cross-entropy. The paper does not say whether the targets of DHN-E are {-1, 1} or {0, 1}; 0 would make dissimilar
codes orthogonal, so ``dissimilar`` is -1.

Public code: pairs of an image with itself count as similar, a hidden quantization term; forward and backward passes
weight the terms differently; a memory bank initialized with zeros counts as images; one repository implements DHN-Q as
DHN. Inner products of long codes saturate the logistic: at 64 bits the gradient of a wrong pair no longer grows.

Cite: zhu2016dhn
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from hashzoo import Backbone, Batch, Card, Codes, Deep, Distance, Index, Log, Loss, Output, Scan, Setting, deep
from hashzoo_plugins.heads.linear import Tanh
from hashzoo_plugins.pairwise import pairs
from hashzoo_plugins.pairwise.pairs import upper
from hashzoo_plugins.quantization import gap, log_cosh

PAPER = "Zhu et al., AAAI 2016"


class DHN(Loss):
    """Pairwise cross-entropy and a smooth quantization term (Zhu et al., AAAI 2016)."""

    def __init__(self, setting: Setting, *, weight: Annotated[float, Log(1e-5, 100, source="paper")] = 0.1) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Terms ``pair`` and ``quantization``. ValueError for a batch of one, which has no pair."""
        pairs.require("dhn", batch)
        theta = output.code @ output.code.T  # (B, B) log-odds that a pair is similar
        pair = pairs.likelihood(theta, batch.similar)  # (B, B), eq. 5
        return {"pair": upper(pair).mean(), "quantization": self.weight * quantization(output.code)}


def quantization(code: Tensor) -> Tensor:
    """The smooth | |u| - 1 | (eq. 7) of both codes, mean over unordered pairs of (B, K) codes."""
    return 2 * log_cosh(gap(code)).sum(1).mean()


def without_quantization(setting: Setting) -> DHN:
    """Pairwise cross-entropy alone (DHN-Q of Zhu et al., AAAI 2016)."""
    return DHN(setting, weight=0.0)


class DHNE(Loss):
    """Squared error of the inner products, and the quantization term (DHN-E of Zhu et al., AAAI 2016)."""

    def __init__(
        self,
        setting: Setting,
        *,
        weight: Annotated[float, Log(1e-5, 100, source="paper")] = 0.1,
        dissimilar: float = -1.0,
    ) -> None:
        super().__init__()
        self.weight, self.dissimilar = weight, dissimilar

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Terms ``pair`` and ``quantization``. ValueError for a batch of one, which has no pair."""
        pairs.require("dhn-e", batch)
        target = torch.where(batch.similar > 0, 1.0, self.dissimilar).to(output.code)  # (B, B)
        error = (target - output.code @ output.code.T / output.code.shape[1]).square()
        return {"pair": upper(error).mean(), "quantization": self.weight * quantization(output.code)}


class InnerProduct(Distance):
    """Minus the inner product of real codes."""

    stored = ("relaxed",)

    def __call__(self, query: Codes, database: Codes) -> Tensor:
        """(Q, N) float32, rounded from float64, so that identical images have identical distances in any order."""
        return -(query["relaxed"].double() @ database["relaxed"].double().T).float()


class DHNB(Deep):
    """DHN ranked by its real values, without the sign: a bound on the cost of quantization, not a hash (DHN-B)."""

    card = Card("deep", "pairs", paper=PAPER, year=2016, beyond="the real-valued code, 32 bits a number")

    def __init__(
        self, setting: Setting, backbone: Backbone, *, weight: Annotated[float, Log(1e-5, 100, source="paper")] = 0.1
    ) -> None:
        super().__init__(backbone, Tanh(setting, backbone), DHN(setting, weight=weight))

    def encode(self, batch: Batch) -> Codes:
        """The relaxed code, without quantization."""
        return {"relaxed": self.relaxed(batch)}

    def index(self) -> Index:
        """An exact scan by inner product."""
        return Scan(InnerProduct())


METHOD = deep(
    "tanh",
    DHN,
    card=Card("deep", "pairs", paper=PAPER, year=2016),
    doc="Deep Hashing Network: pairwise cross-entropy with quantization control",
)

METHOD_Q = deep(
    "tanh",
    without_quantization,
    card=Card("deep", "pairs", paper=PAPER, year=2016),
    doc="DHN without its quantization term (DHN-Q)",
)

METHOD_E = deep(
    "tanh",
    DHNE,
    card=Card("deep", "pairs", paper=PAPER, year=2016),
    doc="DHN with squared error in place of cross-entropy (DHN-E)",
)
