"""TurboQuant: Online Vector Quantization with Near-optimal Distortion Rate (Zandieh, Daliri, Hadian & Mirrokni,
arXiv 2025).

After a random rotation, the coordinates of a vector are nearly Gaussian, whatever the data. Each is rounded to the
nearest level of the best quantizer of a Gaussian variable.

    v = R' (f - mean)  (d,),  o = v / |v|,  R a random rotation
    levels l_1 < ... < l_(2^b) of Lloyd and Max for N(0, 1)
    code_k = argmin over i of |sqrt d o_k - l_i|,  b bits each, d = K / b
    stored: code and |v|
    v is read as |v| / sqrt d (l_code_1, ..., l_code_d)

Resolved: this is the variant of least squared error; that for inner products adds the signs of projections of the
remainder. The paper stores all D features with b bits; here K is given, and b (``coordinate_bits``) is by default one
more than K has bits for each feature. Fewer coordinates than features are those of the top principal directions, as for
``rabitq``. The paper does not center. The levels are for the Gaussian limit, not for d coordinates. ``metric``: as for
``pq``. Distances are real numbers, so metrics within a Hamming radius are not defined.

Measured: on 500 of 40,000 sentence embeddings (384 features) that were held out from training, recall@10 at 384 bits is
.697, .732, .678 and .591 with 1, 2, 3 and 4 bits per coordinate, at 128 bits .472, .394, .328 and .273.

Cite: zandieh2025turboquant
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from hashzoo import Backbone, Batch, Card, Codes, Index, Method, Run, Scan, Setting, Split
from hashzoo_plugins.shallow import estimates
from hashzoo_plugins.shallow.estimates import Metric

STEPS = 20_000  # of Lloyd's algorithm at most
CLOSE = 1e-8  # a step that moves no level further is the last


@lru_cache(maxsize=8)
def levels(width: int) -> Tensor:
    """(2^width,) the levels of the best quantizer of N(0, 1), in float64 (Max 1960).

    >>> levels(1)
    tensor([-0.7979,  0.7979], dtype=torch.float64)
    """
    from scipy.special import ndtr, ndtri  # the distribution function of N(0, 1) and its inverse

    found = 3**0.5 * ndtri((np.arange(2**width) + 0.5) / 2**width)  # best for many levels (Panter and Dite 1951)
    for _ in range(STEPS):
        edges = np.concatenate([[-np.inf], (found[1:] + found[:-1]) / 2, [np.inf]])
        density = np.exp(-np.square(edges) / 2) / (2 * np.pi) ** 0.5
        means = -np.diff(density) / np.diff(ndtr(edges))
        moved, found = np.abs(means - found).max(), means
        if moved < CLOSE:
            break
    return torch.from_numpy((found - found[::-1]) / 2)  # symmetric to the last digit


class TurboQuant(Method):
    """Rotated coordinates rounded to the levels of a Gaussian variable (Zandieh et al., arXiv 2025)."""

    projection: Tensor
    card = Card(
        "shallow", "none", paper="Zandieh et al., arXiv 2025", year=2025, beyond="a real number per image, 32 bits"
    )

    def __init__(
        self, setting: Setting, backbone: Backbone, *, coordinate_bits: int = 0, metric: Metric = "data"
    ) -> None:
        super().__init__()
        self.width = estimates.coordinate_bits(setting.bits, backbone.dim, coordinate_bits, "turboquant")
        self.backbone, self.metric = backbone, estimates.metric_of(setting, metric)
        self.register_buffer("mean", torch.zeros(backbone.dim))
        self.register_buffer("projection", torch.zeros(backbone.dim, setting.bits // self.width))

    def fit(self, train: Split, run: Run) -> None:
        """Compute the mean and, for fewer coordinates than features, the principal directions; draw the rotation."""
        x = estimates.compared(run.features(self.backbone, train).pooled, self.metric)  # (N, D)
        self.mean = x.mean(0)
        self.projection = estimates.rotated(x - self.mean, self.projection.shape[1], run.generator)

    def encode(self, batch: Batch) -> Codes:
        """The numbers of the levels as bits and the length, and the rotated vector, with which an image is a query."""
        x = estimates.compared(self.backbone(batch.images).pooled, self.metric)
        v = (x - self.mean) @ self.projection
        norm = v.norm(dim=1)
        o = v / norm.clamp(min=torch.finfo(v.dtype).tiny)[:, None] * v.shape[1] ** 0.5
        grid = levels(self.width).to(v)
        code = torch.bucketize(o, (grid[1:] + grid[:-1]) / 2)
        return {"code": estimates.digits(code, self.width), "norm": norm, "query": v}

    def index(self) -> Index:
        """An exact scan by the distance of the query to the rounded vectors."""
        width, grid = self.width, levels(self.width)

        def decode(stored: Codes) -> Tensor:
            values = grid[estimates.numbers(stored["code"], width)]
            found: Tensor = values * (stored["norm"].double() / values.shape[1] ** 0.5)[:, None]
            return found

        return Scan(estimates.Decoded(self.metric, ("code", "norm"), decode))
