"""One Loss for Quantization: Deep Hashing with Discrete Wasserstein Distributional Matching (Doan, Yang & Li, CVPR
2022).

A quantization term that is added to the loss of another method: the values of each bit in a batch are to be distributed
as fair coins. It pulls every bit to -1 or 1 and half of them to each side.

    u_(1)k <= ... <= u_(B)k, the values of bit k in the batch, sorted
    r_(1)k <= ... <= r_(B)k, as many sorted fair signs
    q = mean over i, k of  E (u_(i)k - r_(i)k)^2

Resolved: the weight is 0.1, and the term reads the code that the method's loss reads (the authors: before the tanh).
The expectation is computed exactly, with P(r_(i) = -1) the probability that B coins show i tails or more, instead of
drawn for each batch (``target = "random"``): the same gradient without its noise. Drawn signs are rarely 1 in exactly
half of a batch, so that values in the middle are pulled to less than 1: in a batch of 64, to 0.90 on average.
``target = "halves"`` pulls the lower half to -1 and the upper half to 1, as in Bi-half. The version by projections on
random directions, and that by optimal transport, are not included.

Public code: signs are drawn as sgn of normal numbers; the best epoch on the test set is reported.

Cite: doan2022hswd
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Literal

import torch
from torch import Tensor

from hashzoo import Batch, Log, Loss, Output, Setting
from hashzoo_plugins.pairwise import pairs
from hashzoo_plugins.pointwise.centers import random_rows

Target = Literal["expected", "halves", "random"]


@lru_cache(maxsize=16)
def expected_signs(count: int) -> Tensor:
    """(n,) float64, the expectations of n sorted fair signs.

    >>> expected_signs(2), expected_signs(3)
    (tensor([-0.5000,  0.5000], dtype=torch.float64), tensor([-0.7500,  0.0000,  0.7500], dtype=torch.float64))
    """
    from scipy.stats import binom

    found = torch.tensor(1 - 2 * binom.sf(range(count), count, 0.5), dtype=torch.float64)
    return (found - found.flip(0)) / 2  # odd to the last digit


def sorted_signs(target: Target, count: int, bits: int) -> Tensor:
    """(n, K) or (n, 1) sorted targets of n values; random ones by the global generator of torch."""
    if target == "random":
        return random_rows(count, bits).sort(dim=0).values
    if target == "expected":
        return expected_signs(count)[:, None]
    return torch.where(torch.arange(count) < count - count // 2, -1.0, 1.0)[:, None]


class HSWD(Loss):
    """The distance of the values of each bit to fair signs, sorted (Doan et al., CVPR 2022)."""

    def __init__(
        self, setting: Setting, *, weight: Annotated[float, Log(1e-3, 10)] = 0.1, target: Target = "expected"
    ) -> None:
        super().__init__()
        self.weight, self.target = weight, target

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """The term ``hswd`` of (B, K) codes. ValueError for a batch of one."""
        pairs.require("hswd", batch)
        signs = sorted_signs(self.target, *output.code.shape).to(output.code)
        spread = 1 - signs.square()  # the variance of a sign about its expectation
        return {"hswd": self.weight * ((output.code.sort(dim=0).values - signs).square() + spread).mean()}
