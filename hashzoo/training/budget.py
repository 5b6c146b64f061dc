"""The training budget shared by every method of a benchmark, and its learning-rate schedules."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Schedule = Literal["constant", "step", "cosine"]

#: Maximum number of stored draws of a view: up to 2^26 images, seeds of draws stay below 2^32, which is all torch uses.
MAX_DRAWS = 64


class Budget(BaseModel):
    """The training budget of a benchmark, the same for every method. All of it is part of a cell's key.

    Args:
        backbone: ``"full"`` trains the backbone. ``"frozen"`` does not: its features are stored once, except for
            methods that train on views of images, which get the frozen network. ``"stored"`` uses stored features for
            these methods too, so that all their views are the same features.
        freeze: ``"stages:N"`` does not train the first N stages of the backbone; see
            ``hashzoo.training.freezing.freeze_stages``. Empty for none.
        maps: Whether the backbone returns feature maps in addition to pooled features.
        epochs: Passes over the training images.
        batch: Images per batch.
        accumulate: Parts in which the network computes a batch of a composed method, for a GPU with less memory. The
            loss sees the whole batch; batch statistics are those of a part.
        optimizer: ``"adam"``, ``"adamw"`` or ``"sgd"``.
        lr: Learning rate of heads and losses.
        backbone_lr: Multiple of ``lr`` that the backbone is trained with.
        momentum: Momentum of SGD.
        weight_decay: Weight decay of every parameter except scalars.
        schedule: Learning-rate schedule: ``"constant"``, ``"step"`` or ``"cosine"``; see :func:`rate`.
        warmup: Epochs in which the learning rate rises linearly to that of the schedule, such as 1 or 0.5.
        clip: Largest norm of the gradient, or None for no clipping.
        augment: Augmentation of training images: ``"none"``, ``"flip"``, ``"shift"`` or ``"crop-flip"``.
        draft: Whether JPEG files of twice the size of the backbone's inputs or more are decoded at a fraction of their
            size, which is faster and changes the pixels.
        precision: ``"fp32"``, or ``"bf16"`` or ``"fp16"`` to run the backbone in mixed precision; with ``"fp16"`` the
            loss is scaled.
        compile: Whether ``torch.compile`` compiles a backbone that is trained; the first steps take longer, and last
            digits can change.
        threads: CPU threads. Part of the budget because the order of a sum can change its last digit.
        draws: With a frozen backbone, the number of random draws of each view whose features are stored and reused
            (at most 64); 0 computes the features of every view anew.
        select: Name of a metric, such as ``"map@all"``: the state with the best validation score is scored in addition
            to the final one. Empty for no selection.
        patience: Epochs without a better validation score of ``select`` after which training stops; 0 trains all
            epochs.
        quantization: Name of a loss such as ``"hswd"`` whose terms are added to those of every deep method. Empty for
            none.
        quantization_weight: Weight of that loss.
        ema: Decay of the moving average of the weights, which is scored in place of those of the last step; 0 for none.
            Methods with their own training loop have none.
        dropout: Probability with which each feature is set to 0 in training before the head reads it, stored features
            too; methods without training by gradient ignore it.
        nested: ``"conflict"`` or ``"equal"``: one training serves all code lengths of a benchmark, and the shorter
            codes are prefixes of the longest. The losses of the lengths are weighted by the conflict of their
            gradients, or equally; see ``hashzoo.training.nested``. Empty trains each length by itself.
        nested_distillation: Weight of the term that draws the similarities of each length to those of the next longer.

    Raises:
        pydantic.ValidationError: A value is out of range, or a name is unknown.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: Literal["stored", "frozen", "full"] = "full"
    freeze: str = Field("", pattern="^(stages:[1-9])?$")
    maps: bool = True
    epochs: int = Field(20, ge=1)
    batch: int = Field(64, ge=2)
    accumulate: int = Field(1, ge=1)
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    lr: float = Field(1e-3, gt=0)
    backbone_lr: float = Field(1.0, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    schedule: Schedule = "cosine"
    warmup: float = Field(0.0, ge=0)
    clip: float | None = Field(None, gt=0)
    augment: Literal["none", "flip", "shift", "crop-flip"] = "none"
    draft: bool = False
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: bool = False
    threads: int = Field(1, ge=1)
    draws: int = Field(0, ge=0, le=MAX_DRAWS)
    select: str = ""
    patience: int = Field(0, ge=0)
    quantization: str = ""
    quantization_weight: float = Field(0.1, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    ema: float = Field(0.0, ge=0, lt=1)
    nested: str = Field("", pattern=r"^((conflict|equal)(:\d+(/\d+)+)?)?$")  # with the lengths in keys of cells
    nested_distillation: float = Field(0.1, ge=0)

    @model_validator(mode="after")
    def _fits(self) -> Budget:
        """A ValueError for values that exclude each other."""
        if self.freeze and self.backbone != "full":
            raise ValueError(f"freeze = {self.freeze!r} is for backbone = 'full'; this one is not trained at all")
        if self.patience and not self.select:
            raise ValueError("patience needs select, the metric whose validation score ends the training")
        if self.nested.startswith("conflict") and self.accumulate > 1:
            raise ValueError(
                f"nested = 'conflict' reads gradients of the head, which accumulate = {self.accumulate} computes too "
                "late; use nested = 'equal'"
            )
        if self.warmup > self.epochs:
            raise ValueError(f"warmup of {self.warmup:g} epochs is longer than the training of {self.epochs}")
        return self

    def recorded(self) -> dict[str, Any]:
        """The values that a cell's key contains. Fields added later are omitted if unused, which preserves old keys."""
        later: dict[str, Any] = {"draws": 0, "select": "", "warmup": 0.0, "patience": 0, "accumulate": 1, "freeze": ""}
        later |= {"quantization": "", "nested": "", "dropout": 0.0, "ema": 0.0, "compile": False, "draft": False}
        if not self.nested:
            later["nested_distillation"] = self.nested_distillation
        if not self.quantization:
            later["quantization_weight"] = self.quantization_weight
        return {name: value for name, value in self.model_dump().items() if later.get(name, ...) != value}


def rate(schedule: Schedule, progress: float) -> float:
    """Multiple of the learning rate at ``progress`` in 0..1; ``step`` divides it by ten at 60 % and at 85 %.

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
