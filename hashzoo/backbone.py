"""The interface of a backbone: images in, features out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from torch import nn

from hashzoo.types import Features, Input


class Backbone(nn.Module, ABC):
    """Base class of a backbone: a network that maps images to features.

    A backbone factory is called as ``factory(shape, *, options)`` with the dataset's image shape (channels, height,
    width). The constructor sets the attributes below.

    Attributes:
        dim: Number D of pooled features.
        map_dims: Channels D_l of each feature map, coarsest last; empty if the backbone returns no maps.
        input: Form in which images are given to the backbone.
        weights: Name and digest of the weights that were loaded, or ``"random"``.
        trained_on: Labeled dataset that the weights were trained on, as ``"ImageNet"``; empty if none. Results on
            this dataset are marked as contaminated.
        note: A line about how the weights were read that a user should know; empty if there is none.
        eyes: Modules whose outputs are the last feature maps (B, C, h, w), from which Grad-CAM computes heat maps.
    """

    dim: int
    map_dims: tuple[int, ...] = ()
    input: Input = Input()
    weights: str = "random"
    trained_on: str = ""
    note: str = ""
    eyes: tuple[nn.Module, ...] = ()

    if TYPE_CHECKING:

        def __call__(self, images: Any) -> Features:
            """Typed for callers; see :meth:`forward`."""

    @abstractmethod
    def forward(self, images: Any) -> Features:
        """Compute features.

        Args:
            images: (B, C, H, W) float images, normalized as ``input`` says; stored :class:`Features` if the backbone
                was frozen and its features were computed before.

        Returns:
            ``pooled`` (B, D), and ``maps``, each (B, D_l, h_l, w_l), coarsest last.
        """
