"""Multi-grain attention hashing, from an article on deep hashing for image retrieval that cites no paper.

Each of three stages of a network is pooled under an attention map; the results are concatenated and hashed. The codes
are trained by a contrastive loss, first with the network frozen, then with the whole network.

Resolved: the article does not specify the following. The "last three convolution layers" are the outputs of the last
three stages (for the last three convolutions use the backbone option ``taps = "convolutions"``). Training uses u =
tanh(z), or the sign with a straight-through gradient (``relax = "ste"``). The margin is 2K, so that dissimilar codes
should differ in half of their bits. The loss is a mean over unordered pairs, without a quantization term
(``quantization`` adds an L1 pull to +-1, as in DSH). The first phase has ``warmup`` of the epochs at the full learning
rate, the second the rest at ``tune`` times that rate. Classes are sampled equally often, so that every batch has
similar pairs (``sampler``). "Multi-grain codes" are one code.

Measured: on stored scattering features of ``digits.standard`` map@all at 32 bits, mean of three seeds, is 0.503, below
``itq`` (0.618). One cause is the loss, since tanh codes saturate before the classes are separated: the same head with
``csq`` reaches 0.785 and with ``dch`` 0.793, and the loss alone 0.785 under tanh and 0.958 on linear codes (as
``dsh``). The other cause is the features: three pooled maps are 80 numbers without positions, from which
``saliency+csq`` reaches 0.806.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from hashzoo import Backbone, Batch, Card, Deep, Features, Head, Log, Loss, Output, Run, Setting, Split, Uniform
from hashzoo_plugins.pairwise.pairs import contrastive, require, upper
from hashzoo_plugins.quantization import gap, straight_through
from hashzoo_plugins.structured import maps

GRAINS = 3


class MultiGrain(Head):
    """The last three stages, each pooled under its own sigmoid attention, concatenated and hashed."""

    def __init__(self, setting: Setting, backbone: Backbone, *, relax: Literal["tanh", "ste"] = "tanh") -> None:
        super().__init__()
        depths = maps.require("multi-grain", backbone, GRAINS)
        self.relax = relax
        self.attention = nn.ModuleList(nn.Conv2d(depth, 1, 1) for depth in depths)
        for layer in self.attention:
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # the initial attention is close to 1/2
        self.hash = nn.Linear(sum(depths), setting.bits)

    def forward(self, features: Features) -> Output:
        """``code`` (B, K), and ``attention`` (B, h, w), the mean of the three maps at the finest resolution."""
        looks = [torch.sigmoid(layer(f)) for layer, f in zip(self.attention, features.maps[-GRAINS:], strict=True)]
        f = torch.cat([attend(f, a) for f, a in zip(features.maps[-GRAINS:], looks, strict=True)], 1)
        z = self.hash(f)
        code = torch.tanh(z) if self.relax == "tanh" else straight_through(z)
        finest = looks[0].shape[-2:]
        scaled = [nn.functional.interpolate(a, finest, mode="bilinear", align_corners=False) for a in looks]
        return Output(code, extra={"attention": torch.cat(scaled, 1).mean(1)})


def attend(features: Tensor, attention: Tensor) -> Tensor:
    """(B, D) the spatial mean of a map (B, D, h, w) weighted by attention (B, 1, h, w).

    It is not divided by the sum of the attention, so the amount of attention matters.
    """
    return (features * attention).mean((2, 3))


class Contrastive(Loss):
    """Squared distance of similar pairs, and a hinge at ``margin`` (default 2K) for dissimilar pairs."""

    def __init__(
        self,
        setting: Setting,
        *,
        margin: float | None = None,
        reduction: Literal["mean", "sum"] = "mean",
        quantization: float = 0.0,
    ) -> None:
        super().__init__()
        self.margin = 2.0 * setting.bits if margin is None else margin
        self.reduction, self.quantization = reduction, quantization

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Terms ``pair``, over unordered pairs, and ``quantization``. ValueError for a batch of one."""
        require("contrastive", batch)
        pairs = upper(contrastive(output.code, batch.similar, self.margin))
        terms = {"pair": pairs.mean() if self.reduction == "mean" else pairs.sum()}
        if self.quantization:
            terms["quantization"] = self.quantization * gap(output.code).abs().sum(1).mean()
        return terms


def balanced(train: Split) -> Tensor:
    """(N,) weights that sample all classes equally often; an image with several classes has that of the rarest.

    >>> balanced(Split(torch.zeros(3, 1, 1, 1), torch.tensor([[1.0, 0], [1, 0], [0, 1]]), torch.arange(3)))
    tensor([0.5000, 0.5000, 1.0000])
    """
    share = train.labels / train.labels.sum(0).clamp(min=1)  # (N, C)
    return torch.where(train.labels.sum(1) > 0, share.amax(1), 1 / len(train))


class MultiGrainHashing(Deep):
    """Multi-grain attention hashing: attention at three stages, contrastive loss, two phases of training."""

    card = Card("deep", "pairs", paper="article on multi-grain retrieval, authors unknown")

    def __init__(
        self,
        setting: Setting,
        backbone: Backbone,
        *,
        relax: Literal["tanh", "ste"] = "tanh",
        margin: float | None = None,
        reduction: Literal["mean", "sum"] = "mean",
        quantization: float = 0.0,
        warmup: Annotated[float, Uniform(0, 0.5)] = 0.2,
        tune: Annotated[float, Log(0.01, 1)] = 0.1,
        sampler: Literal["balanced", "uniform"] = "balanced",
    ) -> None:
        if not 0 <= warmup <= 1:
            raise ValueError(f"warmup, the share of epochs with a frozen network, must be in 0..1, not {warmup}")
        head = MultiGrain(setting, backbone, relax=relax)
        loss = Contrastive(setting, margin=margin, reduction=reduction, quantization=quantization)
        super().__init__(backbone, head, loss)
        self.warmup, self.tune, self.sampler = warmup, tune, sampler

    def fit(self, train: Split, run: Run) -> None:
        """Train attention and hash layer on the frozen network, including its running statistics; then train all."""
        weights = balanced(train) if self.sampler == "balanced" else None
        first = min(run.train.epochs - (self.warmup < 1), round(self.warmup * run.train.epochs))
        if first:
            optimizer = run.optimizer(self.head)
            self.backbone.eval()
            for batch in run.batches(train, epochs=first, weights=weights, schedule="constant"):
                with torch.no_grad():
                    features = self.backbone(batch.images)
                run.step(optimizer, self.loss(self.head(features), batch))
            self.backbone.train()
        if first < run.train.epochs:
            optimizer = run.optimizer(self.backbone, self.head, lr=self.tune if first else 1.0)
            for batch in run.batches(train, epochs=run.train.epochs - first, weights=weights):
                run.step(optimizer, self.loss(self.head(self.backbone(batch.images)), batch))
