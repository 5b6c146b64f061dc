"""Samplers that favor small classes, and the schedule that shifts training from one sampler to another."""

from __future__ import annotations

import torch
from torch import Tensor


def balanced(counts: Tensor) -> Tensor:
    """(C,) class probabilities, equal for all classes with images.

    >>> balanced(torch.tensor([8, 2, 0]))
    tensor([0.5000, 0.5000, 0.0000], dtype=torch.float64)
    """
    present = (counts > 0).double()
    return present / present.sum()


def inverse(counts: Tensor) -> Tensor:
    """(C,) class probabilities of the reversed sampler: w_c / sum w, w_c = n_max / n_c; 0 for a class without images.

    >>> inverse(torch.tensor([8, 2, 0]))
    tensor([0.2000, 0.8000, 0.0000], dtype=torch.float64)
    """
    w = torch.where(counts > 0, counts.max() / counts.clamp(min=1).double(), 0.0)
    return w / w.sum()


def weights(labels: Tensor, probabilities: Tensor) -> Tensor:
    """(N,) weights for ``run.batches``: classes have these probabilities (C,), images of a class equal weights.

    >>> weights(torch.eye(2)[[0, 0, 1]], torch.tensor([0.4, 0.6]))
    tensor([0.2000, 0.2000, 0.6000])
    """
    return (probabilities / labels.sum(0).clamp(min=1))[labels.argmax(1)]


def share(progress: float) -> float:
    """alpha = 1 - p^2, the weight of the uniform sampler at training progress p.

    >>> share(0.0), share(0.5), share(1.0)
    (1.0, 0.75, 0.0)
    """
    return 1 - progress**2
