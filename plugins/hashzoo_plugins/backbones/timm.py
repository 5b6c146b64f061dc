"""All networks of timm, without their classifiers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from hashzoo import Backbone, EnvironmentFailure, Features, Input
from hashzoo_plugins.backbones import weights as files
from hashzoo_plugins.backbones.maps import Tap, Taps, width


def names() -> list[str]:
    """The names of the models in the installed version of timm."""
    import timm

    found: list[str] = timm.list_models()
    return found


class Timm(Backbone):
    """A timm network; ``pooled`` is the input of its classifier. Vision transformers get a map in
    ``vision_transformer``.
    """

    def __init__(self, network: Any, loaded: str, trained_on: str, taps: Taps, side: int = 0) -> None:
        super().__init__()
        from timm.data import resolve_model_data_config  # type: ignore[attr-defined]

        config: dict[str, Any] = resolve_model_data_config(network)  # type: ignore[no-untyped-call]
        side = side or int(config["input_size"][-1])
        self.network: nn.Module = network
        self.input = Input(side, 3, tuple(config["mean"]), tuple(config["std"]), float(config["crop_pct"]))
        self.weights, self.trained_on = loaded, trained_on
        self._tap = Tap(network, side, taps)
        self.map_dims, self.eyes = self._tap.dims, self._tap.eyes
        self.dim = width(self, side)

    def forward(self, images: Tensor) -> Features:
        """``pooled`` (B, dim) and up to three maps of (B, 3, H, W) normalized images."""
        pooled = self.network(images)
        return Features(pooled, self._tap.taken()[0])


def build(
    name: str,
    shape: tuple[int, int, int],
    *,
    weights: str = "default",
    allow_missing: tuple[str, ...] = (),
    taps: Taps = "stages",
) -> Backbone:
    """A timm model by name, with ``weights`` "default", "random", or a .safetensors or .pth file with its keys.

    ``allow_missing`` holds patterns of keys that may be missing from the file; ``taps`` selects the maps.
    """
    import timm

    if weights == "random":
        return Timm(timm.create_model(name, num_classes=0), "random", "", taps)
    if weights == "default":
        try:
            network: Any = timm.create_model(name, pretrained=True, num_classes=0)
        except Exception as error:  # the hub client raises many undocumented types
            text = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise EnvironmentFailure(
                f"cannot download the weights of timm/{name}: {text}; "
                f"use --set timm/{name}.weights=FILE or weights=random"
            ) from error
        tag = str(network.pretrained_cfg.get("tag", ""))
        return Timm(network, f"{name}.{tag}", "ImageNet" if "in1k" in tag or "in2" in tag else tag, taps)
    path = Path(weights)
    network = timm.create_model(name)
    files.load(network, path, allow_missing)
    network.reset_classifier(0)
    return Timm(network, f"{path.name} {files.digest(path)}", "ImageNet", taps)
