"""What the linear methods share: codes as the signs of a centerd projection, and the directions of PCA."""

from __future__ import annotations

import torch
from torch import Tensor

from hashzoo import Backbone, Batch, Codes, Setting, bits


def encode(backbone: Backbone, mean: Tensor, projection: Tensor, batch: Batch) -> Codes:
    """sgn((f - mean) P): features (B, D), mean (D,), projection (D, K)."""
    return {"code": bits((backbone(batch.images).pooled - mean) @ projection)}


def require_dimensions(method: str, setting: Setting, backbone: Backbone) -> None:
    """ValueError where more bits are asked for than there are directions, one a feature."""
    if setting.bits > backbone.dim:
        raise ValueError(
            f"{method} takes at most as many bits as features: {setting.bits} bits asked, "
            f"{backbone.dim} features; ask for fewer bits or take a wider backbone"
        )


def leading(m: Tensor, count: int) -> Tensor:
    """The eigenvectors (D, count) of a symmetric matrix (D, D) with the largest eigenvalues, largest first.

    Each one's largest entry is positive, which an eigenvalue problem leaves open.

    >>> leading(torch.tensor([[1., 0.], [0., -3.]]), 2)
    tensor([[1., 0.],
            [0., 1.]])
    """
    vectors: Tensor = torch.linalg.eigh(m).eigenvectors[:, -count:].flip(1)  # eigh counts upwards
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))  # (1, count)
    return vectors * torch.where(largest < 0, -1.0, 1.0).to(vectors)


def principal(x: Tensor, count: int) -> Tensor:
    """The top ``count`` principal directions (D, count) of centerd rows (N, D).

    Each direction's largest entry is positive. ValueError where there are fewer rows than directions: the rest
    would be arbitrary.

    >>> principal(torch.tensor([[-2., 0.], [2., 0.], [0., 1.], [0., -1.]]), 1).T
    tensor([[1., 0.]])
    """
    if count > min(x.shape):
        raise ValueError(f"{count} principal directions need as many images and features; there are {len(x)}")
    wide = x.double()  # a covariance squares the condition: in single precision the small directions would be noise
    return leading(wide.T @ wide, count).to(x)
