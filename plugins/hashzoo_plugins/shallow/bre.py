"""Learning to Hash with Binary Reconstructive Embeddings (Kulis & Darrell, NIPS 2009).

Hamming distances reconstruct the distances of the data. Each bit is the sign of a weighted sum of kernel values to a
few random anchors; coordinate descent sets one weight at a time to the value of least error.

    x centered and of unit length,  kappa(a, x) = <a, x>
    h_k(x) = [sum_q W_kq kappa(x_kq, x) >= 0]
    d_ij = |x_i - x_j|^2 / 2,  or 0 / 1 for a pair that shares a label or not
    d'_ij = 1/K sum_k (h_k(x_i) - h_k(x_j))^2
    minimize over W (K, s):  sum over i < j of (d_ij - d'_ij)^2

With signs s_k = 2 h_k - 1 (l,), the bits other than k leave the matrix A = K (1 - 2 d) - sum over m != k of s_m s_m',
its diagonal 0, and the objective is a constant minus s_k' A s_k / (4 K^2). As one weight goes from minus to plus
infinity, each point's sign flips once, where its sum is 0; between these breakpoints the objective is constant. One
pass over the flips gives all values of the objective, and so the exact best interval.

Resolved: formulas from memory (unverified). ``points`` training images are drawn by seed, since time and memory are
quadratic in their number, and all their pairs count; the anchors of each bit are drawn among them. The weight is set
to the middle of its interval. Coordinate descent ends after ``sweeps`` or when a sweep changes nothing. With a linear
kernel each bit is one direction, which is what is stored. ``supervised`` uses distances of labels instead of those of
the data, and marks the row.

d is at most 2 (opposite points) but d' at most 1, a mismatch of scale; ``halved`` halves d. On ``digits.standard`` this
does not help: map@all at 32 bits is 0.63, halved 0.59, supervised 0.75 (``lsh`` 0.50, ``itq`` 0.65).

Cite: kulis2009bre
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from hashzoo import Backbone, Batch, Card, Choice, Codes, Integer, Method, Run, Setting, Split, signs
from hashzoo_plugins.shallow import projection, similarity
from hashzoo_plugins.shallow.labelled import sample

SMALL = 1e-3  # standard deviation of the initial weights


def objective(s: Tensor, d: Tensor) -> float:
    """The sum over i < j of (d_ij - d'_ij)^2 for signs (l, K) and distances (l, l).

    >>> objective(torch.tensor([[1.0, 1], [-1, 1]]), torch.tensor([[0.0, 1], [1, 0]]))
    0.25
    """
    found = (s.shape[1] - s @ s.T) / (2 * s.shape[1])  # (l, l) d'
    return float((d - found).square().triu(1).sum())


@njit(cache=True)
def times(a: NDArray, s: NDArray) -> NDArray:  # type: ignore[type-arg]
    """A s (l,) for a symmetric A (l, l), on one thread: for a thousand points, threads cost more than they save."""
    out = np.zeros(len(s))
    for i in range(len(s)):
        out += s[i] * a[i]
    return out


@njit(cache=True)
def flips(a: NDArray, s: NDArray, order: NDArray) -> NDArray:  # type: ignore[type-arg]
    """The cumulative gains (m,) of s' A s after the first 1 .. m flips of the signs s (l,) in ``order`` (m,).

    A (l, l) has a zero diagonal; ``s`` is changed in place. A flip of s_i adds -4 s_i (A s)_i.
    """
    slope = times(a, s)
    gains = np.empty(len(order))
    total = 0.0
    for m, i in enumerate(order):
        total -= 4 * s[i] * slope[i]
        gains[m] = total
        s[i] = -s[i]
        slope += 2 * s[i] * a[i]
    return gains


def agreement(a: Tensor, s: Tensor) -> float:
    """s' A s for signs (l,) and a symmetric A (l, l)."""
    return float(s.numpy() @ times(a.numpy(), s.numpy()))


def best_weight(a: Tensor, rest: Tensor, kappa: Tensor) -> float:
    """A w that maximizes s' A s for s = sgn(rest + w kappa); A (l, l) has a zero diagonal, the others are (l,).

    All are float64 on the CPU, and kappa is not all 0.

    >>> best_weight(torch.tensor([[0.0, 1], [1, 0]]).double(), torch.tensor([1.0, -3]).double(), torch.ones(2).double())
    -1.5
    """
    moves = kappa != 0
    s = torch.where(moves, -signs(kappa), signs(rest))  # (l,) at w = minus infinity
    at = torch.where(moves, -rest / kappa, torch.inf)  # (l,) where each sign flips
    order = at.argsort(stable=True)[: int(moves.sum())]  # (m,)
    gains = torch.from_numpy(flips(a.numpy(), s.numpy(), order.numpy()))  # (m,)
    at = at[order]
    low, high = torch.cat([at[:1] - 1, at]), torch.cat([at, at[-1:] + 1])  # (m + 1,) the intervals
    middle = (low + high) / 2
    inside = (low < middle) & (middle < high)  # points that flip together leave an empty interval
    value = torch.where(inside, torch.cat([gains.new_zeros(1), gains]), -torch.inf)
    return float(middle[value.argmax()])


def sweep(kappa: Tensor, t: Tensor, weights: Tensor) -> bool:
    """Set each weight (K, s) in turn to the value of least error, in place; return whether any changed.

    ``kappa`` (K, l, s) holds the kernel values of the points and each bit's anchors, ``t`` (l, l) the target inner
    products K (1 - 2 d) of the signs.
    """
    moved = False
    s = codes(kappa, weights)  # (l, K)
    left = t - s @ s.T  # (l, l)
    for k, (columns, w) in enumerate(zip(kappa, weights, strict=True)):
        a = (left + s[:, k, None] * s[:, k]).fill_diagonal_(0)
        value = agreement(a, s[:, k])
        for q in range(len(w)):
            if not columns[:, q].any():
                continue  # this anchor is the mean
            other = w.clone()
            other[q] = 0
            other[q] = best_weight(a, columns @ other, columns[:, q])
            bit = signs(columns @ other)
            reached = agreement(a, bit)
            if reached > value:
                w[q], s[:, k], value, moved = other[q], bit, reached, True
        left = a - s[:, k, None] * s[:, k]
    return moved


def codes(kappa: Tensor, weights: Tensor) -> Tensor:
    """Signs (l, K) of the kernel values (K, l, s) weighted by (K, s)."""
    return signs((kappa @ weights[:, :, None])[:, :, 0].T)


class BRE(Method):
    """Bits whose Hamming distances reconstruct those of the data, weight by weight (Kulis & Darrell, NIPS 2009)."""

    card = Card("shallow", "none", paper="Kulis & Darrell, NIPS 2009", year=2009)

    def __init__(
        self,
        setting: Setting,
        backbone: Backbone,
        *,
        points: int = 1000,
        anchors: Annotated[int, Integer(5, 100, log=True)] = 20,
        sweeps: Annotated[int, Integer(1, 10)] = 5,
        supervised: bool = False,
        halved: Annotated[bool, Choice(False, True)] = False,
    ) -> None:
        super().__init__()
        if points < 2 or anchors < 1 or sweeps < 1:
            raise ValueError(f"bre needs points >= 2, anchors >= 1 and sweeps >= 1, not {points}, {anchors}, {sweeps}")
        if supervised and halved:
            raise ValueError("bre: halved applies to the distances of the data; leave it out with supervised")
        self.backbone, self.bits = backbone, setting.bits
        self.points, self.anchors, self.sweeps = points, anchors, sweeps
        self.supervised, self.halved = supervised, halved
        self.mark = "learned from labels" if supervised else ""
        self.register_buffer("mean", torch.zeros(backbone.dim))
        self.register_buffer("projection", torch.zeros(backbone.dim, setting.bits))

    def fit(self, train: Split, run: Run) -> None:
        """Coordinate descent on the weights of random anchors."""
        f = run.features(self.backbone, train).pooled  # (N, D)
        self.mean = f.mean(0)
        rows = sample(len(f), self.points, run.generator)  # (l,)
        x = normalize((f[rows] - self.mean).double().cpu(), dim=1)  # (l, D)
        if self.supervised:
            y = train.labels[rows].to(x)
            d = (1 - similarity.signed(y, y)) / 2  # (l, l)
        else:
            d = (1 - x @ x.T) * (0.5 if self.halved else 1)  # |x - y|^2 / 2 at unit length
        chosen = [sample(len(x), self.anchors, run.generator) for _ in range(self.bits)]
        kappa = torch.stack([x @ x[q].T for q in chosen])  # (K, l, s)
        weights = SMALL * torch.randn(self.bits, kappa.shape[2], generator=run.generator).double()  # (K, s)
        for _ in range(self.sweeps):
            if not sweep(kappa, self.bits * (1 - 2 * d), weights):
                break
            run.log({"reconstruction": objective(codes(kappa, weights), d)})
        self.projection = torch.stack([x[q].T @ w for q, w in zip(chosen, weights, strict=True)], 1).to(f)  # (D, K)

    def encode(self, batch: Batch) -> Codes:
        """sgn(sum_q W_q <x_q, f - mean>); the norm of f - mean does not change the sign."""
        return projection.encode(self.backbone, self.mean, self.projection, batch)
