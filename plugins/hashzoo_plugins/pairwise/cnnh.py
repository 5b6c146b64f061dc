"""Supervised Hashing for Image Retrieval via Image Representation Learning (Xia, Pan, Lai, Liu & Yan, AAAI 2014).

Two stages: coordinate descent finds codes of the training images from their similarity matrix alone; then a network
learns to predict these codes.

    stage 1:  min over H in [-1, 1]^(n x K) of  |S - H H' / K|^2,
              S = +1 similar, -1 not;  then B = sgn(H)
    stage 2:  mean binary cross-entropy between z = W f + v  (B, K),
              as log-odds, and the bits of B
    code = sgn(z)

Resolved: the matrix is n x n, so ``sample`` training images are used in both stages (all, if fewer). One entry changes
at a time, by a Newton step clipped to [-1, 1], in ten sweeps from a random start; a step that would raise the objective
is not taken. The additional class output of CNNH+ is not included. The defaults of the paper are unverified.

Public code: the codes of the first stage cannot learn from the network; the matrix has n^2 entries.

Cite: xia2014cnnh
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from hashzoo import Backbone, Batch, Card, Deep, Integer, Loss, Output, Run, Setting, Split
from hashzoo_plugins.heads.linear import Linear


@njit(cache=True)
def sweep(h: NDArray, residual: NDArray, before: NDArray) -> None:  # type: ignore[type-arg]
    """One pass over the entries of a column h (n,) in place: each a Newton step on |R - h h'|^2, clipped, or none.

    In one entry t the objective is t^4 + 2 (A - R_ii) t^2 - 4 G t + const, with A = sum of the other h^2 and
    G = sum over the others of h_l R_il. R is the ``residual`` - b b' + h h' with the column ``before`` b, which is
    solved, and h as given: the pass that reads a row of this large matrix also changes it.
    """
    given = h.copy()
    total = (h * h).sum()
    for i in range(len(h)):
        row = residual[i]
        for j in range(len(h)):
            row[j] = row[j] - before[i] * before[j] + given[i] * given[j]
        t = h[i]
        a = total - t * t
        g = row @ h - row[i] * t
        curve = a - row[i]
        slope = 4 * (t**3 + curve * t - g)
        bend = 4 * (3 * t * t + curve)
        end = 1.0 if g >= 0 else -1.0  # the better end of the interval, if it holds no minimum
        new = min(1.0, max(-1.0, t - slope / bend)) if bend > 0 else end
        if new**4 + 2 * curve * new**2 - 4 * g * new <= t**4 + 2 * curve * t**2 - 4 * g * t:
            h[i] = new
            total = a + new * new


def decompose(similar: Tensor, bits: int, sweeps: int, generator: torch.Generator) -> tuple[Tensor, list[float]]:
    """H (n, K) in [-1, 1] with H H' / K close to S = 2 s - 1, s (n, n) of 0 and 1; and |S - H H' / K|^2 per sweep."""
    s = (2 * similar.double() - 1).numpy()
    h = (2 * torch.rand(len(s), bits, generator=generator, dtype=torch.float64) - 1).numpy()
    residual = bits * s - h @ h.T
    path = [squares(residual) / bits**2]
    for _ in range(sweeps):
        column = np.zeros(len(s))
        for k in range(bits):
            before, column = column, h[:, k].copy()
            sweep(column, residual, before)
            h[:, k] = column
        residual -= column[:, None] * column
        path.append(squares(residual) / bits**2)
    return torch.from_numpy(h), path


def squares(x: NDArray[np.float64]) -> float:
    """The sum of the squared entries."""
    return float(np.vdot(x, x))


class Given(Loss):
    """Binary cross-entropy between outputs and given codes, a table (pool, K) of 0 and 1 by image id."""

    bits: Tensor

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.register_buffer("bits", torch.zeros(setting.pool, setting.bits), persistent=False)

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """The term ``bits`` of (B, K) log-odds."""
        return {"bits": binary_cross_entropy_with_logits(output.code, self.bits[batch.ids].to(output.code))}


class CNNH(Deep):
    """CNNH: codes by factoring the similarity matrix, then a network that predicts them (Xia et al., AAAI 2014)."""

    loss: Given
    card = Card("deep", "pairs", paper="Xia et al., AAAI 2014", year=2014)

    def __init__(
        self,
        setting: Setting,
        backbone: Backbone,
        *,
        sweeps: Annotated[int, Integer(2, 30, log=True)] = 10,
        sample: int = 5000,
    ) -> None:
        super().__init__(backbone, Linear(setting, backbone), Given(setting))
        self.bits, self.sweeps, self.sample = setting.bits, sweeps, sample

    def fit(self, train: Split, run: Run) -> None:
        """Compute the codes, then train the network."""
        if len(train) > self.sample:
            train = train.take(torch.randperm(len(train), generator=run.generator)[: self.sample].sort().values)
        similar = (train.labels @ train.labels.T > 0).float()
        h, path = decompose(similar, self.bits, self.sweeps, run.generator)
        run.log({"stage 1": path[-1]})
        self.loss.bits[train.ids] = (h >= 0).to(self.loss.bits)
        super().fit(train, run)
