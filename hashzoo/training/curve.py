"""The course of a training: means of loss terms and logged quantities over each epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

#: Kind (``loss``, ``logged`` or ``validation``) -> name -> value.
Epoch = dict[str, dict[str, float]]


class Curve:
    """Collects what is reported in an epoch; ``epochs`` has the means of each epoch that is over.

    An epoch without any report is left out. Values are kept as tensors until the epoch ends, since reading one waits
    for the GPU.
    """

    def __init__(self) -> None:
        self.epochs: list[Epoch] = []
        self._sums: dict[tuple[str, str], tuple[Tensor | float, int]] = {}

    def add(self, kind: str, values: Mapping[str, Any]) -> None:
        """Add numbers or scalar tensors by name."""
        for name, value in values.items():
            total, count = self._sums.get((kind, name), (0.0, 0))
            # in double precision, since the mean of many steps of one precision loses digits
            value = value.detach() if isinstance(value, Tensor) else value
            held = isinstance(value, Tensor) and value.device.type != "cpu"
            number = _precise(value) if held else float(value)
            self._sums[kind, name] = total + number, count + 1

    def forget(self) -> None:
        """Drop what was reported since the last epoch ended: it belongs to no epoch."""
        self._sums = {}

    def end_epoch(self) -> bool:
        """Close an epoch; returns whether anything was reported in it."""
        epoch: Epoch = {}
        for (kind, name), (total, count) in self._sums.items():
            mean = float(total) / count
            if math.isfinite(mean):
                epoch.setdefault(kind, {})[name] = mean
        self.forget()
        if epoch:
            self.epochs.append(epoch)
        return bool(epoch)

    def add_validation(self, scores: Mapping[str, float]) -> None:
        """Add validation scores by metric to the last epoch."""
        if self.epochs:
            self.epochs[-1].setdefault("validation", {}).update(scores)


def _precise(value: Tensor) -> Tensor:
    """A value in double precision, except on MPS, which has none."""
    return value.float() if value.device.type == "mps" else value.double()


def flatten(epoch: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The values of an epoch by one name each.

    >>> flatten({"loss": {"pair": 0.5}, "logged": {"rank": 3.0}, "validation": {"map@all": 0.7}})
    {'rank': 3.0, 'pair': 0.5, 'validation map@all': 0.7}
    """
    held = {f"validation {name}": value for name, value in epoch.get("validation", {}).items()}
    return {**epoch.get("logged", {}), **epoch.get("loss", {}), **held}
