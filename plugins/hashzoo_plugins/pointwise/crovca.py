"""CroVCA: Image Hashing via Cross-View Code Alignment in the Age of Foundation Models (Moummad, Zaher, Goeau &
Joly, arXiv 2025).

A small network on features of a pretrained backbone. The bits of one view are the targets of the other; the coding rate
of the codes keeps them from becoming equal, and batch normalization balances each bit.

    p_v = BatchNorm(W_2 ReLU(W_1 f_v))  (B, K),  views v = 1, 2
    t_v = [p_v >= 0] without gradient
    loss = mean over v of BCE(sigmoid(p_v), t of the other view)
           + gamma mean over v of R(p_v)
    R(p) = - (K + B) / (2 K B) log det(I + K / (B eps) Z' Z),
           Z: the rows of p at length 1
    code = [p >= 0]

``crovca-s`` learns from labels: both views have one target, from the means of classes in the batch.

    M_c = mean of p over both views of the images of class c
    t_i = [sum of M_c over the labels of i >= 0]

Resolved: eps 0.05, gamma 0.1 and weights from a normal distribution (s.d. 0.02, truncated at two units) with biases 0
are those of the authors' code, ``size = "large"`` its network for large sets. sgn(0) = +1. Views are those of Deep Hash
Distillation at full strength with crops of at least 0.4 of the image. The authors train 5 epochs with AdamW, weight
decay 0.01 and rates from 1e-3 to 1e-6 by a cosine, the backbone frozen or with low-rank updates; here the budget says.
The determinant is that of the smaller of Z'Z and ZZ', which are equal. With stored features both views are equal.

Measured: on digits.standard (scattering features, 32 bits, two seeds) map@all is .799, with labels .959; ``itq`` .618.
A small network trained with it from random weights gives .679 (three seeds; ``itq`` on pixels .648), and with labels
.935, .728 and .231: the targets are made from the network's own features, so it needs pretrained ones. With 1,280
features, the hidden layer has 1.6 million weights, 20 times those of a linear hash layer, and two views pass it in each
step: a fit on stored features takes over five times as long as the median of deep methods.

Public code: one version leaves the program in the first batch of the training; images without a label get the target of
all zeros; the determinant is computed from products in half precision, and its failure is not noticed; each epoch is
scored on the test set.

Cite: moummad2025crovca
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, normalize

from hashzoo import Backbone, Batch, Card, Deep, Features, Head, Log, Loss, Output, Setting
from hashzoo_plugins.pairwise.pairs import SMALL
from hashzoo_plugins.pointwise.centers import require_labels
from hashzoo_plugins.pointwise.views import Views

Size = Literal["small", "large"]
PAPER = "Moummad et al., arXiv 2025"


class HashCoder(Head):
    """One hidden layer (``large``: two wide ones), a linear layer and batch normalization (Moummad et al., 2025)."""

    def __init__(self, setting: Setting, backbone: Backbone, *, size: Size = "small") -> None:
        super().__init__()
        d, wide = backbone.dim, max(2 * backbone.dim, 2048)
        hidden: list[nn.Module] = [nn.Linear(d, d), nn.ReLU()]
        if size == "large":
            hidden = [nn.Linear(d, wide), nn.GELU(), nn.Linear(wide, wide), nn.GELU()]
        last = nn.Linear(wide if size == "large" else d, setting.bits)
        for layer in (*hidden, last):
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.layers = nn.Sequential(*hidden, last, nn.BatchNorm1d(setting.bits))

    def forward(self, features: Features) -> Output:
        """``code`` (B, K), log-odds; the input features in ``extra["features"]``."""
        return Output(self.layers(features.pooled), extra={"features": features.pooled})


def rate(code: Tensor, eps: float) -> Tensor:
    """R(p), minus the coding rate of codes (B, K); less for codes that point to more directions.

    >>> p = torch.tensor([[1.0, 0], [0, 1]])
    >>> round(float(rate(p, 1.0)), 6), round(float(rate(p[:1].repeat(2, 1), 1.0)), 6)
    (-0.693147, -0.549306)
    """
    (count, bits), z = code.shape, normalize(code, dim=1, eps=SMALL)
    gram = z @ z.T if count < bits else z.T @ z
    whole = torch.eye(len(gram)).to(gram) + bits / (count * eps) * gram
    half_log: Tensor = torch.linalg.cholesky_ex(whole).L.diagonal().log().sum()
    return -(bits + count) / (bits * count) * half_log


def prototypes(views: list[Tensor], labels: Tensor) -> Tensor:
    """(C, K) the mean of the codes (B, K) of all views of the images of each class; 0 for a class without images."""
    counts = labels.sum(0).clamp(min=1)[:, None]
    total: Tensor = sum(labels.T @ p for p in views)  # type: ignore[assignment]
    return total / (len(views) * counts)


class CrossView(Loss):
    """The bits of one view, or of the classes of an image, are the targets of the other; codes spread out."""

    def __init__(self, setting: Setting, supervised: bool, *, gamma: float, eps: float) -> None:
        super().__init__()
        self.supervised, self.gamma, self.eps = supervised, gamma, eps

    def targets(self, views: list[Tensor], labels: Tensor) -> list[Tensor]:
        """(B, K) targets of 0 and 1, one for each view."""
        if not self.supervised:
            return [(p >= 0).to(p) for p in reversed(views)]
        require_labels("crovca-s", labels)
        return [(labels @ prototypes(views, labels) >= 0).to(views[0])] * len(views)

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Terms ``alignment`` and ``rate``; the second view is ``output.extra["second"]``, or the same as the first."""
        views = [output.code, output.extra.get("second", output.code)]
        with torch.no_grad():
            targets = self.targets(views, batch.labels.to(output.code))
        apart = [binary_cross_entropy_with_logits(p, t) for p, t in zip(views, targets, strict=True)]
        return {
            "alignment": torch.stack(apart).mean(),
            "rate": self.gamma * torch.stack([rate(p, self.eps) for p in views]).mean(),
        }


