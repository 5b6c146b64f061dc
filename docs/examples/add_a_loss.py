"""Add a loss: one file that is a plugin, checked and ranked beside known losses.

    python docs/examples/add_a_loss.py

The loss asks each code to be nearer to codes of its own class than to others by a margin, hardest pairs first (after
Hermans, Beyer & Leibe, In Defense of the Triplet Loss for Person Re-Identification, 2017).
"""

from __future__ import annotations

import sys

from torch import Tensor, nn
from torch.nn.functional import softplus

from hashzoo import Batch, Output, Setting, hookimpl


class BatchHard(nn.Module):
    """Each image's farthest friend must be nearer than its nearest stranger (Hermans et al., 2017)."""

    def __init__(self, setting: Setting, *, margin: float = 0.5) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """The term ``triplet``; images without a friend, or without a stranger, in the batch count nothing."""
        u = output.code  # (B, K)
        distance = (1 - u @ u.T / u.shape[1]) / 2  # (B, B) 0..1 for codes in -1..1, the share of bits that differ
        friends = batch.similar.clone().fill_diagonal_(0)  # (B, B) a copy: batch.similar is not ours
        strangers = 1 - batch.similar
        farthest = (distance - 2 * (1 - friends)).max(1).values  # (B,)
        nearest = (distance + 2 * (1 - strangers)).min(1).values  # (B,)
        counts = (friends.sum(1) > 0) & (strangers.sum(1) > 0)  # (B,)
        terms = softplus(8 * (farthest - nearest + self.margin)) * counts
        return {"triplet": terms.sum() / counts.sum().clamp(min=1)}


@hookimpl
def hashzoo_losses() -> dict[str, type[nn.Module]]:
    """The loss, as ``batch-hard``."""
    return {"batch-hard": BatchHard}


if __name__ == "__main__":
    from hashzoo.cli.main import main

    main(["check", __file__])
    main([
        "bench", "digits", "--quick", "--plugin", __file__, "--results", "hashzoo-results/add-a-loss",
        "--methods", "tanh+batch-hard,tanh+dhn,tanh+contrastive", *sys.argv[1:],
    ])  # fmt: skip
