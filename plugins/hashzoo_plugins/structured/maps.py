"""Requirements of heads on the feature maps of a backbone."""

from __future__ import annotations

from hashzoo import Backbone


def require(head: str, backbone: Backbone, levels: int) -> tuple[int, ...]:
    """The channels of the last ``levels`` maps, coarsest last. Raises ValueError if the backbone has fewer maps."""
    if len(backbone.map_dims) < levels:
        what = "a feature map" if levels == 1 else f"feature maps at {levels} resolutions"
        raise ValueError(
            f"{head} needs {what}, but this backbone has {len(backbone.map_dims)}; use a backbone with maps, "
            "such as tiny or torchvision/resnet18, and [train] maps = true if it is frozen"
        )
    return tuple(backbone.map_dims[-levels:])
