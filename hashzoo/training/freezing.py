"""Early stages of a network, which are not trained when the others are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hashzoo.errors import UsageError


def freeze_stages(network: nn.Module, count: int, image: Tensor) -> list[str]:
    """Freeze the first stages of a network: the modules before the end of the ``count`` finest resolutions.

    A stage ends with the last output of the outermost modules at its resolution; so the first stage of a ResNet is its
    stem, and the second is ``layer1``. Frozen parameters get no gradient, and normalization layers among them keep
    their statistics.

    Args:
        network: The network.
        count: Number of stages.
        image: (1, C, H, W) an image of the size that the network takes.

    Returns:
        The names of the frozen modules that have parameters.

    Raises:
        UsageError: If the network does not have more stages than ``count``.

    >>> layers = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 2, 2, stride=2), nn.Conv2d(2, 2, 4))
    >>> freeze_stages(layers, 1, torch.zeros(1, 1, 8, 8))
    ['0']
    """
    seen = _outputs(network, image)
    ends: dict[int, int] = {}
    depth: dict[int, int] = {}
    for place, (name, _, side) in enumerate(seen):
        if side and name.count(".") <= depth.get(side, len(name)):
            ends[side], depth[side] = place, name.count(".")
    stages = sorted(ends, reverse=True)
    if count >= len(stages):
        raise UsageError(
            f"[train] freeze = 'stages:{count}' needs a backbone with more than {count} resolutions of feature maps; "
            f"this one has {len(stages)}"
        )
    frozen = []
    for name, module, _ in seen[: ends[stages[count - 1]] + 1]:
        own = list(module.parameters(recurse=False))
        for parameter in own:
            parameter.requires_grad_(False)
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.register_forward_pre_hook(_evaluate)
        if own:
            frozen.append(name)
    return frozen


def _evaluate(module: nn.Module, _inputs: Any) -> None:
    module.eval()


def _outputs(network: nn.Module, image: Tensor) -> list[tuple[str, nn.Module, int]]:
    """The modules in the order in which they end, and the side of their feature map, 0 for other outputs."""
    seen: list[tuple[str, nn.Module, int]] = []

    def end(name: str, module: nn.Module, out: Any) -> None:
        side = 0
        if isinstance(out, Tensor) and out.ndim == 4:
            side = out.shape[1] if out.shape[1] == out.shape[2] != out.shape[3] else out.shape[2]
        seen.append((name, module, side))

    hooks = [
        module.register_forward_hook(lambda module, _inputs, out, name=name: end(name, module, out))
        for name, module in network.named_modules()
        if name
    ]
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            network(image)
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    return seen
