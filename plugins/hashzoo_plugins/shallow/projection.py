"""What the linear methods share: codes as the signs of a centred projection, and the directions of PCA."""

from __future__ import annotations

import torch
from torch import Tensor

from hashzoo.method import Backbone, bits
from hashzoo.types import Batch, Codes, Setting


def encode(backbone: Backbone, mean: Tensor, projection: Tensor, batch: Batch) -> Codes:
    """sgn((f - mean) P): features (B, D), mean (D,), projection (D, K)."""
    return {"code": bits((backbone(batch.images).pooled - mean) @ projection)}


def require_dimensions(method: str, setting: Setting, backbone: Backbone) -> None:
    """ValueError where more bits are asked for than there are principal directions."""
    if setting.bits > backbone.dim:
        raise ValueError(
            f"{method} takes at most as many bits as features: {setting.bits} bits asked, "
            f"{backbone.dim} features; ask for fewer bits or take a wider backbone"
        )


def principal(x: Tensor, count: int) -> Tensor:
    """The top ``count`` principal directions (D, count) of centred rows (N, D).

    Each direction's largest entry is positive, which an SVD leaves open. ValueError where there are fewer rows
    than directions: the rest would be arbitrary.

    >>> principal(torch.tensor([[-2., 0.], [2., 0.], [0., 1.], [0., -1.]]), 1).T
    tensor([[1., 0.]])
    """
    if count > min(x.shape):
        raise ValueError(f"{count} principal directions need as many pictures and features; there are {len(x)}")
    directions = torch.linalg.svd(x, full_matrices=False).Vh[:count].T  # (D, count)
    largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))  # (1, count)
    return directions * torch.where(largest < 0, -1.0, 1.0)
