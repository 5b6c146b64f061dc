"""A sample of the training images, for methods that cannot use all of them."""

from __future__ import annotations

import torch
from torch import Tensor


def sample(images: int, count: int, generator: torch.Generator) -> Tensor:
    """``count`` distinct random rows of ``images``, or all rows if there are fewer.

    >>> sample(3, 1000, torch.Generator().manual_seed(0)).sort().values
    tensor([0, 1, 2])
    """
    return torch.randperm(images, generator=generator)[:count]
