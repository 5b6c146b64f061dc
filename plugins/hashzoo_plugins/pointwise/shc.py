"""Deep Hashing with Semantic Hash Centers for Image Retrieval (Chen, Liu, Zhou, Ma, Chen & Zhang, ACM TOIS 2025).

Centers of classes that a classifier confuses are closer to each other than those of other classes, but never closer
than the smallest distance d of separated centers. The codes are then trained toward the centers of their labels.

    1. a classifier; A_c = sum over images of class c of the softmax over
       the other classes;  A <- (A + A') / 2;  S = A minus the mean of
       its row, divided by the largest magnitude in it;  S_cc = 1
    2. centers H (C, K) of -1 and 1, from separated ones, that minimize
         |S - H H' / K|^2 + mu sum_{i != j} <h_i, h_j>
       such that any two differ in d bits or more
    3. u = tanh(W f + v)  (B, K),  code = sgn(u);  the loss of CSQ with
       these centers and the quantization weight lambda = 1e-4

Resolved: the first ``share`` = half of the epochs trains the classifier, a copy of the network, so that the budget is
that of the other methods (the authors: 100 epochs each). With a single epoch there is no classifier, and the separated
centers are kept. The second step flips single bits as long as the objective falls, instead of an augmented Lagrangian.
mu is 0.625 / 10,000, since the authors' code divides the gradient of this term by 10,000; with 0.625 itself it would
outweigh S. An image with several labels counts for each of them with the softmax over the classes it does not have, and
its target is the sign of the sum of their centers.

Public code: multipliers are updated at an index left over from another loop, and are integers, so that an update below
one is lost; of several labels the first one is used; the best epoch on the test set is reported.

Cite: chen2025shc
"""

from __future__ import annotations

import copy
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from hashzoo import Backbone, Batch, Card, Deep, Log, Loss, Output, Run, Setting, Split, Uniform
from hashzoo_plugins.heads.linear import Tanh
from hashzoo_plugins.pointwise.centers import require_labels
from hashzoo_plugins.pointwise.csq import CSQ
from hashzoo_plugins.pointwise.mds import distance_bound, distant_rows, smallest_distance

SWEEPS = 30  # passes over the classes


def confusion(logits: Tensor, labels: Tensor) -> Tensor:
    """(C, C) sums over the images (N, C) of each class of the softmax over the classes that an image does not have."""
    others = torch.softmax(logits.masked_fill(labels > 0, float("-inf")), 1).nan_to_num()  # nan: it has every label
    return labels.to(others).T @ others


def similarity(confused: Tensor) -> Tensor:
    """(C, C) confusions, symmetric, their rows centered and scaled to [-1, 1], with a diagonal of 1."""
    mean = (confused + confused.T) / 2
    away = mean - mean.mean(1, keepdim=True)
    found = away / away.abs().amax(1, keepdim=True).clamp(min=1e-12)
    return found.fill_diagonal_(1.0)


def objective(rows: Tensor, similar: Tensor, mu: float) -> Tensor:
    """|S - H H' / K|^2 + mu times the sum of the inner products of different centers (C, K)."""
    inner = rows @ rows.T
    return (similar - inner / rows.shape[1]).square().sum() + mu * (inner.sum() - inner.trace())


def semantic_rows(rows: Tensor, similar: Tensor, least: int, mu: float) -> Tensor:
    """Flip bits of centers (C, K) as long as the objective falls; no distance falls below ``least``."""
    rows, target = rows.double().clone(), (similar.double() + similar.double().T) / 2  # the same up to a constant
    classes, bits = rows.shape
    for _ in range(SWEEPS):
        before = rows.clone()
        for i in range(classes):
            others = torch.arange(classes) != i
            while True:
                inner = rows[others] @ rows[i]  # (C - 1,)
                pull = 8 / bits * (target[i, others] - inner / bits) - 4 * mu
                gain = rows[i] * (pull @ rows[others]) + 8 * (classes - 1) / bits**2  # (K,) change by each flip
                moved = inner[:, None] - 2 * rows[others] * rows[i]  # (C - 1, K) inner products after it
                allowed = (moved <= bits - 2 * least).all(0)
                best = gain.masked_fill(~allowed, 0.0).argmin()
                if not allowed[best] or gain[best] > -1e-9:
                    break
                rows[i, best] = -rows[i, best]
        if torch.equal(rows, before):
            break
    return rows.to(similar)


class SHCLoss(Loss):
    """The loss of CSQ with given centers."""

    def __init__(self, setting: Setting, quantization: float) -> None:
        super().__init__()
        self.csq = CSQ(setting, quantization=quantization)
        self.csq.centers = distant_rows(setting.classes, setting.bits)

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Terms ``center`` and ``quantization`` of (B, K) codes in [-1, 1]."""
        require_labels("shc", batch.labels)
        terms: dict[str, Tensor] = self.csq(output, batch)
        return terms


class SHC(Deep):
    """SHC: centers of classes that a classifier confuses lie closer together (Chen et al., ACM TOIS 2025)."""

    card = Card("deep", "classes", paper="Chen et al., ACM TOIS 2025", year=2025)
    loss: SHCLoss

    def __init__(
        self,
        setting: Setting,
        backbone: Backbone,
        *,
        share: Annotated[float, Uniform(0.1, 0.9)] = 0.5,
        mu: Annotated[float, Log(1e-6, 0.01)] = 0.625e-4,
        quantization: Annotated[float, Log(1e-6, 0.1)] = 1e-4,
    ) -> None:
        if not 0 <= share < 1:
            raise ValueError(
                f"shc: share, that of the epochs of the classifier, must be at least 0 and below 1, not {share}"
            )
        super().__init__(backbone, Tanh(setting, backbone), SHCLoss(setting, quantization))
        self.share, self.mu, self.multilabel = share, mu, setting.multilabel

    def fit(self, train: Split, run: Run) -> None:
        """Train a classifier, find centers by its confusions, then train network and head toward them."""
        first = min(run.train.epochs - 1, round(self.share * run.train.epochs))
        if first:
            similar = similarity(self.classified(train, run, first)).cpu()
            rows = self.loss.csq.centers.cpu()
            least = min(distance_bound(*rows.shape), smallest_distance(rows))
            self.loss.csq.centers = semantic_rows(rows, similar, least, self.mu).to(run.device)
        optimizer = run.optimizer(self.backbone, self.head)
        for batch in run.batches(train, epochs=run.train.epochs - first):
            run.step(optimizer, self.loss(self.head(self.backbone(batch.images)), batch))

    def classified(self, train: Split, run: Run, epochs: int) -> Tensor:
        """(C, C) confusions of a classifier after some epochs."""
        network = copy.deepcopy(self.backbone)
        classifier = nn.Linear(network.dim, train.labels.shape[1]).to(run.device)
        optimizer = run.optimizer(network, classifier)
        loss = binary_cross_entropy_with_logits if self.multilabel else cross_entropy
        for batch in run.batches(train, epochs=epochs):
            logits = classifier(network(batch.images).pooled)
            run.step(optimizer, {"classification": loss(logits, batch.labels)})
        network.eval()
        total = torch.zeros(2 * train.labels.shape[1:], device=run.device)
        seen = 0
        with torch.no_grad():
            for batch in run.blank(train):  # in order, without labels
                labels = train.labels[seen : seen + len(batch)].to(run.device)
                total += confusion(classifier(network(batch.images).pooled), labels)
                seen += len(batch)
        return total
