"""Shared by losses over triplets of images."""

from __future__ import annotations

import torch
from torch import Tensor


def triplets(similar: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows (T,) of all triplets of a batch: a query, another image similar to it, and a dissimilar one.

    >>> [rows.tolist() for rows in triplets(torch.tensor([[1.0, 1, 0], [1, 1, 0], [0, 0, 1]]))]
    [[0, 1], [1, 0], [2, 2]]
    """
    alike = (similar > 0) & ~torch.eye(len(similar), dtype=torch.bool, device=similar.device)
    query, near, far = torch.nonzero(alike[:, :, None] & ~(similar > 0)[:, None, :], as_tuple=True)
    return query, near, far
