"""Multi-grain attention hashing, from an article on deep hashing for image retrieval that cites no paper.

Each of three stages of a network is pooled under an attention map; the results are concatenated and hashed. The codes
are trained by a contrastive loss, first with the network frozen, then with the whole network.

Resolved: the article does not specify the following. The "last three convolution layers" are the outputs of the last
three stages (for the last three convolutions use the backbone option ``taps = "convolutions"``). The loss acts on b =
sign(W f + v) itself, as the article writes it, with a straight-through gradient. W f is normalized over the batch,
which folds into W and v afterwards: bits are balanced, and dissimilar codes start at the margin. ``relax = "tanh"`` and
``norm = "none"`` train on tanh(W f + v) instead. The margin is 2K, so that dissimilar codes should differ in half of
their bits. The loss is a mean over unordered pairs, without a quantization term (``quantization`` adds an L1 pull to
+-1, as in DSH). The first phase has ``warmup`` of the epochs at the full learning rate, the second the rest at ``tune``
times that rate. In the first phase, the frozen network is in eval mode. If its weights are random, its running
statistics are estimated on the training set before: with the initial mean 0 and variance 1, the hash layer would be
fitted to other features than it gets in the second phase. Classes are sampled equally often, so that every batch has
similar pairs (``sampler``).

"Multi-grain codes" are one code by default. With ``grain_bits``, each grain (``fine``, ``middle`` and ``coarse``, from
the first to the last stage) has a code of that many bits too, stored beside the joint one and counted in the stored
bits. ``hashzoo search --grain`` ranks by one of them, or by several with weights. Each has its own hash layer and the
same loss, whose gradient stops at the pooled features, so that the joint code is the same as without grains.

Measured: map@all at 32 bits, mean of three splits that no shipped board has (``seed`` 11 to 13), of ``relax = "tanh"``
and ``norm = "none"`` with the code before, and of the defaults: ``digits.standard`` with the backbone ``tiny`` 0.601
and 0.973 (``itq`` 0.627, ``classifier`` 0.937), with frozen scattering features 0.510 and 0.845; ``digits.lt50`` 0.433
and 0.839 (scattering 0.452 and 0.697). One cause was the loss: tanh codes saturate before the classes are separated.
The other was that bits repeat each other: z without normalization lets all of them follow one direction, with a mean
correlation of two bits of 0.54, after normalization 0.23. Of the changes alone, on splits 11 and 12 of
``digits.standard``, normalization gives 0.935 and 0.955, the sign without it 0.354 and 0.340, both 0.974 and 0.974, and
both without the estimated statistics 0.969 and 0.963.

With frozen ImageNet features and little data the defaults are worse: on 1,000 photographs of ten classes (MobileNetV2,
one split, 16, 32 and 64 bits), the options before give 0.890, 0.915 and 0.929, the defaults 0.834, 0.848 and 0.858, and
tanh with normalization 0.852 and 0.874 at 16 and 32 bits; on multi-label photographs of landscapes 0.779 and 0.804
became 0.757 and 0.780 at 16 and 32 bits. The cause is over-fitting: a sign has a gradient until the bit changes, so the
defaults fit the 1,408 pooled features of all training images, and tanh codes stop where they saturate. At 32 bits with
the attention left at 1/2, on 300 photographs of ten classes (three splits that no board has) the options before give
0.892 on training images and 0.872 on others after 30 epochs, 0.962 and 0.925 after 100; the defaults 0.992 and 0.899,
then 1.000 and 0.863. With 1,000 photographs, the defaults fall from 0.951 after 8 epochs to 0.932 after 30 (two
splits); with trained attention (maps of 4 x 4 positions, two splits) both score 0.939. For such features set ``[train]
dropout = 0.5`` (0.938 with 300 photographs after 30 epochs, 0.962 with 1,000; landscapes 0.816 instead of 0.780), fewer
epochs, or ``relax = "tanh"`` and ``norm = "none"`` (landscapes 0.842). On the 80 scattering features of digits, which
are too few to over-fit, dropout costs 0.19. ``relax = "tanh"`` with normalization and ``margin`` = K is above the
defaults on all of these (digits 0.852 instead of 0.835; 0.924 with 300 photographs; landscapes 0.818). Networks that
are fine-tuned were not compared.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hashzoo import (
    Backbone,
    Batch,
    Card,
    Codes,
    Deep,
    Features,
    Hamming,
    Head,
    Index,
    Log,
    Loss,
    Output,
    Run,
    Scan,
    Setting,
    Split,
    Uniform,
    bits,
)
from hashzoo_plugins.pairwise.pairs import contrastive, require, upper
from hashzoo_plugins.quantization import gap, straight_through
from hashzoo_plugins.structured import maps

GRAINS = ("fine", "middle", "coarse")  # the last three stages, in the order of their maps


class MultiGrain(Head):
    """The last three stages, each pooled under its own sigmoid attention, concatenated and hashed."""

    def __init__(
        self,
        setting: Setting,
        backbone: Backbone,
        *,
        relax: Literal["tanh", "ste"] = "ste",
        norm: Literal["batch", "none"] = "batch",
        grain_bits: int = 0,
    ) -> None:
        super().__init__()
        if grain_bits < 0:
            raise ValueError(f"grain_bits, the bits of the code of each grain, is 0 or more, not {grain_bits}")
        depths = maps.require("multi-grain", backbone, len(GRAINS))
        self.relax = relax
        self.attention = nn.ModuleList(nn.Conv2d(depth, 1, 1) for depth in depths)
        for layer in self.attention:
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # the initial attention is close to 1/2
        self.hash = hash_layer(sum(depths), setting.bits, norm)
        self.grains = nn.ModuleDict(
            {
                name: hash_layer(depth, grain_bits, norm)
                for name, depth in zip(GRAINS, depths, strict=True)
                if grain_bits
            }
        )

    def forward(self, features: Features) -> Output:
        """``code`` (B, K), and ``attention`` (B, h, w), the mean of the three maps at the finest resolution."""
        levels = features.maps[-len(GRAINS) :]
        looks = [torch.sigmoid(layer(f)) for layer, f in zip(self.attention, levels, strict=True)]
        pooled = [attend(f, a) for f, a in zip(levels, looks, strict=True)]
        relax = torch.tanh if self.relax == "tanh" else straight_through
        code = relax(self.hash(torch.cat(pooled, 1)))
        # detached: the joint code is the same with these codes as without them
        codes = {name: relax(layer(pooled[GRAINS.index(name)].detach())) for name, layer in self.grains.items()}
        finest = looks[0].shape[-2:]
        scaled = [nn.functional.interpolate(a, finest, mode="bilinear", align_corners=False) for a in looks]
        return Output(code, extra={"attention": torch.cat(scaled, 1).mean(1), **codes})


def hash_layer(depth: int, bits: int, norm: Literal["batch", "none"]) -> nn.Module:
    """z = W f + v, with batch normalization (which has the v) or without."""
    if norm == "none":
        return nn.Linear(depth, bits)
    return nn.Sequential(nn.Linear(depth, bits, bias=False), nn.BatchNorm1d(bits))


def estimate_statistics(backbone: Backbone, train: Split, run: Run) -> None:
    """Set the running statistics of the batch normalization of a random network to their means over a split.

    The layers of a network with loaded weights, and those that have seen a batch, keep theirs.
    """
    layers = [
        layer
        for layer in backbone.modules()
        if isinstance(layer, _BatchNorm) and layer.num_batches_tracked is not None and not layer.num_batches_tracked
    ]
    if not layers or set(backbone.weights.split(" + ")) != {"random"}:
        return
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.train()
        layer.momentum = None  # the mean over all batches
    order = torch.randperm(len(train), generator=run.generator)  # a split can be ordered by class
    with torch.no_grad():
        for batch in run.blank(train.take(order), run.train.batch):
            if len(batch) > 1:
                backbone(batch.images)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.eval()
        layer.momentum = momentum


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
        """Terms ``pair``, over unordered pairs, and ``quantization``, also of each grain that the head has a code of.

        A grain's margin has the same ratio to its length. ValueError for a batch of one.
        """
        require("contrastive", batch)
        terms = self._terms(output.code, batch, self.margin)
        for name in GRAINS:
            if name in output.extra:
                code = output.extra[name]
                margin = self.margin * code.shape[1] / output.code.shape[1]
                terms |= {f"{name} {term}": value for term, value in self._terms(code, batch, margin).items()}
        return terms

    def _terms(self, code: Tensor, batch: Batch, margin: float) -> dict[str, Tensor]:
        pairs = upper(contrastive(code, batch.similar, margin))
        terms = {"pair": pairs.mean() if self.reduction == "mean" else pairs.sum()}
        if self.quantization:
            terms["quantization"] = self.quantization * gap(code).abs().sum(1).mean()
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

    head: MultiGrain
    card = Card("deep", "pairs", paper="article on multi-grain retrieval, authors unknown")

    def __init__(
        self,
        setting: Setting,
        backbone: Backbone,
        *,
        relax: Literal["tanh", "ste"] = "ste",
        norm: Literal["batch", "none"] = "batch",
        grain_bits: int = 0,
        margin: float | None = None,
        reduction: Literal["mean", "sum"] = "mean",
        quantization: float = 0.0,
        warmup: Annotated[float, Uniform(0, 0.5)] = 0.2,
        tune: Annotated[float, Log(0.01, 1)] = 0.1,
        sampler: Literal["balanced", "uniform"] = "balanced",
    ) -> None:
        if not 0 <= warmup <= 1:
            raise ValueError(f"warmup, the share of epochs with a frozen network, must be in 0..1, not {warmup}")
        head = MultiGrain(setting, backbone, relax=relax, norm=norm, grain_bits=grain_bits)
        loss = Contrastive(setting, margin=margin, reduction=reduction, quantization=quantization)
        super().__init__(backbone, head, loss)
        self.warmup, self.tune, self.sampler = warmup, tune, sampler
        if grain_bits:
            beyond = f"a code of {grain_bits} bits for each grain beside the joint one"
            self.card = replace(self.card, beyond=beyond)  # type: ignore[misc]  # what this one stores

    def fit(self, train: Split, run: Run) -> None:
        """Train attention and hash layer on the frozen network, including its running statistics; then train all."""
        weights = balanced(train) if self.sampler == "balanced" else None
        first = min(run.train.epochs - (self.warmup < 1), round(self.warmup * run.train.epochs))
        if first:
            optimizer = run.optimizer(self.head)
            self.backbone.eval()
            estimate_statistics(self.backbone, train, run)
            for batch in run.batches(train, epochs=first, weights=weights, schedule="constant"):
                with torch.no_grad():
                    features = self.backbone(batch.images)
                run.step(optimizer, self.loss(self.head(features), batch))
            self.backbone.train()
        if first < run.train.epochs:
            optimizer = run.optimizer(self.backbone, self.head, lr=self.tune if first else 1.0)
            for batch in run.batches(train, epochs=run.train.epochs - first, weights=weights):
                run.step(optimizer, self.loss(self.head(self.backbone(batch.images)), batch))

    def encode(self, batch: Batch) -> Codes:
        """The sign of the joint code, and of the code of each grain if the head has them."""
        output: Output = self.head(self.backbone(batch.images))
        codes = {"code": bits(output.code)}
        return codes | {name: bits(output.extra[name]) for name in self.head.grains}

    def index(self) -> Index:
        """A scan by the joint code, which also stores the codes of the grains, for searches by them."""
        return Scan(Hamming("code", beside=tuple(self.head.grains)))
