"""Fewer images than features: directions are found among the combinations of the images, not among all features.

A direction orthogonal to every training image has no variance and no correlation, and a ridge regression gives it no
weight. So N coordinates hold all that the closed forms use of D features, and they solve a problem of N x N.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hashzoo_plugins.shallow import projection

#: Up to this many features, a D x D problem takes seconds, and is solved whatever the number of images.
WIDE = 2048


def coordinates(x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Coordinates (N, N) of rows (N, D) in an orthonormal basis, and the map of directions (N, K) to (D, K).

    They are in float64. With at least as many rows as features, or at most ``WIDE`` features, ``x`` itself is returned.

    >>> x = torch.tensor([[3.0, 4.0]]).repeat(1, WIDE)
    >>> found, back = coordinates(x)
    >>> found.shape, torch.allclose(found @ back(torch.eye(1)).T, x.double())
    (torch.Size([1, 1]), True)
    """
    if x.shape[1] <= max(len(x), WIDE):
        return x, lambda directions: directions
    basis = torch.linalg.qr(x.double().T).Q  # (D, N)
    return x.double() @ basis, lambda directions: basis @ directions.double()


def principal(x: Tensor, count: int) -> Tensor:
    """The top ``count`` principal directions (D, count) of centered rows (N, D), as :func:`projection.principal`."""
    found, back = coordinates(x)
    directions = back(projection.principal(found, count)).to(x)
    if found is x:
        return directions
    largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))  # (1, count) made positive here too
    return directions * torch.where(largest < 0, -1.0, 1.0).to(x)
