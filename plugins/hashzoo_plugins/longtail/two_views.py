"""The codes of two views of every image, as one batch for a loss."""

from __future__ import annotations

import torch
from torch import Tensor

from hashzoo import Batch, Output


def together(output: Output, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Codes (M, K), classes (M,) and image rows (M,) of all views, one view after another; M is 2 B, or B for one view.

    >>> one = Batch((None,), torch.eye(2), torch.arange(2))
    >>> [part.tolist() for part in together(Output(torch.ones(2, 1), extra={"second": torch.zeros(2, 1)}), one)]
    [[[1.0], [1.0], [0.0], [0.0]], [0, 1, 0, 1], [0, 1, 0, 1]]
    """
    codes = [output.code, output.extra["second"]] if "second" in output.extra else [output.code]
    images = torch.arange(len(batch), device=output.code.device)
    return torch.cat(codes), batch.labels.argmax(1).repeat(len(codes)), images.repeat(len(codes))
