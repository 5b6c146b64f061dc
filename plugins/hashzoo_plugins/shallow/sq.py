"""Binary and Scalar Embedding Quantization for Significantly Faster & Cheaper Retrieval (Shakir, Aarsen & Lee,
Hugging Face 2024), its scalar part.

Each feature is rounded to one of 256 (``int8``) or 16 (``int4``) values between its least and its largest training
value. A real-valued query is compared with the rounded vectors.

    a_k, z_k: the least and the largest training value of feature k
    code_k = floor(L (f_k - a_k) / (z_k - a_k)) within 0..L,  L = 255 or 15
    f_k is read as a_k + (code_k + 1/2) (z_k - a_k) / L

Resolved: the code and its value are those of faiss (``QT_8bit``, ``QT_4bit``, in the range of the training set); the
source subtracts 128 from the number. All D features are stored, in D or D / 2 bytes: the requested bits do not apply,
and the board says what is stored. The source compares the integers of query and image; here the query is real, as in
faiss. ``metric``: as for ``pq``. Distances are real numbers, so metrics within a Hamming radius are not defined.

Public code: ranges from the queries differ from those of the database, and their integers cannot be compared.

Cite: shakir2024binary
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from hashzoo import Backbone, Batch, Card, Codes, Index, Method, Run, Scan, Setting, Split
from hashzoo_plugins.shallow import estimates
from hashzoo_plugins.shallow.estimates import Metric

Width = Literal["int8", "int4"]
TOP = {"int8": 255, "int4": 15}  # the largest number of a code


def paired(code: Tensor) -> Tensor:
    """(B, ceil(D / 2)) uint8 with two numbers 0..15 of (B, D) in each byte, the first in the low half.

    >>> paired(torch.tensor([[1, 2, 3]], dtype=torch.uint8))
    tensor([[33,  3]], dtype=torch.uint8)
    """
    even = torch.nn.functional.pad(code, (0, code.shape[1] % 2))
    return even[:, ::2] | even[:, 1::2] << 4


def unpaired(code: Tensor, features: int) -> Tensor:
    """(N, D) the numbers of :func:`paired`.

    >>> unpaired(torch.tensor([[33, 3]], dtype=torch.uint8), 3)
    tensor([[1, 2, 3]], dtype=torch.uint8)
    """
    return torch.stack([code & 15, code >> 4], dim=2).flatten(1)[:, :features]


class SQ(Method):
    """Each feature rounded to one of 256 or 16 values in its range (Shakir et al., Hugging Face 2024)."""

    least: Tensor
    range: Tensor
    card = Card(
        "shallow",
        "none",
        paper="Shakir et al., Hugging Face 2024",
        year=2024,
        beyond="8 or 4 bits a feature, whatever the number of bits",
    )

    def __init__(self, setting: Setting, backbone: Backbone, *, width: Width = "int8", metric: Metric = "data") -> None:
        super().__init__()
        self.backbone, self.width, self.metric = backbone, width, estimates.metric_of(setting, metric)
        self.register_buffer("least", torch.zeros(backbone.dim))
        self.register_buffer("range", torch.ones(backbone.dim))

    def fit(self, train: Split, run: Run) -> None:
        """Find the range of each feature."""
        x = estimates.compared(run.features(self.backbone, train).pooled, self.metric)  # (N, D)
        self.least = x.amin(0)
        self.range = x.amax(0) - self.least

    def encode(self, batch: Batch) -> Codes:
        """The number of each feature, in a byte or half of one, and the features, with which an image is a query."""
        x = estimates.compared(self.backbone(batch.images).pooled, self.metric)
        share = (x - self.least) / self.range.clamp(min=torch.finfo(x.dtype).tiny)
        code = (TOP[self.width] * share.clamp(0, 1)).to(torch.uint8)
        return {"numbers": code if self.width == "int8" else paired(code), "query": x}

    def index(self) -> Index:
        """An exact scan by the distance of the query to the rounded vectors."""
        least, step, half = self.least.cpu(), self.range.cpu() / TOP[self.width], self.width == "int4"

        def decode(stored: Codes) -> Tensor:
            code = unpaired(stored["numbers"], len(least)) if half else stored["numbers"]
            return least.double() + (code.double() + 0.5) * step.double()

        return Scan(estimates.Decoded(self.metric, ("numbers",), decode))
