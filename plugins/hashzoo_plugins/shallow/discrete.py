"""Steps over codes that stay in {-1, +1}."""

from __future__ import annotations

import torch
from torch import Tensor

from hashzoo import signs


def kept(x: Tensor, old: Tensor, small: float = 0.0) -> Tensor:
    """sgn(x), and where |x| is at most ``small`` the bit that was there before: both are equally good.

    >>> kept(torch.tensor([2.0, 0.0]), torch.tensor([-1.0, -1.0]))
    tensor([ 1., -1.])
    """
    return torch.where(x.abs() <= small, old, signs(x))


def descent(b: Tensor, q: Tensor, w: Tensor, sweeps: int) -> Tensor:
    """Discrete cyclic coordinate descent of |B W|^2 - 2 tr(B'Q) over codes, from ``b``; (N, K), new.

    With ``b`` and ``q`` (N, K) and ``w`` (K, C), bit k of all rows is solved for while the others stay:
    b_k = sgn(q_k - B_\\k W_\\k w_k'). No update raises the objective; sweeps end early when none changes a bit.

    >>> descent(torch.tensor([[1.0, 1.0]]), torch.tensor([[-1.0, 0.0]]), torch.eye(2), 10)
    tensor([[-1.,  1.]])
    """
    others = w @ w.T  # (K, K) w_j w_k'
    others.fill_diagonal_(0.0)
    columns, targets = b.T.contiguous(), q.T  # (K, N): a bit of all rows lies together
    for _ in range(sweeps):
        before = columns.clone()
        for k in range(len(columns)):
            columns[k] = kept(targets[k] - others[k] @ columns, columns[k])
        if torch.equal(before, columns):
            break
    return columns.T.contiguous()
