"""Feature maps of any network: what its modules give at the three coarsest resolutions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

STAGES = 3


def channels_first(value: Tensor, channels_last: bool) -> Tensor:
    """(B, C, h, w), from (B, h, w, C) where a network keeps its channels last."""
    return value.permute(0, 3, 1, 2) if channels_last else value


def is_channels_last(shape: torch.Size) -> bool:
    """Whether a map is (B, h, w, C): squares stand in front, and the last dimension differs from them.

    >>> is_channels_last(torch.Size([1, 7, 7, 768])), is_channels_last(torch.Size([1, 768, 7, 7]))
    (True, False)
    """
    return shape[1] == shape[2] != shape[3]


def stages(network: nn.Module, run: Callable[[Tensor], Any], side: int) -> list[tuple[str, bool, int]]:
    """The last module at each of the three coarsest resolutions: name, whether channels are last, channels.

    Found by one pass of a blank picture; empty for a network with fewer than two resolutions.
    """
    seen: list[tuple[str, torch.Size]] = []
    hooks = [
        module.register_forward_hook(
            lambda _m, _i, out, name=name: (
                seen.append((name, out.shape)) if isinstance(out, Tensor) and out.ndim == 4 else None
            )
        )
        for name, module in network.named_modules()
        if name
    ]
    was = network.training
    network.eval()
    try:
        with torch.no_grad():
            run(torch.zeros(1, 3, side, side))
    finally:
        network.train(was)
        for hook in hooks:
            hook.remove()
    last: dict[int, tuple[str, bool, int]] = {}
    for name, shape in seen:
        behind = is_channels_last(shape)
        place = shape[1] if behind else shape[2]
        square = (shape[1] == shape[2]) if behind else (shape[2] == shape[3])
        if square and place > 1:
            last[place] = name, behind, shape[3] if behind else shape[1]
    if len(last) < 2:  # the patches of a transformer: one resolution is no pyramid, and a token is what it gives
        return []
    return [last[place] for place in sorted(last, reverse=True)][-STAGES:]


class Tap:
    """Keeps what named modules gave in the latest pass."""

    def __init__(self, network: nn.Module, found: list[tuple[str, bool, int]]) -> None:
        self.names = [name for name, _, _ in found]
        self.last = {name: behind for name, behind, _ in found}
        self.kept: dict[str, Tensor] = {}
        modules = dict(network.named_modules())
        for name in self.names:
            modules[name].register_forward_hook(self._keeper(name))

    def _keeper(self, name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def keep(_module: nn.Module, _inputs: Any, out: Tensor) -> None:
            self.kept[name] = out

        return keep

    def maps(self) -> tuple[Tensor, ...]:
        """The maps of the latest pass, coarsest last, channels first; forgotten once given."""
        found = tuple(channels_first(self.kept[name], self.last[name]) for name in self.names)
        self.kept.clear()
        return found
