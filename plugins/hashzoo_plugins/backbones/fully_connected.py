"""AlexNet and VGG of torchvision with their fully connected layers, as DHN and most papers of 2014 to 2019 used them.

A family of its own beside ``torchvision/*``, whose AlexNet and VGG stop before these layers, so that the cells measured
with those keep their keys.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal
from urllib.error import URLError

import torch
from torch import Tensor, nn

from hashzoo import Backbone, EnvironmentFailure, Features, Input
from hashzoo_plugins.backbones import torchvision
from hashzoo_plugins.backbones.maps import Taps

Layer = Literal["fc6", "fc7"]


def names() -> list[str]:
    """AlexNet and the VGG networks."""
    return [name for name in torchvision.names() if name.startswith(("alexnet", "vgg"))]


class FullyConnected(torchvision.Torchvision):
    """A torchvision network up to a fully connected layer, whose output after its ReLU is ``pooled``, (B, 4096)."""

    def forward(self, images: Tensor) -> Features:
        """``pooled`` (B, 4096) and up to three maps of (B, 3, H, W) normalized images."""
        out = self.network(images.contiguous(memory_format=torch.channels_last))
        return Features(out, self._tap.taken()[0])


def cut(network: Any, layer: Layer) -> nn.Module:
    """The network without what follows the ReLU of a layer. fc6 and fc7 are the first two linear layers."""
    layers = list(network.classifier)
    linear = [place for place, one in enumerate(layers) if isinstance(one, nn.Linear)]
    network.classifier = nn.Sequential(*layers[: linear[("fc6", "fc7").index(layer)] + 2])
    module: nn.Module = network
    return module


def build(
    name: str,
    shape: tuple[int, int, int],
    *,
    layer: Layer = "fc7",
    weights: str = "default",
    allow_missing: tuple[str, ...] = (),
    taps: Taps = "stages",
    size: int | None = None,
) -> Backbone:
    """AlexNet or VGG up to ``layer``, with ``weights`` "default", "random", or a .safetensors or .pth file.

    ``allow_missing`` holds patterns of keys that may be missing from the file; ``taps`` selects the maps. ``size`` is
    the side in pixels that whole images are resized to; by default 224, the center crop of 256.
    """
    from torchvision import models

    best: Any = models.get_model_weights(name).DEFAULT
    to = Input(size=224, channels=3, mean=torchvision.MEAN, std=torchvision.STD, crop=0.875)
    if size is not None:
        to = replace(to, size=size, crop=1.0)
    pretrained = weights == "default"
    try:
        network = models.get_model(name, weights=best if pretrained else None)
    except (URLError, OSError, RuntimeError) as error:
        raise EnvironmentFailure(
            f"cannot download the weights of torchvision-fc/{name} from {best.url}: {error}; "
            f"use --set torchvision-fc/{name}.weights=FILE or weights=random"
        ) from error
    loaded, trained_on = (str(best), "ImageNet") if pretrained else ("random", "")
    return FullyConnected(cut(network, layer), to, loaded, trained_on, taps)
