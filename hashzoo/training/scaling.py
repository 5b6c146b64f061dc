"""Loss scaling: the loss is multiplied before backward, so that gradients in fp16 do not vanish."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class LossScaler:
    """Backward and optimizer steps, with a scaled loss if ``enabled``.

    A step whose gradients overflow is left out, and the scale is halved.
    """

    def __init__(self, device: torch.device, enabled: bool) -> None:
        self._scaler = torch.amp.GradScaler(device.type) if enabled else None

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients of a loss, scaled."""
        scaled: Tensor = self._scaler.scale(loss) if self._scaler else loss
        scaled.backward()  # type: ignore[no-untyped-call]

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradients by the scale, which clipping needs."""
        if self._scaler:
            self._scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Take a step, unless a gradient is not finite because of the scale."""
        if not self._scaler:
            optimizer.step()
            return
        self._scaler.step(optimizer)
        self._scaler.update()

    def state(self) -> dict[str, Any]:
        """The scale and its growth, for a checkpoint; empty without scaling."""
        return self._scaler.state_dict() if self._scaler else {}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state` returned."""
        if self._scaler and state:
            self._scaler.load_state_dict(state)
