"""What heads ask of a backbone's feature maps."""

from __future__ import annotations

from hashzoo import Backbone


def require(head: str, backbone: Backbone, levels: int) -> tuple[int, ...]:
    """The channels of the last ``levels`` maps, coarsest last; ValueError for a backbone that has fewer."""
    if len(backbone.map_dims) < levels:
        what = "a feature map" if levels == 1 else f"feature maps at {levels} resolutions"
        raise ValueError(
            f"{head} needs {what} and this backbone gives {len(backbone.map_dims)}; "
            "take one with maps, such as tiny or torchvision/resnet18, and [train] maps = true where it is frozen"
        )
    return tuple(backbone.map_dims[-levels:])
