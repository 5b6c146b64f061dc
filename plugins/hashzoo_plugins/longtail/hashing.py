"""Parts that adapt a classification method to hashing: layers and terms between its network and its heads.

The classifier and the projection read tanh codes h (B, K), whose signs are stored.
"""

from __future__ import annotations

from torch import Tensor, nn

from hashzoo import Setting
from hashzoo_plugins.quantization import gap


def require_one_label(name: str, setting: Setting) -> None:
    """Raise ValueError for a dataset with several labels per image."""
    if setting.multilabel:
        raise ValueError(f"{name} needs exactly one label per image; use a single-label dataset")


def quantization(code: Tensor) -> Tensor:
    """The mean of (|h| - 1)^2 over codes of any shape.

    >>> import torch
    >>> quantization(torch.tensor([1.0, -0.5, 0.0, -1.0]))
    tensor(0.3125)
    """
    return gap(code).square().mean()


def projection(bits: int) -> nn.Sequential:
    """The projection head of the contrastive terms, a perceptron K -> K -> K."""
    return nn.Sequential(nn.Linear(bits, bits), nn.ReLU(), nn.Linear(bits, bits))
