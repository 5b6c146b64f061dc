"""The training budget shared by every method of a benchmark, and its learning-rate schedules."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Schedule = Literal["constant", "step", "cosine"]


#: The most draws of a view that are stored. A draw's seed is below 2^32 (torch looks at no more) up to 2^26 images.
DRAWS = 64


class Budget(BaseModel):
    """The budget that every method of a benchmark trains under; all of it is part of a cell's key.

    A ``frozen`` backbone learns nothing: its features are stored once, except for methods that learn from views of
    images, which get the network as it is. ``stored`` spares these too; all their views are then the same features.
    ``lr`` is the rate of heads and losses, ``backbone_lr`` the multiple of it that the backbone gets. ``threads``
    stands here because the order in which a sum is taken can change its last digit. ``draws`` stores, for a frozen
    backbone, the features of so many random draws of each view that is asked for, instead of computing each anew.
    ``select`` names a metric: the state that was best by it on the validation images is scored beside the last one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: Literal["stored", "frozen", "full"] = "full"
    maps: bool = True
    epochs: int = Field(20, ge=1)
    batch: int = Field(64, ge=2)
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    lr: float = Field(1e-3, gt=0)
    backbone_lr: float = Field(1.0, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    schedule: Schedule = "cosine"
    clip: float | None = Field(None, gt=0)
    augment: Literal["none", "flip", "shift", "crop-flip"] = "none"
    precision: Literal["fp32", "bf16"] = "fp32"
    threads: int = Field(1, ge=1)
    draws: int = Field(0, ge=0, le=DRAWS)
    select: str = ""

    def recorded(self) -> dict[str, Any]:
        """What stands in a cell's key. What came later is left out where it is not used, so that old keys stay."""
        values = self.model_dump()
        return {name: value for name, value in values.items() if value or name not in ("draws", "select")}


def rate(schedule: Schedule, progress: float) -> float:
    """The multiple of the learning rate at ``progress`` 0..1: ``step`` divides by ten at 60 % and at 85 %.

    >>> [round(rate("cosine", p), 3) for p in (0, 0.5, 1)]
    [1.0, 0.5, 0.0]
    >>> [round(rate("step", p), 3) for p in (0.59, 0.6, 0.85)]
    [1.0, 0.1, 0.01]
    """
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    if schedule == "step":
        return 0.1 ** sum(progress >= milestone for milestone in (0.6, 0.85))
    return 1.0
