"""Deep Supervised Hashing for Fast Image Retrieval (Liu, Wang, Shan & Chen, CVPR 2016).

Similar images are pulled together, dissimilar images are pushed apart up to a distance of ``margin``, and codes are
pulled to +-1 by their L1 distance. The output is linear, so that no saturation slows the gradient.

    d_ij = |u_i - u_j|^2,  u = W f + v  (B, K)
    loss = mean over i < j of  s_ij / 2 d_ij + (1 - s_ij) / 2 max(m - d_ij, 0)
                               + alpha (||u_i| - 1|_1 + ||u_j| - 1|_1)
    m = 2 K: dissimilar codes should differ in half of their bits
    code = sgn(u)

Resolved: the loss is a mean over unordered pairs; every image is in B - 1 of them, so the last term is 2 alpha times
the mean over images. At u = 0 the slope of ||u| - 1| is that for sgn(0) = +1.

Public code: ports use the sign instead of the absolute value in the regularizer, or average it with another alpha.

Cite: liu2016dsh
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from hashzoo import Batch, Card, Log, Loss, Output, Setting, deep
from hashzoo_plugins.pairwise import pairs
from hashzoo_plugins.quantization import gap


class DSH(Loss):
    """Contrastive loss with a margin and an L1 pull to +-1 (Liu et al., CVPR 2016)."""

    def __init__(
        self, setting: Setting, *, margin: float | None = None, alpha: Annotated[float, Log(1e-4, 1)] = 0.01
    ) -> None:
        super().__init__()
        self.margin = 2.0 * setting.bits if margin is None else margin
        self.alpha = alpha

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Terms ``pair`` and ``quantization`` of (B, K) codes. ValueError for a batch of one."""
        pairs.require("dsh", batch)
        pair = pairs.contrastive(output.code, batch.similar, self.margin) / 2  # (B, B)
        return {
            "pair": pairs.upper(pair).mean(),
            "quantization": 2 * self.alpha * gap(output.code).abs().sum(1).mean(),
        }


METHOD = deep(
    "linear",
    DSH,
    card=Card("deep", "pairs", paper="Liu et al., CVPR 2016", year=2016),
    doc="Deep Supervised Hashing: contrastive loss with a margin of 2K (Liu et al., CVPR 2016)",
)
