"""RBF features on anchors: an image is represented by its similarity to a sample of the training images."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

CHUNK = 4096  # rows whose distances are computed in float64 at once


def draw(x: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """``count`` of the rows (N, D), without replacement; all rows, in random order, if there are fewer."""
    return x[torch.randperm(len(x), generator=generator)[:count].to(x.device)]


def padded(rows: Tensor, count: int) -> Tensor:
    """The rows (n, ...), padded with zeros to (count, ...).

    Buffers get their shape before the training set is known. The coefficients of missing anchors are zero, so their
    features have no effect.

    >>> padded(torch.ones(1, 2), 2)
    tensor([[1., 1.],
            [0., 0.]])
    """
    return torch.cat([rows, rows.new_zeros(count - len(rows), *rows.shape[1:])])


def squared_distances(x: Tensor, anchors: Tensor) -> Tensor:
    """(N, m) squared Euclidean distances of rows (N, D) to anchors (m, D), in the dtype of ``x``.

    >>> squared_distances(torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 4.0], [3.0, 0.0]]))
    tensor([[25.,  0.]])
    """
    a = anchors.double()
    norms = a.square().sum(1)  # (m,)
    distances = x.new_empty(len(x), len(anchors))
    for rows, out in zip(torch.split(x, CHUNK), torch.split(distances, CHUNK), strict=True):
        r = rows.double()  # in float32, |r|^2 - 2 <r, a> + |a|^2 cancels for r near a
        out.copy_((r.square().sum(1, keepdim=True) - 2 * r @ a.T + norms).clamp(min=0))
    return distances


def rbf(x: Tensor, anchors: Tensor, scale: Tensor | float) -> Tensor:
    """(N, m) exp(-|x - a|^2 / scale) of rows (N, D) and anchors (m, D)."""
    return squared_distances(x, anchors).div_(-scale).exp_()


def lifted(x: Tensor, anchors: Tensor, width: float) -> Tensor:
    """(N, 1 + m) a bias and exp(-|x - a|^2 / (2 width^2)), of rows (N, D) scaled to unit length, like the anchors.

    >>> lifted(torch.tensor([[0.0, 7.0]]), torch.tensor([[0.0, 1.0], [0.0, -1.0]]), 0.5)
    tensor([[1.0000e+00, 1.0000e+00, 3.3546e-04]])
    """
    return pad(rbf(normalize(x), anchors, 2 * width**2), (1, 0), value=1.0)
