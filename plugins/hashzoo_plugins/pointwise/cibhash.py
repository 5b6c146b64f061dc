"""Unsupervised Hashing with Contrastive Information Bottleneck (Qiu, Su, Ou, Yu & Chen, IJCAI 2021).

Two views of an image should have the same code, and different images different codes. The bit probabilities of the two
views are pulled together, which removes from the code what the views do not share.

    z = MLP(f)  (B, K),  p = sigmoid(z)
    b = sgn(p - 1/2) with a straight-through gradient
    loss = NT-Xent over the 2 B codes of both views, cosine, temperature tau
           + beta / 2 mean over i of  KL(p1_i | p2_i) + KL(p2_i | p1_i),
             Bernoulli, summed over bits
    code = [p >= 1/2]

Resolved: the second distribution of each divergence is constant, as in the authors' code (the value is the same). The
MLP has one hidden layer of 1024 units. Views are those of Deep Hash Distillation at full strength, with crops of at
least half of the image. With stored features both views are equal, and the loss only separates different images.

Measured: with 1,280 features and 64 bits, the MLP has 1.4 million weights, 17 times those of a linear hash layer, and
two views pass it in each step. A fit on stored features takes about five times as long as the median of deep methods.

Cite: qiu2021cibhash
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, logsigmoid

from hashzoo import Backbone, Batch, Card, Deep, Features, Head, Log, Loss, Output, Setting
from hashzoo_plugins.pairwise import pairs
from hashzoo_plugins.pointwise.views import Views
from hashzoo_plugins.quantization import straight_through


class Perceptron(Head):
    """One hidden layer of ``hidden`` units, then the log-odds of K bits."""

    def __init__(self, setting: Setting, backbone: Backbone, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(backbone.dim, hidden), nn.ReLU(), nn.Linear(hidden, setting.bits))

    def forward(self, features: Features) -> Output:
        """``code`` (B, K), log-odds."""
        return Output(self.layers(features.pooled))


def contrast(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """NT-Xent of two views (B, K): -log of the softmax weight of the other view, mean over the 2 B codes."""
    codes = torch.cat([first, second])
    alike = pairs.cosines(codes) / temperature
    itself = torch.eye(len(codes), dtype=torch.bool, device=codes.device)
    other = torch.arange(len(codes), device=codes.device).roll(len(first))
    return cross_entropy(alike.masked_fill(itself, float("-inf")), other)


def divergence(z: Tensor, fixed: Tensor) -> Tensor:
    """(B,) KL divergence of Bernoulli bits with log-odds z and ``fixed`` (B, K); ``fixed`` gets no gradient."""
    fixed = fixed.detach()
    p = torch.sigmoid(z)
    on, off = logsigmoid(z) - logsigmoid(fixed), logsigmoid(-z) - logsigmoid(-fixed)
    return (p * on + (1 - p) * off).sum(1)


class CIBHashLoss(Loss):
    """Contrast of the codes of two views, and the divergence of their bits; a single view is used as both."""

    def __init__(self, temperature: float, beta: float) -> None:
        super().__init__()
        self.temperature, self.beta = temperature, beta

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Terms ``contrast`` and ``divergence``; the log-odds of the second view are ``output.extra["second"]``."""
        pairs.require("cibhash", batch)
        first, second = output.code, output.extra.get("second", output.code)
        both = divergence(first, second) + divergence(second, first)
        return {
            "contrast": contrast(straight_through(first), straight_through(second), self.temperature),
            "divergence": self.beta * both.mean() / 2,
        }


class CIBHash(Deep):
    """CIBHash: contrast of two views through an information bottleneck, no labels (Qiu et al., IJCAI 2021)."""

    card = Card(
        "deep",
        "none",
        paper="Qiu et al., IJCAI 2021",
        year=2021,
        views=True,
        collapses="at a rate of 1e-2, ten times the paper's, all small images of the check get one code of 16 bits",
    )

    def __init__(
        self,
        setting: Setting,
        backbone: Backbone,
        *,
        temperature: Annotated[float, Log(0.05, 2)] = 0.3,
        beta: Annotated[float, Log(1e-5, 0.1)] = 0.001,
        hidden: int = 1024,
        flip: bool = True,
        crop: float = 0.5,
    ) -> None:
        super().__init__(backbone, Perceptron(setting, backbone, hidden), CIBHashLoss(temperature, beta))
        self.views = [Views(1.0, flip, crop)] * 2
