"""What losses over pairs of pictures share."""

from __future__ import annotations

import torch
from torch import Tensor


def upper(pairs: Tensor) -> Tensor:
    """The entries of a (B, B) table above its diagonal: each unordered pair once.

    >>> upper(torch.tensor([[1, 2, 3], [4, 5, 6], [7, 8, 9]]))
    tensor([2, 3, 6])
    """
    rows, columns = torch.triu_indices(len(pairs), len(pairs), 1, device=pairs.device)
    return pairs[rows, columns]


def contrastive(code: Tensor, similar: Tensor, margin: float) -> Tensor:
    """(B, B) squared distances of similar pairs, and what dissimilar ones lack to ``margin``.

    >>> contrastive(torch.tensor([[1.0], [-1.0]]), torch.eye(2), 6.0)
    tensor([[0., 2.],
            [2., 0.]])
    """
    distance = (code[:, None] - code[None]).square().sum(2)  # (B, B)
    return torch.where(similar > 0, distance, (margin - distance).clamp(min=0))
