"""Structured methods: attention, two-level codes, code algebra and two-stream networks."""

from typing import Any

from hashzoo import hookimpl
from hashzoo_plugins.structured import dcoh, multigrain, sfdh, swin_dual_stream, two_level_cam


@hookimpl
def hashzoo_methods() -> dict[str, Any]:
    """The methods of this family."""
    return {
        "dcoh": dcoh.DCOH,
        "multigrain": multigrain.MultiGrainHashing,
        "sfdh": sfdh.METHOD,
        "swin-dual-stream": swin_dual_stream.SwinDualStream,
        "swin-dual-stream-c": swin_dual_stream.CONFIDENT,
        "two-level-cam": two_level_cam.TwoLevelCAM,
    }


@hookimpl
def hashzoo_heads() -> dict[str, Any]:
    """The heads of this family."""
    return {
        "dcoh": dcoh.FullyConnected,
        "multi-grain": multigrain.MultiGrain,
        "saliency": sfdh.Saliency,
        "two-level": two_level_cam.TwoLevel,
    }


@hookimpl
def hashzoo_losses() -> dict[str, Any]:
    """The losses of this family."""
    return {
        "contrastive": multigrain.Contrastive,
        "dcoh": dcoh.MultiLevel,
        "sfdh": sfdh.SFDH,
        "two-level": two_level_cam.TwoLevelLoss,
    }