def unsupervised(
    setting: Setting, *, gamma: Annotated[float, Log(1e-3, 10)] = 0.1, eps: Annotated[float, Log(5e-3, 0.5)] = 0.05
) -> CrossView:
    """The bits of one view are the targets of the other, and codes spread out, no labels (Moummad et al., 2025)."""
    return CrossView(setting, False, gamma=gamma, eps=eps)


def supervised(
    setting: Setting, *, gamma: Annotated[float, Log(1e-3, 10)] = 0.1, eps: Annotated[float, Log(5e-3, 0.5)] = 0.05
) -> CrossView:
    """The bits of class means are the targets of both views, and codes spread out (Moummad et al., 2025)."""
    return CrossView(setting, True, gamma=gamma, eps=eps)


class CroVCA(Deep):
    """CroVCA: views of an image predict each other's bits, codes fill the space, no labels (Moummad et al., 2025)."""

    card = Card("deep", "none", paper=PAPER, year=2025, views=True)

    def __init__(
        self,
        setting: Setting,
        backbone: Backbone,
        *,
        gamma: Annotated[float, Log(1e-3, 10)] = 0.1,
        eps: Annotated[float, Log(5e-3, 0.5)] = 0.05,
        size: Size = "small",
        flip: bool = True,
        crop: float = 0.4,
    ) -> None:
        super().__init__(backbone, HashCoder(setting, backbone, size=size), unsupervised(setting, gamma=gamma, eps=eps))
        self.views = [Views(1.0, flip, crop)] * 2


class CroVCASupervised(Deep):
    """CroVCA with labels: views of an image predict the bits of the means of its classes (Moummad et al., 2025)."""

    card = Card("deep", "classes", paper=PAPER, year=2025, views=True)

    def __init__(
        self,
        setting: Setting,
        backbone: Backbone,
        *,
        gamma: Annotated[float, Log(1e-3, 10)] = 0.1,
        eps: Annotated[float, Log(5e-3, 0.5)] = 0.05,
        size: Size = "small",
        flip: bool = True,
        crop: float = 0.4,
    ) -> None:
        super().__init__(backbone, HashCoder(setting, backbone, size=size), supervised(setting, gamma=gamma, eps=eps))
        self.views = [Views(1.0, flip, crop)] * 2
