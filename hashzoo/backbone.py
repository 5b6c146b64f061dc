"""The interface of a backbone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from torch import nn

from hashzoo.types import Features, Input


class Backbone(nn.Module, ABC):
    """A network that turns images into features.

    A factory is called as ``factory(shape, *, weights=..., ...)`` with the dataset's image shape
    (channels, height, width), and must set the attributes below. ``weights`` is the name and digest of what was
    loaded, or ``"random"``; ``trained_on`` names the labelled data behind the weights (``"ImageNet"``) or is empty.
    ``eyes`` are modules that give a last feature map (B, C, h, w), for images of where a network looks.
    """

    dim: int
    map_dims: tuple[int, ...] = ()
    input: Input = Input()
    weights: str = "random"
    trained_on: str = ""
    eyes: tuple[nn.Module, ...] = ()

    if TYPE_CHECKING:

        def __call__(self, images: Any) -> Features:
            """Typed for callers; see :meth:`forward`."""

    @abstractmethod
    def forward(self, images: Any) -> Features:
        """Features of (B, C, H, W) normalised images: ``pooled`` (B, dim), ``maps`` coarsest last."""
