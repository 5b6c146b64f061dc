"""One Loss for All: Deep Hashing with a Single Cosine Similarity based Learning Objective (Hoe, Ng, Zhang, Chan,
Song & Xiang, NeurIPS 2021).

The loss is a softmax cross-entropy, with a margin, over the cosines between a code and the codewords of a fixed binary
codebook. It pulls the code toward the codeword of its class and away from the others, so it covers both classification
and quantization. Batch normalization balances the bits.

    z = BatchNorm(W f)  (B, K);  t_c in {-1, 1}^K fixed
    OrthoCos:  loss = mean over i of
               - log softmax( s (cos(z_i, t_c) - m [c = y_i]) )_{y_i}
    OrthoArc:  loss = mean over i of
               - log softmax( s cos(angle(z_i, t_c) + m [c = y_i]) )_{y_i}
    code = sgn(z);  s = 8, m = 0.2

Resolved: codewords are random signs by default. ``codebook = "hadamard"`` uses Hadamard rows if the number of bits
allows it; ``"mds"`` uses the centers of mdsh. For an image with several labels, the target is uniform over them, and
the margin applies to each. The gradient of the arc cosine is infinite at -1 and 1, so cosines are first clamped to at
most 1 - 1e-6 in absolute value.

Public code: on COCO, the released script trains with only the first of an image's labels.

Cite: hoe2021orthohash
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, normalize

from hashzoo import Batch, Card, Log, Loss, Output, Setting, Uniform, deep
from hashzoo_plugins.pairwise.pairs import SMALL
from hashzoo_plugins.pointwise.centers import shares
from hashzoo_plugins.pointwise.mds import Kind, centers

PAPER = "Hoe et al., NeurIPS 2021"
FLAT = 1e-6


def scores(code: Tensor, codebook: Tensor, labels: Tensor, margin: float, kind: Literal["cos", "arc"]) -> Tensor:
    """(B, C) cosines of codes (B, K) with codewords (C, K), minus the margin for the labels (B, C) of each image."""
    cosine = normalize(code, dim=1, eps=SMALL) @ normalize(codebook.to(code), dim=1).T
    own = (labels > 0).to(cosine)
    if kind == "cos":
        return cosine - margin * own
    return torch.cos(torch.arccos(cosine.clamp(FLAT - 1, 1 - FLAT)) + margin * own)


class OrthoHash(Loss):
    """Cross-entropy of cosines with a fixed codebook, with a margin (Hoe et al., NeurIPS 2021)."""

    codebook: Tensor

    def __init__(
        self,
        setting: Setting,
        *,
        scale: Annotated[float, Log(1, 100)] = 8.0,
        margin: Annotated[float, Uniform(0, 0.6)] = 0.2,
        codebook: Kind = "random",
        kind: Literal["cos", "arc"] = "cos",
    ) -> None:
        super().__init__()
        self.scale, self.margin, self.kind = scale, margin, kind
        self.register_buffer("codebook", centers(codebook, setting.classes, setting.bits))

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """The term ``codeword`` of (B, K) codes."""
        target = shares("orthohash", batch.labels)
        found = scores(output.code, self.codebook, batch.labels, self.margin, self.kind)
        return {"codeword": -(target * log_softmax(self.scale * found, 1)).sum(1).mean()}


def arc(
    setting: Setting,
    *,
    scale: Annotated[float, Log(1, 100)] = 8.0,
    margin: Annotated[float, Uniform(0, 0.6)] = 0.2,
    codebook: Kind = "random",
) -> OrthoHash:
    """Cross-entropy of angles with a fixed codebook, with a margin (OrthoArc of Hoe et al., NeurIPS 2021)."""
    return OrthoHash(setting, scale=scale, margin=margin, codebook=codebook, kind="arc")


METHOD = deep(
    "norm",
    OrthoHash,
    card=Card("deep", "classes", paper=PAPER, year=2021),
    doc="OrthoHash (OrthoCos): cosines with a fixed binary codebook (Hoe et al., NeurIPS 2021)",
)

METHOD_ARC = deep(
    "norm",
    arc,
    card=Card("deep", "classes", paper=PAPER, year=2021),
    doc="OrthoHash with the margin on the angle (OrthoArc, Hoe et al., NeurIPS 2021)",
)
