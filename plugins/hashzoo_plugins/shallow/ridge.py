"""Ridge regression in closed form, in chunks of rows."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 4096  # rows converted to float64 at once


def cross(x: Tensor, y: Tensor) -> Tensor:
    """X'Y (D, C) for (N, D) and (N, C), summed in float64."""
    total = torch.zeros(x.shape[1], y.shape[1], dtype=torch.float64, device=x.device)
    for a, b in zip(torch.split(x, CHUNK), torch.split(y, CHUNK), strict=True):
        total += a.double().T @ b.double()
    return total


def factor(x: Tensor, weight: float) -> Tensor:
    """The Cholesky factor L (D, D) of X'X + weight I = L L', in float64; the weight must be positive."""
    regularised = cross(x, x) + weight * torch.eye(x.shape[1], dtype=torch.float64, device=x.device)
    lower: Tensor = torch.linalg.cholesky(regularised)
    return lower


def solve(lower: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """(D, C) the regression of ``y`` (N, C) on ``x`` (N, D), where ``lower`` is :func:`factor` of ``x``."""
    return torch.cholesky_solve(cross(x, y), lower).to(x.dtype)


def ridge(x: Tensor, y: Tensor, weight: float) -> Tensor:
    """(X'X + weight I)^-1 X'Y (D, C): the W that minimizes |Y - X W|^2 + weight |W|^2.

    >>> ridge(torch.tensor([[1.0], [1.0]]), torch.tensor([[3.0], [3.0]]), 1.0)
    tensor([[2.]])
    """
    return solve(factor(x, weight), x, y)
