"""WCH: Weighted Contrastive Hashing (Yu, Qiu, Chen & Zhang, ACCV 2022).

Two views of an image should have the same code, and other images codes at a distance that their patches tell. In
training, each view is described by the patches of the other that resemble its own.

    x', x''                patch tokens of two views  (P, D), at length 1: n
    a' = softmax over rows of x'' of <n'_p, n''_q>, times x''
    a'' = the same with the views exchanged        mutual attention
    h = tanh(W_2 ReLU(W_1 LayerNorm(mean over p of a_p)))  (B, K)
    s_ij = mean over p of max over q of cos(a'_ip, a''_jq)
    w_ij = exp((s_ij - s_ii) / patch_temperature)  without gradient
    c_ij = <sgn h'_i, sgn h''_j> / (K temperature)
    loss = - mean over i of sum over j of w_ij log softmax_j(c_ij)
           + weight (mean over bits of (mean over i of sgn h'_i)^2
                     - mean of (sgn h')^2),
           sgn with a straight-through gradient
    code = sgn(h) of one image, with x in place of a

Resolved: the second term of ``weight`` has the constant value -1; its gradient draws tanh to its signs. The last map of
any backbone gives the patches: for a vision transformer of timm its patch tokens, for a convolutional network, which
the paper does not have, the positions of the coarsest map. Layers start as those of torch do. sgn(0) = +1. Views are
those of Deep Hash Distillation at full strength with crops of at least 0.2 of the image. A single view is used as both.
Stored draws of views have no maps: with a frozen backbone set ``[train] draws = 0``, which computes each view anew, or
``backbone = "stored"``, where both views are the same features.

Measured: on digits.standard (stored scattering features, whose two views are the same, 32 bits, two seeds) map@all is
.436, ``itq`` .618; with the 30 epochs of the board zoo .381 (three seeds), ``lsh`` .383. Pretrained vision
transformers, for which it is made, were not measured.

Public code: w (a softmax divided by its diagonal, the same numbers) has a gradient, so that the network can lower the
loss by making the patches of different images unlike, whatever the codes are. The normal biases and the large first
weights start tanh where its gradient is below 1e-3, in most bits. The epoch is chosen by the score of the test set.

Cite: yu2022wch
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, normalize

from hashzoo import Backbone, Batch, Card, Deep, Features, Head, Log, Loss, Output, Setting
from hashzoo_plugins.pairwise import pairs
from hashzoo_plugins.pointwise.views import Views
from hashzoo_plugins.quantization import straight_through


class PatchHead(Head):
    """The mean of the patch tokens, normalized, one hidden layer and tanh; two views attend to each other first."""

    def __init__(self, setting: Setting, backbone: Backbone, *, hidden: int = 1024) -> None:
        super().__init__()
        if not backbone.map_dims:
            raise ValueError(
                "wch needs patch tokens, but this backbone has no feature map; use a vision transformer of timm, such "
                "as timm/vit_small_patch16_224, and [train] maps = true if it is frozen"
            )
        width = backbone.map_dims[-1]
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.layers = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, setting.bits))

    def forward(self, features: Features, other: Features | None = None) -> Output:
        """``code`` (B, K) in (-1, 1), and ``extra["patches"]`` (B, P, D).

        With the features of another view, ``extra`` has its code as ``second`` and its patches as ``second patches``.
        """
        patches = tokens(features)
        if other is None:
            return Output(self._code(patches), extra={"patches": patches})
        patches, second = mutual(patches, tokens(other))
        extra = {"patches": patches, "second": self._code(second), "second patches": second}
        return Output(self._code(patches), extra=extra)

    def _code(self, patches: Tensor) -> Tensor:
        code: Tensor = torch.tanh(self.layers(self.norm(patches.mean(1))))
        return code


def tokens(features: Features) -> Tensor:
    """(B, P, D) the positions of the last map (B, D, h, w)."""
    last: Tensor = features.maps[-1]
    return last.flatten(2).transpose(1, 2)


def mutual(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Each of two views (B, P, D) in terms of the other: means of its patches, weighted by their cosines."""
    alike = normalize(first, dim=2) @ normalize(second, dim=2).transpose(1, 2)  # (B, P, P)
    return alike.softmax(2) @ second, alike.transpose(1, 2).softmax(2) @ first


@torch.no_grad()
def best_matches(first: Tensor, second: Tensor) -> Tensor:
    """(B, B) for images of two views (B, P, D): the mean over the patches of the largest cosine with one of the other.

    >>> one, two = torch.eye(2)[None], torch.eye(2)[None, [0, 0]]
    >>> best_matches(one, two), best_matches(two, one)
    (tensor([[0.5000]]), tensor([[1.]]))
    """
    (count, patches, _), others = second.shape, normalize(second, dim=2).flatten(0, 1)
    rows = [(one @ others.T).view(-1, count, patches).amax(2).mean(0) for one in normalize(first, dim=2)]
    return torch.stack(rows)  # a row at a time: all cosines at once would need (B P)^2 numbers


class WCH(Loss):
    """Contrast of the codes of two views, weighted by how well patches match, no labels (Yu et al., ACCV 2022)."""

    def __init__(
        self,
        setting: Setting,
        *,
        temperature: Annotated[float, Log(0.05, 2)] = 0.3,
        patch_temperature: Annotated[float, Log(0.05, 2)] = 0.2,
        weight: Annotated[float, Log(0.01, 100)] = 1.0,
    ) -> None:
        super().__init__()
        self.temperature, self.patch_temperature, self.weight = temperature, patch_temperature, weight

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Terms ``contrast``, ``balance`` and ``energy``; a single view is used as both."""
        pairs.require("wch", batch)
        code, extra = output.code, output.extra
        if "patches" not in extra:
            raise ValueError("wch needs a head that returns patches, such as wch")
        first, second = straight_through(code), straight_through(extra.get("second", code))
        alike = best_matches(extra["patches"], extra.get("second patches", extra["patches"]))
        weights = ((alike - alike.diagonal()[:, None]) / self.patch_temperature).exp()
        scores = first @ second.T / (code.shape[1] * self.temperature)
        return {
            "contrast": -(weights * log_softmax(scores, 1)).sum(1).mean(),
            "balance": self.weight * first.mean(0).square().mean(),
            "energy": -self.weight * first.square().mean(),
        }


class WeightedContrast(Deep):
    """WCH: two views contrasted with weights from patches that match, no labels (Yu et al., ACCV 2022)."""

    card = Card(
        "deep",
        "none",
        paper="Yu et al., ACCV 2022",
        year=2022,
        views=True,
        collapses="at a rate of 1e-2, a thousand times the paper's, half of the small images of the check get one code",
    )

    def __init__(
        self,
        setting: Setting,
        backbone: Backbone,
        *,
        temperature: Annotated[float, Log(0.05, 2)] = 0.3,
        patch_temperature: Annotated[float, Log(0.05, 2)] = 0.2,
        weight: Annotated[float, Log(0.01, 100)] = 1.0,
        hidden: int = 1024,
        flip: bool = True,
        crop: float = 0.2,
    ) -> None:
        loss = WCH(setting, temperature=temperature, patch_temperature=patch_temperature, weight=weight)
        super().__init__(backbone, PatchHead(setting, backbone, hidden=hidden), loss)
        self.views = [Views(1.0, flip, crop)] * 2

    def seen(self, batch: Batch) -> Output:
        """The output of both views, which the head compares."""
        output: Output = self.head(*(self.backbone(view) for view in batch.views))
        return output
