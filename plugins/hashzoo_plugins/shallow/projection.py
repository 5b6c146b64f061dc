"""Shared by the linear methods: codes as the signs of a centered projection, and the directions of PCA."""

from __future__ import annotations

import torch
from torch import Tensor

from hashzoo import Backbone, Batch, Codes, Setting, bits


def encode(backbone: Backbone, mean: Tensor, projection: Tensor, batch: Batch) -> Codes:
    """sgn((f - mean) P): features (B, D), mean (D,), projection (D, K)."""
    return {"code": bits((backbone(batch.images).pooled - mean) @ projection)}


def require_dimensions(method: str, setting: Setting, backbone: Backbone) -> None:
    """Raise ValueError if there are more bits than directions, one per feature."""
    if setting.bits > backbone.dim:
        raise ValueError(
            f"{method} needs at least as many features as bits: {setting.bits} bits, "
            f"{backbone.dim} features; use fewer bits or a wider backbone"
        )


def leading(m: Tensor, count: int) -> Tensor:
    """The eigenvectors (D, count) of a symmetric matrix (D, D) with the largest eigenvalues, largest first.

    Their signs are chosen so that the largest entry of each is positive.

    >>> leading(torch.tensor([[1., 0.], [0., -3.]]), 2)
    tensor([[1., 0.],
            [0., 1.]])
    """
    vectors: Tensor = torch.linalg.eigh(m).eigenvectors[:, -count:].flip(1)  # eigh sorts in ascending order
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))  # (1, count)
    return vectors * torch.where(largest < 0, -1.0, 1.0).to(vectors)


def principal(x: Tensor, count: int) -> Tensor:
    """The top ``count`` principal directions (D, count) of centered rows (N, D).

    The largest entry of each direction is positive. Raises ValueError if there are fewer rows than directions, since
    the rest would be arbitrary.

    >>> principal(torch.tensor([[-2., 0.], [2., 0.], [0., 1.], [0., -1.]]), 1).T
    tensor([[1., 0.]])
    """
    if count > min(x.shape):
        raise ValueError(
            f"{count} principal directions need at least as many images and features, but there are {len(x)} images"
        )
    wide = x.double()  # a covariance squares the condition number: in float32 the last directions would be noise
    return leading(wide.T @ wide, count).to(x)
