"""The features that losses without labels compare codes with."""

from __future__ import annotations

from torch import Tensor

from hashzoo import Output
from hashzoo_plugins.pairwise.pairs import cosines, upper


def read(method: str, output: Output, center: bool) -> Tensor:
    """The input features (B, D) of the head, without gradient.

    ``center`` subtracts the mean of the batch: no two non-negative features point in opposite directions, so that equal
    codes would match them. Raises ValueError if the head does not return its features.
    """
    if "features" not in output.extra:
        raise ValueError(f"{method} needs a head that returns its features, such as linear")
    features = output.extra["features"].detach()
    return features - features.mean(0) if center else features


def mismatch(codes: Tensor, features: Tensor) -> Tensor:
    """The squared difference between cosines of codes (B, K) and of features (B, D), mean over unordered pairs.

    >>> import torch
    >>> mismatch(torch.tensor([[1.0, 1], [1, -1]]), torch.tensor([[1.0, 0], [1, 0]]))
    tensor(1.)
    """
    return upper(cosines(codes) - cosines(features)).square().mean()
