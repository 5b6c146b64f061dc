"""Vision transformers of timm: their patch tokens as a feature map.

The factory of timm's networks is wrapped when it is registered, since the digest of its module is part of every key of
a cell; ``pooled`` is the same to the last bit.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from hashzoo import Backbone, Features
from hashzoo_plugins.backbones.timm import Timm

#: What a network needs, beside a grid of patches, so that its patch tokens can be found.
PARTS = ("num_prefix_tokens", "blocks", "forward_features", "forward_head")


class VisionTransformer(Backbone):
    """A vision transformer of timm. Its only map has the patch tokens after the last layer, one at each position.

    Grad-CAM looks at the patch tokens before the last block: after it, those of a network whose features are its class
    token have no gradient.
    """

    def __init__(self, plain: Timm) -> None:
        super().__init__()
        self.network = cast(Any, plain.network)
        self.input, self.dim = plain.input, plain.dim
        self.weights, self.trained_on = plain.weights, plain.trained_on
        self.grid = tuple(self.network.patch_embed.grid_size)
        self.map_dims, self.eyes = (int(self.network.num_features),), (nn.Identity(),)
        self.network.blocks[-1].register_forward_pre_hook(self._before_last_block)

    def forward(self, images: Tensor) -> Features:
        """``pooled`` (B, dim) and the map (B, D, h, w) of (B, 3, H, W) normalized images."""
        tokens = self.network.forward_features(images)
        return Features(self.network.forward_head(tokens), (self._as_map(tokens),))

    def _as_map(self, tokens: Tensor) -> Tensor:
        """The map (B, D, h, w) of tokens (B, prefix + h w, D): the class token and registers come first."""
        height, width = self.grid
        patches = tokens[:, -height * width :].transpose(1, 2)  # (B, D, h w)
        return patches.reshape(*patches.shape[:2], height, width)

    def _before_last_block(self, _block: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        tokens, *others = inputs
        before = tokens.shape[1] - self.grid[0] * self.grid[1]
        patches = self.eyes[0](self._as_map(tokens)).flatten(2).transpose(1, 2)
        # without a prefix, the tokens keep their layout in memory, on which the last digits depend
        return torch.cat([tokens[:, :before], patches], 1) if before else patches, *others


def has_patch_tokens(network: nn.Module) -> bool:
    """Whether a network of timm has the parts of a vision transformer with one resolution."""
    grid = getattr(getattr(network, "patch_embed", None), "grid_size", None)
    return grid is not None and all(hasattr(network, part) for part in PARTS)


def with_patch_tokens(build: Callable[..., Any]) -> Callable[..., Backbone]:
    """A factory of timm's networks whose vision transformers have a map of their patch tokens."""

    @functools.wraps(build)
    def wrapper(*arguments: Any, **options: Any) -> Backbone:
        made = build(*arguments, **options)
        return VisionTransformer(made) if has_patch_tokens(made.network) else made

    return wrapper
