"""Shared by losses over pairs of images."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize, softplus

from hashzoo import Batch

SMALL = 1e-6  # lower bound of the norm of a code, so that its direction has a finite gradient


def require(method: str, batch: Batch) -> None:
    """Raise ValueError for a batch of one image, which has no pair."""
    if len(batch) < 2:
        raise ValueError(f"{method} learns from pairs: a batch needs at least two images")


def upper(pairs: Tensor) -> Tensor:
    """The entries of a (B, B) matrix above the diagonal: each unordered pair once.

    >>> upper(torch.tensor([[1, 2, 3], [4, 5, 6], [7, 8, 9]]))
    tensor([2, 3, 6])
    """
    rows, columns = torch.triu_indices(len(pairs), len(pairs), 1, device=pairs.device)
    return pairs[rows, columns]


def contrastive(code: Tensor, similar: Tensor, margin: float) -> Tensor:
    """(B, B) squared distances of similar pairs, and max(0, ``margin`` - squared distance) of dissimilar ones.

    >>> contrastive(torch.tensor([[1.0], [-1.0]]), torch.eye(2), 6.0)
    tensor([[0., 2.],
            [2., 0.]])
    """
    distance = (code[:, None] - code[None]).square().sum(2)  # (B, B)
    return torch.where(similar > 0, distance, (margin - distance).clamp(min=0))


def likelihood(theta: Tensor, similar: Tensor) -> Tensor:
    """-log p(s | theta) for labels s of 0 and 1 and log-odds theta of any shape: softplus(theta) - s theta.

    >>> likelihood(torch.tensor([0.0, 1e3]), torch.tensor([1.0, 1.0]))
    tensor([0.6931, 0.0000])
    """
    return softplus(theta) - similar * theta


def balance(similar: Tensor) -> Tensor:
    """(P,) weights |S| / |S_1| of similar pairs and |S| / |S_0| of the others, so that both have equal total weight.

    If all pairs are similar, or none is, the weights are 1.

    >>> balance(torch.tensor([1.0, 0, 0, 0])), balance(torch.tensor([1.0, 1]))
    (tensor([4.0000, 1.3333, 1.3333, 1.3333]), tensor([1., 1.]))
    """
    alike = similar.sum()
    other = len(similar) - alike
    return len(similar) * torch.where(similar > 0, 1 / alike.clamp(min=1), 1 / other.clamp(min=1))


def jaccard(labels: Tensor) -> Tensor:
    """(B, B) Jaccard indices of the label sets of two images, for labels (B, C); 0 if both sets are empty.

    >>> jaccard(torch.tensor([[1.0, 1, 0], [1, 1, 1]]))[0]
    tensor([1.0000, 0.6667])
    """
    shared, size = labels @ labels.T, labels.sum(1)
    return shared / (size[:, None] + size[None] - shared).clamp(min=1)


def cosines(code: Tensor) -> Tensor:
    """(B, B) cosines of relaxed codes (B, K), with a finite gradient at a code of zeros.

    >>> cosines(torch.tensor([[2.0, 0], [1, 1]]))[0]
    tensor([1.0000, 0.7071])
    """
    direction = normalize(code, dim=1, eps=SMALL)
    return direction @ direction.T
