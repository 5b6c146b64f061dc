"""Similarity matrices of training images."""

from __future__ import annotations

import torch
from torch import Tensor


def signed(a: Tensor, b: Tensor) -> Tensor:
    """(N, M) +1 if images with labels (N, C) and (M, C) share a label, else -1.

    >>> signed(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.0, 1.0]]))
    tensor([[-1.],
            [ 1.]])
    """
    return torch.where(a @ b.T > 0, 1.0, -1.0).to(a.dtype)


def balanced(s: Tensor) -> Tensor:
    """Signed similarities with -r in place of -1, where r = similar / dissimilar pairs, so that both have equal weight.

    r is at most 1. Without dissimilar pairs nothing changes.

    >>> balanced(torch.tensor([[1.0, -1.0, -1.0]]))
    tensor([[ 1.0000, -0.5000, -0.5000]])
    """
    alike = (s > 0).sum()
    ratio = (alike / (s.numel() - alike).clamp(min=1)).clamp(max=1.0).to(s)
    return torch.where(s > 0, s, ratio * s)
