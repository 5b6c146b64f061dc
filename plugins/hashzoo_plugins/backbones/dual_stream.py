"""Two networks on the same image, one for local detail and one for context, with concatenated features (Li & Wang,
Hans 2025).

The networks of the source are EfficientNet-B3 at 300 pixels and Swin-B at 224, each pooled: F = [alpha F_e; beta F_s]
with learnable scalars that start at 1. The next layer can absorb these scalars; they only change the training dynamics.

Resolved: images are loaded at the larger of the two sizes and scaled down, antialiased, for the other stream.

Cite: li2025swin, tan2019efficientnet, liu2021swin
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from hashzoo import Backbone, Features, Input, UsageError, convert_options, load_plugins, options
from hashzoo_plugins.backbones.maps import width
from hashzoo_plugins.backbones.timm import Timm
from hashzoo_plugins.backbones.torchvision import Torchvision, chopped

SIDE, LOCAL_SIDE = 224, 300  # of the context and the local stream in the source


class DualStream(Backbone):
    """Two backbones on the same images: ``pooled`` is [alpha F_local; beta F_context], the maps are the local ones.

    Images are normalized as ``input`` describes, and renormalized for a network that expects other statistics.
    ``sides`` has the size at which each stream sees them; None leaves them as they are.
    """

    def __init__(
        self, local: Backbone, context: Backbone, to: Input, sides: tuple[int | None, int | None] = (None, None)
    ) -> None:
        super().__init__()
        self.sides = sides
        self.local, self.context, self.input = local, context, to
        self.alpha, self.beta = nn.Parameter(torch.ones(())), nn.Parameter(torch.ones(()))
        self.dim, self.map_dims = local.dim + context.dim, local.map_dims
        self.eyes = (*local.eyes, *context.eyes)
        self.weights = " + ".join((local.weights, context.weights))
        self.trained_on = local.trained_on or context.trained_on

    def forward(self, images: Tensor) -> Features:
        """``pooled`` (B, dim) and the maps of the local stream."""
        local, context = (
            stream(resized(renormalised(images, self.input, stream.input), side))
            for stream, side in zip((self.local, self.context), self.sides, strict=True)
        )
        return Features(torch.cat([self.alpha * local.pooled, self.beta * context.pooled], 1), local.maps)


def renormalised(images: Tensor, now: Input, wanted: Input) -> Tensor:
    """Images that are normalized by the statistics of ``now``, converted to those of ``wanted``."""
    if (now.mean, now.std) == (wanted.mean, wanted.std):
        return images
    mean, std, other_mean, other_std = (
        torch.tensor(v, device=images.device).view(-1, 1, 1) for v in (now.mean, now.std, wanted.mean, wanted.std)
    )
    return (images * std + mean - other_mean) / other_std


def resized(images: Tensor, side: int | None) -> Tensor:
    """Square images (B, C, S, S) with another side, antialiased; the same tensor if it already has this side."""
    if side is None or images.shape[-1] == side:
        return images
    return interpolate(images, (side, side), mode="bilinear", antialias=True)


def build(
    shape: tuple[int, int, int],
    *,
    local: str = "timm/efficientnet_b3",
    context: str = "timm/swin_base_patch4_window7_224",
    size: int = SIDE,
    local_size: int | None = None,
    local_weights: str = "default",
    context_weights: str = "default",
) -> Backbone:
    """EfficientNet-B3 and Swin-B on the same image, or any two backbones, joined with learnable weights.

    The context stream sees ``size`` pixels, the local one ``local_size``, by default 300 if ``size`` is 224, as in the
    source, and otherwise ``size``. ``local`` and ``context`` are names of backbones; their weights are "default",
    "random" or the path of a file.
    """
    house = load_plugins()
    if local_size is None:
        local_size = LOCAL_SIDE if size == SIDE else size
    made, sides = [], (local_size, size)
    for name, weights, side in zip((local, context), (local_weights, context_weights), sides, strict=True):
        if name.startswith("dual-stream"):
            raise UsageError(f"dual-stream cannot contain {name}: choose two other backbones")
        factory = house.backbone(name).factory
        known = "weights" in options(factory)
        if not known and weights != "default":
            raise UsageError(f"dual-stream: {name} takes no weights, but {weights!r} was given")
        given = {"weights": weights} if known else {}
        made.append(factory((3, side, side), **convert_options("backbone", name, factory, given)))
    mean, std = made[0].input.mean, made[0].input.std
    crop = max(stream.input.crop for stream in made)
    for name, stream, side in zip((local, context), made, sides, strict=True):
        try:
            width(stream, side)
        except (RuntimeError, AssertionError) as error:
            text = str(error).splitlines()[0]
            raise UsageError(f"dual-stream: {name} does not accept images of {side} pixels: {text}") from error
    return DualStream(made[0], made[1], Input(max(sides), 3, mean, std, crop), sides)


def small(shape: tuple[int, int, int]) -> Backbone:
    """The first three stages of EfficientNet-B0 and a small Swin transformer at 32 pixels, for CPUs and tests."""
    from timm.models.swin_transformer import SwinTransformer
    from torchvision.models.efficientnet import EfficientNet, MBConvConfig

    stages = [  # expansion, kernel, stride, channels in and out, layers; the map is 4 x 4 here, 1 x 1 after all seven
        MBConvConfig(1, 3, 1, 32, 16, 1),
        MBConvConfig(6, 3, 2, 16, 24, 2),
        MBConvConfig(6, 5, 2, 24, 40, 2),
    ]
    local = EfficientNet(stages, dropout=0.0, stochastic_depth_prob=0.0, last_channel=160)
    context: Any = SwinTransformer(
        img_size=32, patch_size=4, embed_dim=48, depths=(2, 2), num_heads=(3, 6), window_size=4, num_classes=0
    )
    to = Input(32, 3, (0.5,), (0.5,))
    return DualStream(
        Torchvision(chopped(local), to, "random", "", "stages"), Timm(context, "random", "", "stages", side=32), to
    )
