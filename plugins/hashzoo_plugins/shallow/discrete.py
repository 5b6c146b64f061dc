"""Optimization steps for codes that stay in {-1, +1}."""

from __future__ import annotations

import torch
from torch import Tensor

from hashzoo import signs


def kept(x: Tensor, old: Tensor, small: float = 0.0) -> Tensor:
    """sgn(x), but the old bit if |x| is at most ``small``, since both are then equally good.

    >>> kept(torch.tensor([2.0, 0.0]), torch.tensor([-1.0, -1.0]))
    tensor([ 1., -1.])
    """
    return torch.where(x.abs() <= small, old, signs(x))


def descent(b: Tensor, q: Tensor, w: Tensor, sweeps: int) -> Tensor:
    """Discrete cyclic coordinate descent of |B W|^2 - 2 tr(B'Q) over codes, from ``b``; returns new codes (N, K).

    With ``b`` and ``q`` (N, K) and ``w`` (K, C), bit k of all rows is solved for while the other bits are fixed:
    b_k = sgn(q_k - B_\\k W_\\k w_k'). No update raises the objective; the descent ends early
    if a sweep changes nothing.

    >>> descent(torch.tensor([[1.0, 1.0]]), torch.tensor([[-1.0, 0.0]]), torch.eye(2), 10)
    tensor([[-1.,  1.]])
    """
    others = w @ w.T  # (K, K) w_j w_k'
    others.fill_diagonal_(0.0)
    columns, targets = b.T.contiguous(), q.T  # (K, N): one bit of all rows is contiguous
    for _ in range(sweeps):
        before = columns.clone()
        for k in range(len(columns)):
            columns[k] = kept(targets[k] - others[k] @ columns, columns[k])
        if torch.equal(before, columns):
            break
    return columns.T.contiguous()
