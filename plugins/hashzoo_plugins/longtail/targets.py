"""Class targets: directions spread evenly over a sphere, and their assignment to classes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

SPREAD = 0.07  # temperature of the repulsion between targets
RATE = 1e-3  # learning rate of the descent that spreads them


def crowding(targets: Tensor) -> Tensor:
    """sum_i log sum_j e^{t_i t_j / 0.07} of targets (C, K), the objective of the spread."""
    return torch.logsumexp(targets @ targets.T / SPREAD, 1).sum()


def simplex(classes: int, bits: int, generator: torch.Generator) -> Tensor:
    """(C, K) corners of a regular simplex centered at 0, C <= K + 1, rotated at random: all cosines are -1 / (C - 1).

    >>> t = simplex(3, 2, torch.Generator().manual_seed(0))
    >>> (t @ t.T).round(decimals=3)[0]
    tensor([ 1.0000, -0.5000, -0.5000], dtype=torch.float64)
    """
    centered = torch.eye(classes, dtype=torch.float64) - 1 / classes
    corners = torch.linalg.svd(centered).U[
        :, : classes - 1
    ]  # (C, C - 1), an orthonormal basis of the complement of the ones vector
    turn = torch.linalg.qr(torch.randn(bits, bits, dtype=torch.float64, generator=generator)).Q
    return normalize(corners @ turn[: classes - 1], dim=1)


def descend(start: Tensor, steps: int) -> Tensor:
    """(C, K) targets after ``steps`` of Adam from ``start`` (C, K), which is normalized."""
    x = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([x], lr=RATE)
    for _ in range(steps):
        (x.grad,) = torch.autograd.grad(crowding(normalize(x, dim=1)) / len(x), x)
        optimizer.step()
    return normalize(x.detach(), dim=1)


def spread(classes: int, bits: int, steps: int, generator: torch.Generator) -> Tensor:
    """(C, K) targets: the regular simplex if the dimension allows it, else the result of the descent."""
    if classes <= bits + 1:
        return simplex(classes, bits, generator)
    return descend(torch.randn(classes, bits, dtype=torch.float64, generator=generator), steps)


def matched(centroids: Tensor, targets: Tensor) -> Tensor:
    """(C,) the target of each class: the assignment with the largest sum of inner products.

    >>> matched(torch.tensor([[1.0, 0.1], [0.9, 0.4]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    tensor([0, 1])
    """
    from scipy.optimize import linear_sum_assignment

    _, order = linear_sum_assignment((centroids @ targets.T).cpu().numpy(), maximize=True)
    return torch.from_numpy(order).to(centroids.device)
