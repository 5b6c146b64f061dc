"""Deep code operation hashing, after Song & Tan, Deep Code Operation Network (CVIU 2020); DCOH is its thesis version.

Codes with an algebra: linear maps of two codes compute the codes of the union, intersection and difference of their
label sets, so that a query can be "a and b" or "a without b". There are three criteria: distances follow the overlap of
label sets, labels can be predicted from codes, and generated codes are indistinguishable from codes of images for a
discriminator.

Resolved: the formulas of the papers were not available. The similarity of label sets is their Jaccard index
(``similarity = "count"``: shared labels divided by the maximum in the batch). The triplet margin is proportional to the
difference of similarities, at most K/2. Labels have a binary cross-entropy. The operators have the non-saturating loss
against the discriminator, with detached operands, so that it trains the operators only. There is a quantization term.
The weights are 1, 0.1 and 0.1.

So that no rate or width makes all codes equal, as it did on scenes and photographs: the last layer has batch
normalization before tanh, and the triplet term is divided by K. The two hidden layers have the 4,096 units of the
paper's network only where the features have 4,096 dimensions, else 256. The operators are trained after the first tenth
of the training (``warmup``), and the weight of their adversary rises during the next tenth.

Random pairs of images rarely share a label, so the source trains the difference on the output of the union, (a or b)
without b, but queries it on two codes directly (its eq. 3.5 and 3.6). Here the default trains it directly, on pairs of
the batch whose difference is proper (``difference = "proper"``). "mixed" is the source's way, "composite" also queries
on the output of the union, and "direct" trains on random pairs. ``operator = "residual"`` adds a network of two layers
to each linear operator. Triplets have ``anchors`` random anchors per batch and all other images. ``tie`` makes union
and intersection commutative; ``query_codes = "binary"`` composes queries from stored codes.

Measured: on three splits of MIML scenes (frozen MobileNetV2, 32 bits, 15 epochs) map@all is .844 and at most 17 % of
the database images share a code. The earlier defaults (4,096 units, no normalization) gave .491, .299 and .471, with
one code for 61, 100 and 48 %; ``classifier`` has .745 and ``itq`` .656.

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
from hashzoo_plugins.pointwise.centers import require_labels
from hashzoo_plugins.quantization import gap

Rows = tuple[Tensor, Tensor]  # the rows of the first and the second image of pairs

INIT_NOISE = 0.01
PAPER_UNITS, UNITS = 4096, 256  # of each hidden layer


def overlap(labels: Tensor, similarity: Literal["jaccard", "count"]) -> Tensor:
    """(n, n) similarities of label sets (n, C). Raises ValueError for an empty set.

    >>> overlap(torch.tensor([[1.0, 1, 0], [1, 1, 1]]), "jaccard")[0]
    tensor([1.0000, 0.6667])
    """
    require_labels("dcoh", labels)
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
    """Two fully connected layers of ``hidden`` units, then K units with batch normalization and tanh.

    ``hidden`` is by default the 4,096 of the paper's network where the features have that many dimensions, and 256
    elsewhere. Normalization keeps tanh away from saturation at any width and rate.
    """

    def __init__(self, setting: Setting, backbone: Backbone, *, hidden: int | None = None) -> None:
        super().__init__()
        units = (PAPER_UNITS if backbone.dim >= PAPER_UNITS else UNITS) if hidden is None else hidden
        self.layers = nn.Sequential(
            nn.Linear(backbone.dim, units),
            nn.ReLU(),
            nn.Linear(units, units),
            nn.ReLU(),
            nn.Linear(units, setting.bits, bias=False),
            nn.BatchNorm1d(setting.bits),
            nn.Tanh(),
        )

    def forward(self, features: Features) -> Output:
        """``code`` (B, K) in (-1, 1)."""
        return Output(self.layers(features.pooled))


class Correction(nn.Module):
    """What a residual operator adds to the linear one: two layers with 4 K units between them, 0 at first."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2 * bits, 4 * bits), nn.Linear(4 * bits, bits)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, pair: Tensor) -> Tensor:
        """(B, K) for two codes side by side (B, 2 K)."""
        added: Tensor = self.second(torch.relu(self.first(pair)))
        return added


