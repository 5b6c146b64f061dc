"""Heatmaps of where a trained method looks in an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import interpolate

from hashzoo.backbone import Backbone
from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.method import Method
from hashzoo.registry.saved_method import TrainedMethod
from hashzoo.types import Batch


def compute_heatmaps(trained: TrainedMethod, images: Sequence[Image.Image]) -> tuple[Tensor, Tensor]:
    """Compute where a method looks in images: its attention, or else Grad-CAM of its code.

    Args:
        trained: The method.
        images: B images.

    Returns:
        The images as the backbone takes them, (B, C, H, W) from 0 to 1 without normalization, and the heatmaps,
        (B, H, W) from 0 to 1.

    Raises:
        UsageError: If the method has neither attention nor what Grad-CAM needs.
    """
    batch = next(iter(trained.run.blank(trained.to_split(images), size=len(images))))
    with torch.no_grad():
        maps = trained.method.attention(batch)
    if maps is None:
        maps = grad_cam(trained.method, batch)
    if maps is None:
        identity = trained.cell.identity
        raise UsageError(
            f"{identity.method} on {identity.backbone} has no attention map: it defines no attention, and Grad-CAM "
            "needs a relaxed code and a backbone with feature maps"
        )
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (trained.input.mean, trained.input.std))
    shown = (batch.images.cpu() * std + mean).clamp(0, 1)
    return shown, rescale(maps.detach().cpu().float(), (shown.shape[2], shown.shape[3]))


def rescale(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (B, h, w) scaled to 0..1, each on its own, and resized to (B, *size). A constant map becomes 0.

    >>> rescale(torch.tensor([[[1.0, 3.0]], [[2.0, 2.0]]]), (1, 2)).tolist()
    [[[0.0, 1.0]], [[0.0, 0.0]]]
    """
    low = maps.amin((1, 2), keepdim=True)
    shares = (maps - low) / (maps.amax((1, 2), keepdim=True) - low).clamp(min=1e-12)
    return interpolate(shares[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def pointing_game(maps: Tensor, boxes: Sequence[Tensor], size: tuple[int, int]) -> float:
    """The pointing game (Zhang et al., ECCV 2016): the share of images whose map peaks inside a labeled box.

    >>> pointing_game(torch.tensor([[[0.0, 1.0], [0.0, 0.0]]]), [torch.tensor([[2, 0, 4, 2]])], (4, 4))
    1.0

    Args:
        maps: (B, h, w).
        boxes: For each image, (n, 4): x0, y0, x1 and y1 in pixels.
        size: Height and width of the images in pixels.
    """
    peaks = rescale(maps, size).flatten(1).argmax(1)
    hits = 0
    for peak, corners in zip(peaks.tolist(), boxes, strict=True):
        y, x = divmod(peak, size[1])
        hits += any(x0 <= x < x1 and y0 <= y < y1 for x0, y0, x1, y1 in corners.tolist())
    return hits / max(1, len(maps))


def grad_cam(method: Method, batch: Batch) -> Tensor | None:
    """Grad-CAM (Selvaraju et al., ICCV 2017) of the sum of the magnitudes of the relaxed code.

    Args:
        method: The method.
        batch: B images.

    Returns:
        Maps (B, h, w), not negative; the mean of rescaled maps if the backbone has several, such as those of two
        streams. None if the method has no relaxed code, or its backbone no maps.

    Raises:
        EnvironmentFailure: If captum is not installed.
    """
    try:
        from captum.attr import LayerGradCam
    except ImportError:
        raise EnvironmentFailure("Grad-CAM needs captum; pip install 'hashzoo[explain]'") from None
    layers = next((module.eyes for module in method.modules() if isinstance(module, Backbone) and module.eyes), ())
    with torch.no_grad():
        if not layers or method.relaxed(batch) is None:
            return None

    def magnitude(images: Tensor) -> Tensor:
        code = cast("Tensor", method.relaxed(replace(batch, views=(images,))))
        return code.abs().sum(1)  # (B,)

    maps = [_attribute(LayerGradCam(magnitude, layer), batch.images) for layer in layers]
    size = (max(one.shape[1] for one in maps), max(one.shape[2] for one in maps))
    return torch.stack([rescale(one, size) for one in maps]).mean(0)


def _attribute(cam: nn.Module, images: Tensor) -> Tensor:
    attribution: Tensor = cam.attribute(images, relu_attributions=True)  # type: ignore[operator]
    return attribution[:, 0].detach()
