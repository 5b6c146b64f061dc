"""Which training images a method learns from that cannot take all of them."""

from __future__ import annotations

import torch
from torch import Tensor


def sample(images: int, count: int, generator: torch.Generator) -> Tensor:
    """``count`` different rows out of ``images`` at random, or all of them where there are fewer.

    >>> sample(3, 1000, torch.Generator().manual_seed(0)).sort().values
    tensor([0, 1, 2])
    """
    return torch.randperm(images, generator=generator)[:count]
