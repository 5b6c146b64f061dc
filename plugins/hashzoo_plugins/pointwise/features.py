"""What losses without labels compare codes with: the features of the same images."""

from __future__ import annotations

from torch import Tensor

from hashzoo import Output
from hashzoo_plugins.pairwise.pairs import cosines, upper


def read(method: str, output: Output, center: bool) -> Tensor:
    """The features (B, D) that the head has read, without gradient: they are what is matched.

    ``center`` takes the batch's mean off: of features that are never negative no two point away from each other, and
    codes that all agree would match them. ValueError for a head that does not hand them on.
    """
    if "features" not in output.extra:
        raise ValueError(f"{method} compares codes with features: take a head that hands them on, such as linear")
    features = output.extra["features"].detach()
    return features - features.mean(0) if center else features


def mismatch(codes: Tensor, features: Tensor) -> Tensor:
    """The mean over unordered pairs of the squared difference between cosines of codes (B, K) and of features (B, D).

    >>> import torch
    >>> mismatch(torch.tensor([[1.0, 1], [1, -1]]), torch.tensor([[1.0, 0], [1, 0]]))
    tensor(1.)
    """
    return upper(cosines(codes) - cosines(features)).square().mean()
