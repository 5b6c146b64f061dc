"""Two views of every picture, on their way through a network and a loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hashzoo.method import Backbone
from hashzoo.types import Batch, Output
from hashzoo_plugins.pointwise.views import Views

SECOND = "second"  # what an Output calls the code of the second view


def pair(strength: float, flip: bool, crop: float) -> tuple[Views, Views]:
    """Two draws of the same transforms."""
    return Views(strength, flip, crop), Views(strength, flip, crop)


def output(backbone: Backbone, head: nn.Module, batch: Batch) -> Output:
    """The first view's output, the second's code beside it; two passes, each with batch statistics of its own."""
    first, second = (head(backbone(view)) for view in batch.views)
    return Output(first.code, first.logits, first.extra | {SECOND: second.code})


def together(output: Output, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Codes (M, K), classes (M,) and the pictures they show (M,), view after view: M is 2 B, or B for one view.

    >>> one = Batch((None,), torch.eye(2), torch.arange(2))
    >>> [part.tolist() for part in together(Output(torch.ones(2, 1), extra={SECOND: torch.zeros(2, 1)}), one)]
    [[[1.0], [1.0], [0.0], [0.0]], [0, 1, 0, 1], [0, 1, 0, 1]]
    """
    codes = [output.code, output.extra[SECOND]] if SECOND in output.extra else [output.code]
    pictures = torch.arange(len(batch), device=output.code.device)
    return torch.cat(codes), batch.labels.argmax(1).repeat(len(codes)), pictures.repeat(len(codes))
