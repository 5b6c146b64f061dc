"""Deep Polarized Network for Supervised Learning of Accurate Binary Hashing Codes (Fan, Ng, Ju, Zhang & Chan,
IJCAI 2020).

Each class has a random binary target. A hinge loss pushes every output beyond a margin on the side of its target, which
bounds the Hamming distance to the target.

    z = W f + v  (B, K),  code = sgn(z)
    t in {-1, 1}^K, the target of the class;
        with several labels, the sign of the sum of their targets
    loss = mean over i of  sum_k max(0, m - z_ik t_ik),  m = 1

Resolved: targets are random signs (``targets = "separated"``: each is the farthest of 100 from the previous ones;
``"mds"``: the centers of mdsh). If a sum of targets is 0, a fixed random vector decides. The ternary variant is not
included.

Public code: the authors report differences of one or two points from the order of the database alone; here the score is
the expectation over the order of ties.

Cite: fan2020dpn
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from hashzoo import Batch, Card, Log, Loss, Output, Setting, deep
from hashzoo_plugins.pointwise.centers import random_rows, require_labels, vote
from hashzoo_plugins.pointwise.mds import Kind, centers


def polarization(code: Tensor, target: Tensor, margin: float) -> Tensor:
    """(B,) max(0, margin - output * target) of outputs (B, K), summed over bits.

    >>> import torch
    >>> polarization(torch.tensor([[2.0, 0.5, -1.0]]), torch.tensor([[1.0, 1.0, 1.0]]), 1.0)
    tensor([2.5000])
    """
    return (margin - code * target).clamp(min=0).sum(1)


class DPN(Loss):
    """Polarization hinge toward one random target per class (Fan et al., IJCAI 2020)."""

    targets: Tensor
    ties: Tensor

    def __init__(
        self, setting: Setting, *, margin: Annotated[float, Log(0.1, 10)] = 1.0, targets: Kind = "random"
    ) -> None:
        super().__init__()
        self.margin = margin
        self.register_buffer("targets", centers(targets, setting.classes, setting.bits))
        self.register_buffer("ties", random_rows(1, setting.bits)[0])

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """The term ``polarization`` of (B, K) codes."""
        require_labels("dpn", batch.labels)
        target = vote(batch.labels, self.targets, self.ties).to(output.code)
        return {"polarization": polarization(output.code, target, self.margin).mean()}


METHOD = deep(
    "linear",
    DPN,
    card=Card("deep", "classes", paper="Fan et al., IJCAI 2020", year=2020),
    doc="Deep Polarized Network: a hinge towards random class targets (Fan et al., IJCAI 2020)",
)
