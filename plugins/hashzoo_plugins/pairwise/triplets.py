"""Shared by losses over triplets of images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def triplets(similar: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows (T,) of all triplets of a batch: a query, another image similar to it, and a dissimilar one.

    >>> [rows.tolist() for rows in triplets(torch.tensor([[1.0, 1, 0], [1, 1, 0], [0, 0, 1]]))]
    [[0, 1], [1, 0], [2, 2]]
    """
    query, near, far = torch.nonzero(ordered(similar), as_tuple=True)
    return query, near, far


def ordered(similar: Tensor) -> Tensor:
    """(B, B, B) bool: whether three images are a triplet: a query, another one similar to it, and a dissimilar one."""
    alike = (similar > 0) & ~torch.eye(len(similar), dtype=torch.bool, device=similar.device)
    return alike[:, :, None] & ~(similar > 0)[:, None, :]


def mean_over(term: Callable[[Tensor, Tensor], Tensor], values: Tensor, similar: Tensor) -> Tensor:
    """The mean over all triplets of ``term(x_qp, x_qn)``, for values x (B, B) of pairs; 0 without triplets.

    On a GPU the term is computed for all B^3 triples, and has weight 0 where they are no triplet: to list the triplets,
    every step would wait for their number.

    >>> similar = torch.tensor([[1.0, 1, 0], [1, 1, 0], [0, 0, 1]])
    >>> mean_over(torch.sub, torch.arange(9.0).view(3, 3), similar)  # (1 - 2 + 3 - 5) / 2
    tensor(-1.5000)
    """
    if values.device.type == "cpu":
        query, near, far = triplets(similar)
        return term(values[query, near], values[query, far]).mean() if len(query) else values.sum() * 0
    valid = ordered(similar)
    terms = torch.where(valid, term(values[:, :, None], values[:, None]), 0.0)
    return terms.sum() / valid.sum().clamp(min=1)
