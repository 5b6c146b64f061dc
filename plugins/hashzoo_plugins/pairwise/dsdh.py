"""Deep Supervised Discrete Hashing (Li, Sun, He & Tan, NeurIPS 2017).

The network learns from the likelihood of pairs. In addition, discrete cyclic coordinate descent finds binary codes of
the training images that predict the labels linearly. Outputs and codes are pulled toward each other.

    u = W f + v  (B, K);  code = sgn(u)
    theta_ij = <u_i, u_j> / 2
    loss on the network, B fixed:
        mean over i < j of softplus(theta_ij) - s_ij theta_ij
        + eta mean over i of |b_i - u_i|^2
    objective on the codes, U fixed:
        mu |Y - B W|^2 + nu |W|^2 + eta |B - U|^2,  B in {-1, 1}^(n x K)
        W = (B'B + nu / mu I)^-1 B'Y
        b_k by descent with Q = Y W' + eta / mu U

Resolved: eta is the weight of a mean over images relative to a mean over pairs. With sums over all n training images,
as printed in the paper, it would be eta / n, 2e-6 for 5,000 images: the codes would not affect the network, and no bit
would differ from those of DPSH with the same weight (measured on the images of the plugin contract; with means 0.9 % of
the bits differ, and 5 to 10 % with mu from 0.1 to 1). The codes are updated after every epoch, from the values of U in
its batches; before its first batch the code of an image is the sign of its own u. Rows are samples here, columns in the
paper.

Public code: in a port the classification has no path to the network, and eta |B - U|^2 is missing, so that it trains
DPSH.

Cite: li2017dsdh
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from hashzoo import Backbone, Batch, Card, Deep, Log, Loss, Output, Run, Setting, Split, signs
from hashzoo_plugins.heads.linear import Linear
from hashzoo_plugins.pairwise import pairs
from hashzoo_plugins.pairwise.dpsh import half_likelihood
from hashzoo_plugins.shallow.discrete import descent
from hashzoo_plugins.shallow.ridge import ridge


def solve(b: Tensor, u: Tensor, y: Tensor, mu: float, nu: float, eta: float, sweeps: int) -> tuple[Tensor, Tensor]:
    """One round: W (K, C) and the next B (n, K) from B, U (n, K) and Y (n, C); never raises :func:`objective`."""
    w = ridge(b, y, nu / mu)
    return w, descent(b, y @ w.T + eta / mu * u, w, sweeps)


def objective(b: Tensor, u: Tensor, y: Tensor, w: Tensor, mu: float, nu: float, eta: float) -> Tensor:
    """mu |Y - B W|^2 + nu |W|^2 + eta |B - U|^2."""
    return mu * (y - b @ w).square().sum() + nu * w.square().sum() + eta * (b - u).square().sum()


class TowardCodes(Loss):
    """Likelihood of pairs, and the distance to given codes, a table (pool, K) by id; rows without a code are 0."""

    codes: Tensor

    def __init__(self, setting: Setting, *, eta: float) -> None:
        super().__init__()
        self.eta = eta
        self.register_buffer("codes", torch.zeros(setting.pool, setting.bits), persistent=False)

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Terms ``pair`` and ``quantization`` of (B, K) codes. ValueError for a batch of one."""
        pairs.require("dsdh", batch)
        u = output.code
        pair = pairs.upper(half_likelihood(u, batch.similar))  # (P,)
        given = self.codes[batch.ids].to(u)
        b = torch.where(given == 0, signs(u).detach(), given)
        return {"pair": pair.mean(), "quantization": self.eta * (b - u).square().sum(1).mean()}


class DSDH(Deep):
    """Deep Supervised Discrete Hashing: pairs and discrete codes that predict the labels (Li et al., NeurIPS 2017)."""

    loss: TowardCodes
    card = Card("deep", "classes", paper="Li et al., NeurIPS 2017", year=2017)

    def __init__(
        self,
        setting: Setting,
        backbone: Backbone,
        *,
        mu: Annotated[float, Log(1e-4, 1)] = 0.01,
        nu: Annotated[float, Log(0.01, 100)] = 1.0,
        eta: Annotated[float, Log(1e-4, 1)] = 0.01,
        sweeps: int = 10,
    ) -> None:
        super().__init__(backbone, Linear(setting, backbone), TowardCodes(setting, eta=eta))
        self.mu, self.nu, self.eta, self.sweeps = mu, nu, eta, sweeps

    def fit(self, train: Split, run: Run) -> None:
        """Alternate between an epoch of the network and an update of the codes."""
        table = self.loss.codes
        u = torch.zeros_like(table)  # the latest output of each image
        optimizer = run.optimizer(self.backbone, self.head)
        for batch in run.batches(train):
            output = self.head(self.backbone(batch.images))
            run.step(optimizer, self.loss(output, batch))
            u[batch.ids] = output.code.detach()
            if batch.ends_epoch:
                ids, labels = train.ids.to(u.device), train.labels.to(u)
                b = torch.where(table[ids] == 0, signs(u[ids]), table[ids])
                _, table[ids] = solve(b, u[ids], labels, self.mu, self.nu, self.eta, self.sweeps)
