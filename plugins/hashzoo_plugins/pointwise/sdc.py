"""Unsupervised Hashing with Similarity Distribution Calibration (Ng, Zhu, Hoe, Chan, Zhang, Song & Xiang, BMVC 2023).

Cosines of features cover a small range, and codes that repeat them are hard to tell apart. Only the order of the
features' cosines is kept: the cosines of the codes are moved to the quantiles of a beta distribution over the whole
range, pair by pair in that order.

    pairs (i, i + n) of a batch of 2 n images
    o_i = cos(f_i, f_{i+n}) without gradient,  h_i = cos(z_i, z_{i+n})
    the pairs in ascending order of o:  t_i = 2 Q((2 i - 1) / (2 n)) - 1,
        Q the quantile function of Beta(shape, shape),  i = 1..n
    loss = mean over i of |h_i - t_i|  +  quantization mean of (1 - cos(z, sgn z))
    z = BatchNorm(W_2 GELU(W_1 f)),  code = sgn(z)

Resolved: of a batch with an odd number of images the last one has no partner and no loss of pairs. The features get no
gradient. ``floor = True`` raises negative targets to 0, so that dissimilar codes are orthogonal instead of opposite.

Measured: on three validation parts of digits (scattering features, 32 bits), map@all is .623, with ``floor`` .628 (the
difference changes its sign between the parts, by up to .045), for ``itq`` .604 and ``greedyhash-u`` .612.

Public code: class and configuration disagree on the beta distribution (2 and 5) and on the weight of the quantization
term (0 and 1), and stored versions of the configuration on ``floor``; sgn(0) = 0.

Cite: ng2023sdc
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from hashzoo import Batch, Card, Loss, Output, Setting, deep, signs
from hashzoo_plugins.pairwise import pairs
from hashzoo_plugins.pointwise.features import read


@lru_cache(maxsize=64)
def quantiles(count: int, shape: float) -> tuple[float, ...]:
    """The targets of ``count`` cosines in ascending order: centered quantiles of Beta(shape, shape), mapped to -1..1.

    >>> quantiles(2, 1.0)
    (-0.5, 0.5)
    """
    from scipy.special import betaincinv  # the quantile function of a beta distribution

    places = [(2 * i + 1) / (2 * count) for i in range(count)]
    return tuple(float(2 * q - 1) for q in betaincinv(shape, shape, places))


class SDC(Loss):
    """Cosines of codes, in the order of those of features, with a beta distribution (Ng et al., BMVC 2023)."""

    def __init__(self, setting: Setting, *, shape: float = 5.0, quantization: float = 1.0, floor: bool = False) -> None:
        super().__init__()
        if shape <= 0:
            raise ValueError(f"sdc needs a beta distribution with shape > 0, not {shape}")
        self.shape, self.quantization, self.floor = shape, quantization, floor

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Terms ``calibration`` and ``quantization`` of (B, K) codes and the features of the same images."""
        pairs.require("sdc", batch)
        n, z, f = len(batch) // 2, output.code, read("sdc", output, center=False)
        order = cosine_similarity(f[:n], f[n : 2 * n], dim=1).argsort(stable=True)
        h = cosine_similarity(z[:n], z[n : 2 * n], dim=1, eps=pairs.SMALL)[order]  # (n,)
        t = torch.tensor(quantiles(n, self.shape), dtype=h.dtype, device=h.device)
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
