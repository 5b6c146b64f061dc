"""Exponential moving average of weights, which ``[train] ema`` scores in place of those of the last step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """The average of the parameters and of the batch statistics of a module over the steps of its training.

    Step t has the decay min(``decay``, (1 + t) / (10 + t)), so that early weights, which are random, are forgotten.

    Args:
        module: The module that is trained.
        decay: Weight of the average so far against that of the current step, below 1.

    Attributes:
        steps: Number of steps so far.

    >>> layer = nn.Linear(1, 1, bias=False)
    >>> average = WeightAverage(layer, 0.5)
    >>> for value in (1.0, 2.0):
    ...     _ = layer.weight.data.fill_(value)
    ...     average.update()
    >>> with average.applied():
    ...     layer.weight.item() < 2
    True
    >>> layer.weight.item()
    2.0
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self._current = _weights(module)
        self._average = {name: value.clone() for name, value in self._current.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Add the current weights."""
        self.steps += 1
        share = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, value in self._current.items():
            self._average[name].lerp_(value, share)

    @torch.no_grad()
    def load(self) -> None:
        """Replace the weights of the module by their average."""
        for name, value in self._current.items():
            value.copy_(self._average[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Context in which the module has the average as weights."""
        kept = {name: value.clone() for name, value in self._current.items()}
        self.load()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, value in self._current.items():
                    value.copy_(kept[name])

    def state(self) -> dict[str, Tensor]:
        """The average as tensors for a checkpoint."""
        return {"steps": torch.tensor(self.steps), **{f"weight.{name}": v for name, v in self._average.items()}}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Restore what :meth:`state` returned."""
        self.steps = int(state["steps"])
        for name, value in self._average.items():
            value.copy_(state[f"weight.{name}"])


def _weights(module: nn.Module) -> dict[str, Tensor]:
    """Parameters that are trained and running statistics. Other buffers, such as memories of codes, are not weights."""
    found = {name: value.detach() for name, value in module.named_parameters() if value.requires_grad}
    for prefix, part in module.named_modules():
        if isinstance(part, nn.modules.batchnorm._NormBase):
            found |= {
                f"{prefix}.{name}": value
                for name, value in part.named_buffers(recurse=False)
                if value.is_floating_point()
            }
    return found
