"""All classification networks of torchvision, without their classifiers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn

from hashzoo import Backbone, EnvironmentFailure, Features, Input
from hashzoo_plugins.backbones import weights as files
from hashzoo_plugins.backbones.maps import Tap, Taps, width

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


def names() -> list[str]:
    """The names of the classification models in the installed version of torchvision."""
    from torchvision import models

    return list(models.list_models(module=models))


class Torchvision(Backbone):
    """A torchvision network; its pooled features are the input of its last linear layers.

    For convolutional networks ``pooled`` is the mean of the last map; the fully connected layers of AlexNet and VGG
    are left out. For a vision transformer it is the class token, and there are no maps.
    """

    def __init__(self, network: nn.Module, to: Input, loaded: str, trained_on: str, taps: Taps) -> None:
        super().__init__()
        # convolutions on a CPU take half the time in this memory format
        self.network = network.to(memory_format=torch.channels_last)
        self.input, self.weights, self.trained_on = to, loaded, trained_on
        side = to.size or 224
        self._tap = Tap(network, side, taps)
        self.map_dims, self.eyes = self._tap.dims, self._tap.eyes
        self.dim = width(self, side)

    def forward(self, images: Tensor) -> Features:
        """``pooled`` (B, dim) and up to three maps of (B, 3, H, W) normalized images."""
        out = self.network(images.contiguous(memory_format=torch.channels_last))
        maps, final = self._tap.taken()
        return Features(out if final is None else final.mean((2, 3)), maps)


def chopped(network: Any) -> nn.Module:
    """The network with the layers after its features replaced by the identity."""
    for name in ("classifier", "fc", "head", "heads"):
        if isinstance(getattr(network, name, None), nn.Module):
            setattr(network, name, nn.Identity())
    if getattr(network, "aux_logits", False):  # GoogLeNet and Inception have auxiliary classifiers
        network.aux_logits = False
        for name in ("AuxLogits", "aux1", "aux2"):
            setattr(network, name, None)
    module: nn.Module = network
    return module


def build(
    name: str,
    shape: tuple[int, int, int],
    *,
    weights: str = "default",
    allow_missing: tuple[str, ...] = (),
    taps: Taps = "stages",
    size: int | None = None,
) -> Backbone:
    """A torchvision model by name, with ``weights`` "default", "random", or a .safetensors or .pth file with its keys.

    ``allow_missing`` holds patterns of keys that may be missing from the file; ``taps`` selects the maps. ``size`` is
    the side in pixels that whole images are resized to; by default the network's own size, with its center crop.
    """
    from torchvision import models

    offered = models.get_model_weights(name)
    best = getattr(offered, "DEFAULT", None)
    to = Input(size=224, channels=3, mean=MEAN, std=STD, crop=0.875)
    if best is not None:
        made: Any = best.transforms()
        side = made.crop_size[0]
        to = Input(side, 3, tuple(made.mean), tuple(made.std), min(1.0, side / made.resize_size[0]))
    if size is not None:
        to = replace(to, size=size, crop=1.0)
    if weights == "random":
        return Torchvision(chopped(_made(name, None)), to, "random", "", taps)
    if weights == "default":
        if best is None:
            raise ValueError(f"torchvision has no weights for {name}; use weights=random or weights=FILE")
        try:
            network = _made(name, best)
        except (URLError, OSError, RuntimeError) as error:
            raise EnvironmentFailure(
                f"cannot download the weights of torchvision/{name} from {best.url}: {error}; "
                f"use --set torchvision/{name}.weights=FILE or weights=random"
            ) from error
        return Torchvision(chopped(network), to, str(best), "ImageNet", taps)
    path = Path(weights)
    network = _made(name, None)
    files.load(network, path, allow_missing)
    return Torchvision(chopped(network), to, f"{path.name} {files.digest(path)}", "ImageNet", taps)


def _made(name: str, which: Any) -> nn.Module:
    from torchvision import models

    quiet = {"init_weights": True} if name in ("googlenet", "inception_v3") and which is None else {}
    network: nn.Module = models.get_model(name, weights=which, **quiet)
    return network
