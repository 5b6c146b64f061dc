"""How methods made to classify become hashes: what is put between their network and their heads.

Of tanh codes h (B, K), which the classifier and the projection read, and of which the sign is stored.
"""

from __future__ import annotations

from torch import Tensor, nn

from hashzoo import Setting
from hashzoo_plugins.quantization import gap


def require_one_label(name: str, setting: Setting) -> None:
    """ValueError for images with several labels."""
    if setting.multilabel:
        raise ValueError(f"{name} counts each image for one class; use a dataset with one label an image")


def quantization(code: Tensor) -> Tensor:
    """mean (|h| - 1)^2 of codes of any shape.

    >>> import torch
    >>> quantization(torch.tensor([1.0, -0.5, 0.0, -1.0]))
    tensor(0.3125)
    """
    return gap(code).square().mean()


def projection(bits: int) -> nn.Sequential:
    """The perceptron K -> K -> K whose output the contrastive terms compare."""
    return nn.Sequential(nn.Linear(bits, bits), nn.ReLU(), nn.Linear(bits, bits))
