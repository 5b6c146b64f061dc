"""Backbones: networks that map images to features."""

from typing import Any

from hashzoo import Family, hookimpl
from hashzoo_plugins.backbones import dual_stream, efficientnet_lite, fully_connected, outlines, timm, torchvision
from hashzoo_plugins.backbones.hub import with_one_attempt
from hashzoo_plugins.backbones.identity import Identity
from hashzoo_plugins.backbones.own_weights import timm_classifier, torchvision_classifier, with_own_weights
from hashzoo_plugins.backbones.pixels import Pixels
from hashzoo_plugins.backbones.scattering import Scattering
from hashzoo_plugins.backbones.tiny import Tiny
from hashzoo_plugins.backbones.vision_transformer import with_patch_tokens


@hookimpl
def hashzoo_backbones() -> dict[str, Any]:
    """The backbones of this family."""
    return {
        "identity": Identity,
        "pixels": Pixels,
        "scattering": Scattering,
        "tiny": Tiny,
        "dual-stream": dual_stream.build,
        "dual-stream.small": dual_stream.small,
        **efficientnet_lite.backbones(),
        "timm/*": Family(
            with_own_weights(with_one_attempt(with_patch_tokens(timm.build)), timm_classifier),
            timm.names,
            "any model of timm by name, as timm/resnet18",
        ),
        "torchvision/*": Family(
            with_own_weights(torchvision.build, torchvision_classifier),
            torchvision.names,
            "any classification model of torchvision, as torchvision/resnet18",
        ),
        "torchvision-fc/*": Family(
            with_own_weights(fully_connected.build, torchvision_classifier),
            fully_connected.names,
            "AlexNet and VGG with their fully connected layers, as torchvision-fc/alexnet",
        ),
    }


@hookimpl
def hashzoo_outlines() -> dict[str, Any]:
    """The weights that these backbones download."""
    return {
        "torchvision/*": outlines.torchvision,
        "torchvision-fc/*": outlines.torchvision,
        "timm/*": outlines.timm,
        "dual-stream": outlines.dual_stream,
        **dict.fromkeys(efficientnet_lite.NAMES, efficientnet_lite.outline),
    }
