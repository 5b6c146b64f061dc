"""Feature Learning based Deep Supervised Hashing with Pairwise Labels (Li, Wang & Kang, IJCAI 2016).

The likelihood of a pair's label is logistic in half the inner product of its codes. A second term is the squared
distance of the real codes to their signs.

    theta_ij = <u_i, u_j> / 2,  u = W f + v  (B, K)
    loss = mean over i < j of softplus(theta_ij) - s_ij theta_ij
           + eta / n mean over i of |sgn(u_i) - u_i|^2
    code = sgn(u);  n training images, eta = 10

Resolved: pairs are those inside the batch. The authors pair a batch with the stored codes of all n training images and
divide by n B, which gives the quantization term the weight eta / n; this weight is kept (n counts labels if images have
several), but codes from earlier states of the network are not used. With C classes of the same size, one pair in C is
similar. Where fewer than one in 20 is, expected from the class counts, pairs are weighted as in HashNet, so that the
similar ones count as much as the others (``similar = "auto"``); ``"equal"`` is the paper's mean for any number of
classes, ``"balanced"`` the weights for any.

Public code: a release evaluates in training mode, so a code depends on its batch; ports initialize the memory bank with
zeros and count them as images; one adds the weights of HashNet and calls it DPSH.

Cite: li2016dpsh
"""

from __future__ import annotations

from typing import Annotated, Literal

from torch import Tensor

from hashzoo import Batch, Card, Log, Loss, Output, Setting, deep
from hashzoo_plugins.pairwise import pairs
from hashzoo_plugins.quantization import gap

FEW = 0.05  # share of similar pairs below which "auto" weights them


class DPSH(Loss):
    """Likelihood of pairs by half the inner product, squared quantization error (Li et al., IJCAI 2016)."""

    def __init__(
        self,
        setting: Setting,
        *,
        eta: Annotated[float, Log(0.01, 1000)] = 10.0,
        similar: Literal["auto", "equal", "balanced"] = "auto",
    ) -> None:
        super().__init__()
        self.weight = quantization_weight(eta, setting)
        few = expected_similar(setting.class_counts) < FEW
        self.balanced = similar == "balanced" or (similar == "auto" and few)

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Terms ``pair`` and ``quantization`` of (B, K) codes. ValueError for a batch of one."""
        pairs.require("dpsh", batch)
        pair = pairs.upper(half_likelihood(output.code, batch.similar))  # (P,)
        if self.balanced:
            pair = pairs.balance(pairs.upper(batch.similar)) * pair
        return {"pair": pair.mean(), "quantization": self.weight * gap(output.code).square().sum(1).mean()}


def expected_similar(class_counts: Tensor) -> float:
    """The expected share of similar pairs, from the number of images of each class (C,); 1 without labels.

    >>> import torch
    >>> round(expected_similar(torch.full((100,), 30)), 6), expected_similar(torch.tensor([5, 5]))
    (0.01, 0.5)
    """
    shares = class_counts.double() / class_counts.sum().clamp(min=1)
    return float(shares.square().sum()) if class_counts.sum() else 1.0


def quantization_weight(eta: float, setting: Setting) -> float:
    """eta / n, the weight of a mean over images next to a mean over pairs; n counts labels if images have several.

    >>> import torch
    >>> quantization_weight(10.0, Setting(16, 2, False, torch.tensor([300, 200]), 500))
    0.02
    """
    return eta / max(1, int(setting.class_counts.sum()))


def half_likelihood(code: Tensor, similar: Tensor) -> Tensor:
    """(B, B) -log p(similar), logistic in half the inner products of (B, K) codes."""
    return pairs.likelihood(code @ code.T / 2, similar)


METHOD = deep(
    "linear",
    DPSH,
    card=Card("deep", "pairs", paper="Li et al., IJCAI 2016", year=2016),
    doc="Deep pairwise-supervised hashing: a logistic likelihood of pairs (Li et al., IJCAI 2016)",
)
