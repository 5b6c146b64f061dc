"""Whether the terms of a loss are finite, without waiting for the device in every step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hashzoo.errors import NonFiniteError


@dataclass(frozen=True)
class StepTerms:
    """The terms (T,) of a step, by name, and their sum; the step counts from 1, and progress is from 0 to 1."""

    step: int
    progress: float
    names: tuple[str, ...]
    terms: Tensor
    total: Tensor


class FiniteCheck:
    """Raises NonFiniteError for a term that is NaN or infinite: on the CPU at once, elsewhere once per epoch.

    Reading a value waits for all that the device has to do, which would leave it idle between steps.
    """

    def __init__(self) -> None:
        self._unread: list[StepTerms] = []
        self._steps = 0

    def add(self, names: tuple[str, ...], terms: Tensor, total: Tensor, progress: float) -> None:
        """Add the terms (T,) of a step, and their sum."""
        self._steps += 1
        self._unread.append(StepTerms(self._steps, progress, names, terms.detach(), total.detach()))
        if terms.device.type == "cpu":
            self.verify()

    def verify(self) -> None:
        """Read what was added. Raises NonFiniteError that names the first step and term that is not finite."""
        steps, self._unread = self._unread, []
        if not steps:
            return
        finite = torch.stack([step.total for step in steps]).isfinite().tolist()
        for step in (step for step, fine in zip(steps, finite, strict=True) if not fine):
            values = dict(zip(step.names, step.terms.tolist(), strict=True))
            bad = [name for name, fine in zip(step.names, step.terms.isfinite().tolist(), strict=True) if not fine]
            name = bad[0] if bad else step.names[0]  # terms can be finite and their sum not
            raise NonFiniteError(
                f"loss term {name!r} is {values[name]} at step {step.step}, {step.progress:.0%} of the training; "
                "a smaller learning rate or [train] clip often cures it"
            )
