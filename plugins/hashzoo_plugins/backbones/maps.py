"""Feature maps of any network: the outputs of its modules at the three coarsest resolutions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

STAGES = 3

#: Which maps: the last of each of the three coarsest resolutions, or the last three convolutions.
Taps = Literal["stages", "convolutions"]


def channels_first(value: Tensor, channels_last: bool) -> Tensor:
    """A map as (B, C, h, w), permuted from (B, h, w, C) if ``channels_last``."""
    return value.permute(0, 3, 1, 2) if channels_last else value


def is_channels_last(shape: torch.Size) -> bool:
    """Whether a map is (B, h, w, C): the two dimensions after the batch are equal, and the last one differs.

    >>> is_channels_last(torch.Size([1, 7, 7, 768])), is_channels_last(torch.Size([1, 768, 7, 7]))
    (True, False)
    """
    return shape[1] == shape[2] != shape[3]


def outputs(network: nn.Module, side: int) -> list[tuple[str, nn.Module, torch.Size]]:
    """Every module whose output for one blank image has four dimensions, in the order of completion."""
    seen: list[tuple[str, nn.Module, torch.Size]] = []
    hooks = [
        module.register_forward_hook(
            lambda m, _i, out, name=name: (
                seen.append((name, m, out.shape)) if isinstance(out, Tensor) and out.ndim == 4 else None
            )
        )
        for name, module in network.named_modules()
        if name
    ]
    was = network.training
    network.eval()
    try:
        with torch.no_grad():
            network(torch.zeros(1, 3, side, side))
    finally:
        network.train(was)
        for hook in hooks:
            hook.remove()
    return seen


def chosen(seen: list[tuple[str, nn.Module, torch.Size]], taps: Taps) -> list[tuple[str, bool, int]]:
    """Up to three maps, coarsest last, each as (module name, whether channels are last, number of channels).

    A stage is the last output of the outermost module at its resolution: layers before the downsampling of a stage
    have the resolution of the previous stage. The list is empty for a network with fewer than two resolutions, such as
    a vision transformer, whose patches are not a pyramid.
    """
    outer: dict[int, tuple[str, bool, int]] = {}
    for name, _, shape in seen:
        behind = is_channels_last(shape)
        place = shape[1] if behind else shape[2]
        square = (shape[1] == shape[2]) if behind else (shape[2] == shape[3])
        if not square or place == 1:
            continue
        if place not in outer or name.count(".") <= outer[place][0].count("."):
            outer[place] = name, behind, shape[3] if behind else shape[1]
    if len(outer) < 2:
        return []
    if taps == "convolutions":
        on_the_way = [entry for entry in seen if isinstance(entry[1], nn.Conv2d) and not _aside(entry[0])]
        return [(name, False, shape[1]) for name, _, shape in on_the_way][-STAGES:]
    return [outer[place] for place in sorted(outer, reverse=True)][-STAGES:]


def _aside(name: str) -> bool:
    """Whether a convolution belongs to the shortcut of a block, by the names that libraries use."""
    return "downsample" in name or "shortcut" in name


class Tap:
    """Records the maps of a network's latest forward pass.

    ``dims`` are the channels of the maps; empty for a network without maps. The last map passes through ``eyes``, an
    identity with channels first, so that Grad-CAM can take gradients there for any memory layout. The final map of the
    network is recorded too, whichever maps are chosen.
    """

    def __init__(self, network: nn.Module, side: int, taps: Taps) -> None:
        seen = outputs(network, side)
        self._found, stages = chosen(seen, taps), chosen(seen, "stages")
        self._end = stages[-1][0] if stages else ""
        self._kept: dict[str, Tensor] = {}
        self.dims = tuple(channels for _, _, channels in self._found)
        self.eyes: tuple[nn.Identity, ...] = (nn.Identity(),) if self._found else ()
        modules = dict(network.named_modules())
        if stages and stages[-1] not in self._found:
            modules[self._end].register_forward_hook(self._keeper(self._end, stages[-1][1], None))
        for level, (name, behind, _) in enumerate(self._found):
            eye = self.eyes[0] if level == len(self._found) - 1 else None  # type: ignore[misc]  # not empty in this loop
            modules[name].register_forward_hook(self._keeper(name, behind, eye))

    def _keeper(
        self, name: str, behind: bool, eye: Callable[[Tensor], Tensor] | None
    ) -> Callable[[nn.Module, object, Tensor], Tensor | None]:
        def keep(_module: nn.Module, _inputs: object, out: Tensor) -> Tensor | None:
            value = channels_first(out, behind)
            if eye is None:
                self._kept[name] = value
                return None
            self._kept[name] = value = eye(value)
            return value.permute(0, 2, 3, 1) if behind else value

        return keep

    def taken(self) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """Return the maps of the latest pass, coarsest last and channels first, and the final map; then drop them."""
        found = tuple(self._kept[name] for name, _, _ in self._found)
        final = self._kept.get(self._end)
        self._kept.clear()
        return found, final


def width(backbone: nn.Module, side: int) -> int:
    """The number of features that a backbone computes for a blank image."""
    was = backbone.training
    backbone.eval()
    with torch.no_grad():
        dim: int = backbone(torch.zeros(1, 3, side, side)).pooled.shape[1]
    backbone.train(was)
    return dim
