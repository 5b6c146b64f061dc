"""Unsupervised Hashing with Similarity Distribution Calibration (Ng, Zhu, Hoe, Chan, Zhang, Song & Xiang, BMVC 2023).

Cosines of features cover a small range, and codes that repeat them are hard to tell apart. Only the order of the
features' cosines is kept: the cosines of the codes are moved to the quantiles of a beta distribution over the whole
range, pair by pair in that order.

    o_p = cos(f_i, f_j) without gradient,  h_p = cos(z_i, z_j)
          for each of the n unordered pairs p = (i, j) of a batch
    the pairs in ascending order of o:  t_p = 2 Q((2 p - 1) / (2 n)) - 1,
          Q the quantile function of Beta(shape, shape),  p = 1..n
    loss = mean over p of |h_p - t_p|
           + quantization mean of (1 - cos(z, sgn z))
    z = BatchNorm(W_2 GELU(W_1 f)),  code = sgn(z)

Resolved: the authors' code takes the pairs (i, i + B / 2) of a batch, one for two images; here all pairs are compared,
as for ``greedyhash-u`` and ``bihalf``, so that the loss does not depend on the order of the batch. The features get no
gradient. ``floor`` raises negative targets to 0, so that dissimilar codes are orthogonal instead of opposite.

Measured: on three validation parts of the training images of digits (scattering features, 32 bits), map@all is .638,
without ``floor`` .624, with one pair for two images .623; ``itq`` .604, ``greedyhash-u`` .612.

Public code: class and configuration disagree on the beta distribution (2 and 5) and on the weight of the quantization
term (0 and 1); the published configuration, whose values are the defaults here, exists with ``floor`` and without.
sgn(0) = 0 has no cosine.

Cite: ng2023sdc
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from hashzoo import Batch, Card, Log, Loss, Output, Setting, deep, signs
from hashzoo_plugins.pairwise import pairs
from hashzoo_plugins.pointwise.features import read


@lru_cache(maxsize=64)
def quantiles(count: int, shape: float) -> Tensor:
    """The targets (count,) of cosines in ascending order: centered quantiles of Beta(shape, shape), mapped to -1..1.

    >>> quantiles(2, 1.0)
    tensor([-0.5000,  0.5000], dtype=torch.float64)
    """
    from scipy.special import betaincinv  # the quantile function of a beta distribution

    places = (2 * np.arange(count) + 1) / (2 * count)
    return torch.from_numpy(2 * betaincinv(shape, shape, places) - 1)


class SDC(Loss):
    """Cosines of codes, in the order of those of features, with a beta distribution (Ng et al., BMVC 2023)."""

    def __init__(
        self,
        setting: Setting,
        *,
        shape: Annotated[float, Log(0.5, 50)] = 5.0,
        quantization: Annotated[float, Log(0.01, 100)] = 1.0,
        floor: bool = True,
    ) -> None:
        super().__init__()
        if shape <= 0:
            raise ValueError(f"sdc needs a beta distribution with shape > 0, not {shape}")
        self.shape, self.quantization, self.floor = shape, quantization, floor

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Terms ``calibration`` and ``quantization`` of (B, K) codes and the features of the same images."""
        pairs.require("sdc", batch)
        z = output.code
        order = pairs.upper(pairs.cosines(read("sdc", output, center=False))).argsort(stable=True)
        h = pairs.upper(pairs.cosines(z))[order]  # (n,)
        t = quantiles(len(h), self.shape).to(h)
        gap = 1 - cosine_similarity(z, signs(z), dim=1, eps=pairs.SMALL)
        return {
            "calibration": (h - (t.clamp(min=0) if self.floor else t)).abs().mean(),
            "quantization": self.quantization * gap.mean(),
        }


METHOD = deep(
    "mlp",
    SDC,
    card=Card("deep", "none", paper="Ng et al., BMVC 2023", year=2023),
    doc="SDC: code similarities spread by a beta distribution, in the order of features, no labels (Ng et al., 2023)",
)
