"""What a trained method looks at, and what it takes for what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import interpolate

from hashzoo.backbone import Backbone
from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.method import Method
from hashzoo.registry.saved_method import TrainedMethod
from hashzoo.types import Batch

if TYPE_CHECKING:
    pass


def looks(trained: TrainedMethod, images: Sequence[Image.Image]) -> tuple[Tensor, Tensor]:
    """The images as the network sees them, (B, C, H, W) in 0..1, and where the method looks, (B, H, W) in 0..1.

    Its own attention where it has one, Grad-CAM of its code otherwise. UsageError for a method that has neither.
    """
    batch = next(iter(trained.run.blank(trained.split(images), size=len(images))))
    with torch.no_grad():
        found = trained.method.attention(batch)
    if found is None:
        found = grad_cam(trained.method, batch)
    if found is None:
        identity = trained.cell.identity
        raise UsageError(
            f"{identity.method} on {identity.backbone} looks at no place: it has no attention, and Grad-CAM needs a "
            "relaxed code and a backbone with maps"
        )
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (trained.input.mean, trained.input.std))
    seen = (batch.images.cpu() * std + mean).clamp(0, 1)
    return seen, scaled(found.detach().cpu().float(), (seen.shape[2], seen.shape[3]))


def scaled(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (B, h, w) at (B, *size), each from 0 to 1; a constant map is 0.

    >>> scaled(torch.tensor([[[1.0, 3.0]], [[2.0, 2.0]]]), (1, 2)).tolist()
    [[[0.0, 1.0]], [[0.0, 0.0]]]
    """
    low = maps.amin((1, 2), keepdim=True)
    shares = (maps - low) / (maps.amax((1, 2), keepdim=True) - low).clamp(min=1e-12)
    return interpolate(shares[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def pointing(maps: Tensor, boxes: Sequence[Tensor], size: tuple[int, int]) -> float:
    """The share of images whose map (B, h, w), scaled up to ``size``, is highest inside one of the image's boxes.

    The pointing game of Zhang et al. (ECCV 2016), on any labelled thing; boxes (n, 4) are x0 y0 x1 y1 in pixels.

    >>> pointing(torch.tensor([[[0.0, 1.0], [0.0, 0.0]]]), [torch.tensor([[2, 0, 4, 2]])], (4, 4))
    1.0
    """
    flat = scaled(maps, size).flatten(1).argmax(1)
    hits = 0
    for place, found in zip(flat.tolist(), boxes, strict=True):
        y, x = divmod(place, size[1])
        hits += any(x0 <= x < x1 and y0 <= y < y1 for x0, y0, x1, y1 in found.tolist())
    return hits / max(1, len(maps))


def grad_cam(method: Method, batch: Batch) -> Tensor | None:
    """Grad-CAM (Selvaraju et al., ICCV 2017) of how sure the bits are, the sum of their sizes: (B, h, w), not negative.

    Of several last maps, such as those of two streams, the mean, each scaled to its own maximum. None without a
    relaxed code or maps. EnvironmentFailure where captum is not installed.
    """
    try:
        from captum.attr import LayerGradCam
    except ImportError:
        raise EnvironmentFailure("Grad-CAM needs captum; pip install 'hashzoo[explain]'") from None
    eyes = next((module.eyes for module in method.modules() if isinstance(module, Backbone) and module.eyes), ())
    with torch.no_grad():
        if not eyes or method.relaxed(batch) is None:
            return None

    def sureness(images: Tensor) -> Tensor:
        code = cast("Tensor", method.relaxed(replace(batch, views=(images,))))
        return code.abs().sum(1)  # (B,)

    found = [_cam(LayerGradCam(sureness, eye), batch.images) for eye in eyes]
    size = (max(f.shape[1] for f in found), max(f.shape[2] for f in found))
    return torch.stack([scaled(f, size) for f in found]).mean(0)


def _cam(cam: nn.Module, images: Tensor) -> Tensor:
    made: Tensor = cam.attribute(images, relu_attributions=True)  # type: ignore[operator]
    return made[:, 0].detach()
