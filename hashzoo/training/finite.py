"""Whether the terms of a loss are finite, without waiting for the device in every step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hashzoo.errors import NonFiniteError


@dataclass(frozen=True)
class StepTerms:
    """The scalar terms of a step by name, and their sum; the step counts from 1, and progress is from 0 to 1."""

    step: int
    progress: float
    terms: Mapping[str, Tensor]
    total: Tensor

    def error(self) -> NonFiniteError:
        """The error that names the first term that is not finite."""
        values = {name: float(term) for name, term in self.terms.items()}
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        name = bad[0] if bad else next(iter(values))  # terms can be finite and their sum not
        return NonFiniteError(
            f"loss term {name!r} is {values[name]} at step {self.step}, {self.progress:.0%} of the training; "
            "a smaller learning rate or [train] clip often cures it"
        )


class FiniteCheck:
    """Raises NonFiniteError for a term that is NaN or infinite: on the CPU at once, elsewhere once per epoch.

    Reading a value waits for all that the device has to do, which would leave it idle between steps.
    """

    def __init__(self) -> None:
        self._unread: list[StepTerms] = []
        self._steps = 0

    def add(self, terms: Mapping[str, Tensor], total: Tensor, progress: float) -> None:
        """Add the scalar terms of a step, and their sum."""
        self._steps += 1
        if total.device.type != "cpu":
            self._unread.append(StepTerms(self._steps, progress, terms, total))
        elif not math.isfinite(total.item()):
            raise StepTerms(self._steps, progress, terms, total).error()

    def verify(self) -> None:
        """Read what was added on another device. Raises NonFiniteError for the first step that is not finite."""
        steps, self._unread = self._unread, []
        if not steps:
            return
        finite = torch.stack([step.total for step in steps]).isfinite().tolist()
        for step in (step for step, fine in zip(steps, finite, strict=True) if not fine):
            raise step.error()
