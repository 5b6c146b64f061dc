"""Deep code operation hashing, after Song & Tan, Deep Code Operation Network (CVIU 2020); DCOH is its thesis version.

Codes with an algebra: linear maps of two codes compute the codes of the union, intersection and difference of their
label sets, so that a query can be "a and b" or "a without b". There are three criteria: distances follow the overlap of
label sets, labels can be predicted from codes, and generated codes are indistinguishable from codes of images for a
discriminator.

Resolved: the formulas of the papers were not available. The similarity of label sets is their Jaccard index
(``similarity = "count"``: shared labels divided by the maximum in the batch). The triplet margin is proportional to the
difference of similarities, at most K/2. Labels have a binary cross-entropy. The operators have the non-saturating loss
against the discriminator, with detached operands, so that it trains the operators only. There is a quantization term.
The difference is trained on the output of the union, (a or b) without b, as in the source, but queried on two codes
directly (its eq. 3.5), which differs from the training: ``difference = "composite"`` also queries on the output of the
union, "direct" also trains on the two codes. The weights are 1, 0.1 and 0.1. The triplet term is in bits, so for a
network that is not pretrained ``semantic`` must be of the same magnitude, or all codes collapse into one. Triplets have
``anchors`` random anchors per batch and all other images. ``tie`` makes union and intersection commutative;
``query_codes = "binary"`` composes queries from stored codes.

Cite: song2020conet
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, leaky_relu

from hashzoo import (
    Backbone,
    Batch,
    Card,
    Codes,
    Deep,
    Features,
    Head,
    Log,
    Loss,
    Operation,
    Output,
    Run,
    Setting,
    Split,
    bits,
    signs,
)
from hashzoo_plugins.datasets.composed import algebra
from hashzoo_plugins.quantization import gap

INIT_NOISE = 0.01


def overlap(labels: Tensor, similarity: Literal["jaccard", "count"]) -> Tensor:
    """(n, n) similarities of label sets (n, C). Raises ValueError for an empty set.

    >>> overlap(torch.tensor([[1.0, 1, 0], [1, 1, 1]]), "jaccard")[0]
    tensor([1.0000, 0.6667])
    """
    if not (labels.sum(1) > 0).all():
        raise ValueError(
            "dcoh needs at least one label per image; remove images without labels from the training split"
        )
    shared = labels @ labels.T
    if similarity == "count":
        return shared / shared.max()
    size = labels.sum(1)
    return shared / (size[:, None] + size[None] - shared)


def triplets(codes: Tensor, similar: Tensor, margin: float, anchors: Tensor) -> Tensor:
    """The mean over triplets with s(a, p) > s(a, n) of max(0, d(a, p) - d(a, n) + margin (s(a, p) - s(a, n))).

    ``codes`` (n, K), ``similar`` (n, n), d = (K - <h, h'>) / 2. ``anchors`` are rows; an anchor is not its own positive
    or negative. The result is 0 without triplets.
    """
    distance = (codes.shape[1] - codes[anchors] @ codes.T) / 2  # (A, n)
    s = similar[anchors]
    rise = s[:, :, None] - s[:, None, :]  # (A, n, n): positives, negatives
    other = torch.ones_like(s, dtype=torch.bool).scatter_(1, anchors[:, None], False)
    valid = (rise > 0) & other[:, :, None] & other[:, None, :]
    loss = (distance[:, :, None] - distance[:, None, :] + margin * rise).clamp(min=0)
    return (loss * valid).sum() / valid.sum().clamp(min=1)


class FullyConnected(Head):
    """Two fully connected layers of ``hidden`` units, then a tanh layer of K units."""

    def __init__(self, setting: Setting, backbone: Backbone, *, hidden: int = 4096) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(backbone.dim, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, setting.bits),
            nn.Tanh(),
        )

    def forward(self, features: Features) -> Output:
        """``code`` (B, K) in (-1, 1)."""
        return Output(self.layers(features.pooled))


class Operators(nn.Module):
    """Union, intersection and difference of codes as linear maps of two codes, without bias (eq. 3.3 to 3.5)."""

    def __init__(self, bits: int, tie: bool) -> None:
        super().__init__()
        self.tie = tie
        one = torch.eye(bits)

        def near(left: float, right: float) -> nn.Parameter:
            start = torch.cat([left * one, right * one], 1)
            return nn.Parameter(start + INIT_NOISE * torch.randn(bits, 2 * bits))

        self.maps = nn.ParameterDict(
            {"union": near(0.5, 0.5), "intersection": near(0.5, 0.5), "difference": near(1.0, -0.5)}
        )

    def forward(self, operation: Operation, a: Tensor, b: Tensor) -> Tensor:
        """The composed code (B, K) of two codes (B, K); it is linear, so values can be outside (-1, 1)."""
        weight: Tensor = self.maps[operation]
        if self.tie and operation != "difference":
            half = weight[:, : a.shape[1]]
            weight = torch.cat([half, half], 1)
        return torch.cat([a, b], 1) @ weight.T


class Discriminator(nn.Module):
    """Classifies codes as those of images or generated ones: K -> 128 -> 1, as log-odds."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(bits, 128), nn.Linear(128, 1)

    def forward(self, code: Tensor) -> Tensor:
        """(B,) log-odds that a code (B, K) belongs to an image."""
        logits: Tensor = self.second(leaky_relu(self.first(code), 0.2))
        return logits[:, 0]


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """-E log D(real) - E log(1 - D(fake)), from log-odds."""
    return binary_cross_entropy_with_logits(real, torch.ones_like(real)) + binary_cross_entropy_with_logits(
        fake, torch.zeros_like(fake)
    )


def adversarial_loss(fake: Tensor) -> Tensor:
    """-E log D(fake), from log-odds."""
    return binary_cross_entropy_with_logits(fake, torch.ones_like(fake))


class MultiLevel(Loss):
    """Margin-adaptive triplets over multi-level similarity, label prediction and quantization, without operators."""

    def __init__(
        self,
        setting: Setting,
        *,
        margin: float | None = None,
        semantic: Annotated[float, Log(0.01, 100)] = 1.0,
        quantization: Annotated[float, Log(1e-3, 10)] = 0.1,
        similarity: Literal["jaccard", "count"] = "jaccard",
    ) -> None:
        super().__init__()
        self.margin = setting.bits / 2 if margin is None else margin
        self.semantic, self.quantization, self.similarity = semantic, quantization, similarity
        self.classifier = nn.Linear(setting.bits, setting.classes)

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Terms ``triplet``, ``semantic`` and ``quantization`` of (B, K) codes."""
        return self.terms(output.code, batch.labels, torch.arange(len(batch)))

    def terms(self, codes: Tensor, labels: Tensor, anchors: Tensor) -> dict[str, Tensor]:
        """The three terms of codes (n, K) with label sets (n, C) and triplets with these anchor rows."""
        rows = anchors.to(codes.device)
        similar = overlap(labels, self.similarity)
        return {
            "triplet": triplets(codes, similar, self.margin, rows),
            "semantic": self.semantic * binary_cross_entropy_with_logits(self.classifier(codes), labels),
            "quantization": self.quantization * gap(codes).square().mean(),
        }


class DCOH(Deep):
    """Deep code operation hashing: codes with union, intersection and difference, learned against a discriminator."""

    loss: MultiLevel
    card = Card("deep", "classes", single=False, paper="Song & Tan, CVIU 2020", year=2020)

    def __init__(
        self,
        setting: Setting,
        backbone: Backbone,
        *,
        hidden: int = 4096,
        margin: float | None = None,
        semantic: Annotated[float, Log(0.01, 100)] = 1.0,
        adversarial: Annotated[float, Log(1e-3, 10)] = 0.1,
        quantization: Annotated[float, Log(1e-3, 10)] = 0.1,
        similarity: Literal["jaccard", "count"] = "jaccard",
        anchors: int = 32,
        warmup: float = 0.1,
        tie: bool = False,
        query_codes: Literal["relaxed", "binary"] = "relaxed",
        difference: Literal["mixed", "composite", "direct"] = "mixed",
    ) -> None:
        """``warmup`` is the fraction of the training without operators."""
        if not setting.multilabel:
            raise ValueError("dcoh needs images with several labels; use a multi-label dataset such as scenes.union")
        head = FullyConnected(setting, backbone, hidden=hidden)
        operators, discriminator = Operators(setting.bits, tie), Discriminator(setting.bits)
        loss = MultiLevel(setting, margin=margin, semantic=semantic, quantization=quantization, similarity=similarity)
        super().__init__(backbone, head, loss)
        self.operators, self.discriminator = operators, discriminator
        self.adversarial, self.warmup, self.anchors = adversarial, warmup, anchors
        self.query_codes, self.difference = query_codes, difference

    def fit(self, train: Split, run: Run) -> None:
        """Alternate between a step of the discriminator and a step of all other parts."""
        players = run.optimizer(self.backbone, self.head, self.operators, self.loss)
        judge = run.optimizer(self.discriminator)
        for batch in run.batches(train):
            h = self.head(self.backbone(batch.images)).code  # (B, K)
            if batch.progress < self.warmup:
                run.step(players, self.loss.terms(h, batch.labels, self._anchors(len(h), run)))
                continue
            first, second = partners(len(batch), run.generator)
            codes, labels = self.composed(h[first], h[second], batch.labels[first], batch.labels[second])
            run.step(judge, self.judged(h.detach(), codes.detach()))
            every, sets = torch.cat([h, codes]), torch.cat([batch.labels, labels])
            terms = self.loss.terms(every, sets, self._anchors(len(every), run))
            alone = h.detach()  # the gradient of the discriminator trains the operators only
            fooled, _ = self.composed(alone[first], alone[second], batch.labels[first], batch.labels[second])
            self.discriminator.requires_grad_(False)
            terms["adversarial"] = self.adversarial * adversarial_loss(self.discriminator(fooled))
            run.step(players, terms)
            self.discriminator.requires_grad_(True)

    def _anchors(self, count: int, run: Run) -> Tensor:
        return torch.randperm(count, generator=run.generator)[: self.anchors]

    def composed(self, a: Tensor, b: Tensor, of_a: Tensor, of_b: Tensor) -> tuple[Tensor, Tensor]:
        """Generated codes (n, K) of pairs (P, K), and their label sets.

        These are unions, nonempty intersections, and unions without their second operand (eq. 3.6) or, for ``difference
        = "direct"``, the first operand without the second.
        """
        union = self.operators("union", a, b)
        united = algebra("union", of_a, of_b)
        common = algebra("intersection", of_a, of_b)
        kept = common.sum(1) > 0
        whole, of_whole = (a, of_a) if self.difference == "direct" else (union, united)
        codes = [
            union,
            self.operators("intersection", a[kept], b[kept]),
            self.operators("difference", whole, b),
        ]
        return torch.cat(codes), torch.cat([united, common[kept], algebra("difference", of_whole, of_b)])

    def judged(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """The loss of the discriminator."""
        return {"discriminator": discriminator_loss(self.discriminator(real), self.discriminator(fake))}

    def encode(self, batch: Batch) -> Codes:
        """The sign of h, and h, the operand of composed queries; the database stores the sign only."""
        h = self.relaxed(batch)
        return {"code": bits(h), "relaxed": h}

    def compose(self, operation: Operation, a: Codes, b: Codes) -> Codes:
        """The sign of the output of the operator."""
        device = self.operators.maps[operation].device
        x, y = (self._operand(codes).to(device) for codes in (a, b))
        with torch.no_grad():
            if operation == "difference" and self.difference == "composite":
                x = self.operators("union", x, y)
            return {"code": bits(self.operators(operation, x, y)).cpu()}

    def _operand(self, codes: Codes) -> Tensor:
        return codes["relaxed"] if self.query_codes == "relaxed" else signs(codes["code"].float() - 0.5)


def partners(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The rows of random pairs of two different images; each row is once the first and once the second.

    >>> first, second = partners(5, torch.Generator().manual_seed(0))
    >>> sorted(first.tolist()) == sorted(second.tolist()) == [0, 1, 2, 3, 4], bool((first == second).any())
    (True, False)
    """
    order = torch.randperm(count, generator=generator)
    return order, order.roll(1)
