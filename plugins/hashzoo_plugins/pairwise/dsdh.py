"""Deep Supervised Discrete Hashing (Li, Sun, He & Tan, NeurIPS 2017).

The likelihood of pairs trains the network; beside it stand binary codes of the training images, from which the
labels must be linearly readable, found by discrete cyclic coordinate descent. Both are drawn to each other.

    loss on the network, B fixed:  mean over i < j of softplus(theta_ij) - s_ij theta_ij,  theta_ij = <u_i, u_j> / 2
                                   + eta mean over i of |b_i - u_i|^2
    objective on the codes, U fixed:  mu |Y - B W|^2 + nu |W|^2 + eta |B - U|^2,  B in {-1, 1}^(n x K)
    W = (B'B + nu / mu I)^-1 B'Y;  b_k by descent with Q = Y W' + eta / mu U
    u = W f + v  (B, K);  code = sgn(u)

Resolved: eta weighs a mean over images against a mean over pairs. As sums over all n training images, as they are
printed, the weight would be eta / n, 2e-6 for 5,000 images: the codes would not reach the network, and no bit would
differ from those of DPSH with the same weight (measured on the images of the plugin contract; as means 0.9 % of them
do, and 5 to 10 % with mu from 0.1 to 1). The codes are solved anew after every epoch, from the values of U that the
epoch's batches gave; until an image has been seen, its code is the sign of its own u. Rows are samples here, columns
in the paper.

Public code: a port leaves the classification without any way to the network, and drops eta |B - U|^2, so that it trains
DPSH under another name.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hashzoo import Backbone, Batch, Card, Deep, Output, Run, Setting, Split, signs
from hashzoo_plugins.heads.linear import Linear
from hashzoo_plugins.pairwise import pairs
from hashzoo_plugins.pairwise.dpsh import half_likelihood
from hashzoo_plugins.shallow.discrete import descent
from hashzoo_plugins.shallow.ridge import ridge


def solve(b: Tensor, u: Tensor, y: Tensor, mu: float, nu: float, eta: float, sweeps: int) -> tuple[Tensor, Tensor]:
    """W (K, C) and the next B (n, K), from B, U (n, K) and Y (n, C): one round, never raising :func:`objective`."""
    w = ridge(b, y, nu / mu)
    return w, descent(b, y @ w.T + eta / mu * u, w, sweeps)


def objective(b: Tensor, u: Tensor, y: Tensor, w: Tensor, mu: float, nu: float, eta: float) -> Tensor:
    """mu |Y - B W|^2 + nu |W|^2 + eta |B - U|^2."""
    return mu * (y - b @ w).square().sum() + nu * w.square().sum() + eta * (b - u).square().sum()


class TowardCodes(nn.Module):
    """Likelihood of pairs and the distance to codes given by image, in a table (pool, K); 0 where there is none."""

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
        mu: float = 0.01,
        nu: float = 1.0,
        eta: float = 0.01,
        sweeps: int = 10,
    ) -> None:
        super().__init__(backbone, Linear(backbone, setting), TowardCodes(setting, eta=eta))
        self.mu, self.nu, self.eta, self.sweeps = mu, nu, eta, sweeps

    def fit(self, train: Split, run: Run) -> None:
        """Network and codes in turn, an epoch each."""
        table = self.loss.codes
        u = torch.zeros_like(table)  # what each image's output was when it was last seen
        optimizer = run.optimizer(self.backbone, self.head)
        for batch in run.batches(train):
            output = self.head(self.backbone(batch.images))
            run.step(optimizer, self.loss(output, batch))
            u[batch.ids] = output.code.detach()
            if batch.ends_epoch:
                ids, labels = train.ids.to(u.device), train.labels.to(u)
                b = torch.where(table[ids] == 0, signs(u[ids]), table[ids])
                _, table[ids] = solve(b, u[ids], labels, self.mu, self.nu, self.eta, self.sweeps)