class Operators(nn.Module):
    """Union, intersection and difference of codes as linear maps of two codes, without bias (eq. 3.3 to 3.5).

    With ``kind`` "residual", each adds the output of a network of two layers to that of its linear map.
    """

    def __init__(self, bits: int, tie: bool, kind: Literal["linear", "residual"] = "linear") -> None:
        super().__init__()
        self.tie = tie
        one = torch.eye(bits)

        def near(left: float, right: float) -> nn.Parameter:
            start = torch.cat([left * one, right * one], 1)
            return nn.Parameter(start + INIT_NOISE * torch.randn(bits, 2 * bits))

        self.maps = nn.ParameterDict(
            {"union": near(0.5, 0.5), "intersection": near(0.5, 0.5), "difference": near(1.0, -0.5)}
        )
        self.corrections = nn.ModuleDict({name: Correction(bits) for name in self.maps} if kind == "residual" else {})

    def forward(self, operation: Operation, a: Tensor, b: Tensor) -> Tensor:
        """The composed code (B, K) of two codes (B, K); values can be outside (-1, 1)."""
        weight, tied = self.maps[operation], self.tie and operation != "difference"
        pair = torch.cat([a, b], 1)
        if tied:
            half = weight[:, : a.shape[1]]
            weight = torch.cat([half, half], 1)
        code: Tensor = pair @ weight.T
        if operation in self.corrections:
            correction = self.corrections[operation]
            code = code + correction(pair)
            if tied:
                code = code + correction(torch.cat([b, a], 1))
        return code


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
    """Margin-adaptive triplets over multi-level similarity, label prediction and quantization, without operators.

    ``margin`` is in bits; the triplet term is divided by K, so that the weights hold for codes of any length.
    """

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
            "triplet": triplets(codes, similar, self.margin, rows) / codes.shape[1],
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
        hidden: int | None = None,
        margin: float | None = None,
        semantic: Annotated[float, Log(0.01, 100)] = 1.0,
        adversarial: Annotated[float, Log(1e-3, 10)] = 0.1,
        quantization: Annotated[float, Log(1e-3, 10)] = 0.1,
        similarity: Literal["jaccard", "count"] = "jaccard",
        anchors: int = 32,
        warmup: float = 0.1,
        tie: bool = False,
        query_codes: Literal["relaxed", "binary"] = "relaxed",
        difference: Literal["proper", "mixed", "composite", "direct"] = "proper",
        operator: Literal["linear", "residual"] = "linear",
    ) -> None:
        """``warmup`` is the fraction of the training without operators, and of that in which ``adversarial`` rises."""
        if not setting.multilabel:
            raise ValueError("dcoh needs images with several labels; use a multi-label dataset such as scenes.union")
        head = FullyConnected(setting, backbone, hidden=hidden)
        operators, discriminator = Operators(setting.bits, tie, operator), Discriminator(setting.bits)
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
            drawn = self.drawn(batch.labels, run.generator)
            codes, labels = self.composed(h, batch.labels, *drawn)
            run.step(judge, self.judged(h.detach(), codes.detach()))
            every, sets = torch.cat([h, codes]), torch.cat([batch.labels, labels])
            terms = self.loss.terms(every, sets, self._anchors(len(every), run))
            # the gradient of the discriminator trains the operators only
            fooled, _ = self.composed(h.detach(), batch.labels, *drawn)
            self.discriminator.requires_grad_(False)
            weight = self.adversarial * risen(batch.progress, self.warmup)
            terms["adversarial"] = weight * adversarial_loss(self.discriminator(fooled))
            run.step(players, terms)
            self.discriminator.requires_grad_(True)

    def _anchors(self, count: int, run: Run) -> Tensor:
        return torch.randperm(count, generator=run.generator)[: self.anchors]

    def drawn(self, labels: Tensor, generator: torch.Generator) -> tuple[Rows, Rows]:
        """The pairs of a batch for union and intersection, and those for the difference."""
        every = partners(len(labels), generator)
        return every, overlapping(labels, generator) if self.difference == "proper" else every

    def composed(self, h: Tensor, labels: Tensor, every: Rows, subtracted: Rows) -> tuple[Tensor, Tensor]:
        """Generated codes (n, K) of pairs of rows of the codes (B, K), and their label sets (n, C).

        These are unions and nonempty intersections of ``every`` pair, and differences of the ``subtracted`` ones: of
        the two codes, or of their union and the second one (eq. 3.6) for ``difference = "mixed"`` and "composite".
        """
        (a, b), (of_a, of_b) = ([part[rows] for rows in every] for part in (h, labels))
        common = algebra("intersection", of_a, of_b)
        kept = torch.nonzero(common.sum(1) > 0)[:, 0]  # rows: a mask would be read at every use
        (x, y), (of_x, of_y) = ([part[rows] for rows in subtracted] for part in (h, labels))
        if self.difference in ("mixed", "composite"):
            x, of_x = self.operators("union", x, y), algebra("union", of_x, of_y)
        codes = [
            self.operators("union", a, b),
            self.operators("intersection", a[kept], b[kept]),
            self.operators("difference", x, y),
        ]
        sets = [algebra("union", of_a, of_b), common[kept], algebra("difference", of_x, of_y)]
        return torch.cat(codes), torch.cat(sets)

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


def overlapping(labels: Tensor, generator: torch.Generator) -> Rows:
    """The rows of pairs whose difference is proper: the second image has some labels of the first, but not all.

    Each row of labels (B, C) is the first of at most one pair; its second is drawn from the suitable rows.

    >>> labels = torch.tensor([[1.0, 1, 0], [0, 1, 1], [1, 0, 0]])
    >>> first, second = overlapping(labels, torch.Generator().manual_seed(0))
    >>> first.tolist(), second.tolist() in ([1, 0], [2, 0])  # the labels of row 2 are all in row 0
    ([0, 1], True)
    """
    shared = labels @ labels.T
    proper = (shared > 0) & (shared < labels.sum(1, keepdim=True))
    draws = torch.rand(proper.shape, generator=generator).to(labels.device)
    best, second = (draws + proper).max(1)
    first = torch.nonzero(best >= 1)[:, 0]
    return first, second[first]


def risen(progress: float, start: float) -> float:
    """The share of a weight that rises from 0 at the progress ``start`` to 1 at twice that.

    >>> [risen(p, 0.1) for p in (0.1, 0.15, 0.2, 0.9)], risen(0.0, 0.0)
    ([0.0, 0.5, 1.0, 1.0], 1.0)
    """
    return min(1.0, round((progress - start) / start, 9)) if start > 0 else 1.0
