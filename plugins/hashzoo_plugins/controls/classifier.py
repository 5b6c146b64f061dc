"""The class of a plain classifier as the code (Sablayrolles, Douze, Usunier & Jegou, ICASSP 2017).

Cite: sablayrolles2017evaluate
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from hashzoo import Backbone, Batch, Card, Codes, Distance, Index, Method, Run, Scan, Setting, Split


class SameClass(Distance):
    """Distance 0 if two class codes are equal, else 1."""

    stored = ("class",)

    def __call__(self, query: Codes, database: Codes) -> Tensor:
        """(Q, N) distances, 0 or 1, from the binary digits (., ceil(log2 C)) of the class."""
        q, d = (2.0 * codes["class"].float() - 1 for codes in (query, database))
        return (q @ d.T < q.shape[1]).float()


class SharedLabel(Distance):
    """Distance 0 if two predicted label sets share a label, else 1."""

    stored = ("class",)

    def __call__(self, query: Codes, database: Codes) -> Tensor:
        """(Q, N) distances, 0 or 1, from predicted labels (., C)."""
        return (query["class"].float() @ database["class"].float().T == 0).float()


class Classifier(Method):
    """A plain classifier whose predicted class is the code (Sablayrolles et al., ICASSP 2017).

    A supervised hash that does not beat this control has shown nothing beyond classification. It stores ceil(log2 C)
    bits for any code length. With several labels per image it stores the C predicted labels, and two images match if
    they share one; the paper covers single labels only.
    """

    card = Card(
        "deep",
        "classes",
        paper="Sablayrolles et al., ICASSP 2017",
        year=2017,
        beyond="the class, ceil(log2 C) bits (C bits where images have several labels)",
    )

    def __init__(self, setting: Setting, backbone: Backbone) -> None:
        super().__init__()
        self.backbone, self.multilabel = backbone, setting.multilabel
        self.head = nn.Linear(backbone.dim, setting.classes)
        self.digits = max(1, math.ceil(math.log2(setting.classes)))

    def fit(self, train: Split, run: Run) -> None:
        """Train with cross-entropy: softmax for one label per image, sigmoid for several."""
        optimizer = run.optimizer(self.backbone, self.head)
        for batch in run.batches(train):
            logits = self.head(self.backbone(batch.images).pooled)  # (B, C)
            loss = binary_cross_entropy_with_logits if self.multilabel else cross_entropy
            run.step(optimizer, {"classification": loss(logits, batch.labels)})

    def encode(self, batch: Batch) -> Codes:
        """The binary digits of the most likely class, or all labels with a probability above 1/2."""
        logits = self.head(self.backbone(batch.images).pooled)
        if self.multilabel:
            return {"class": logits > 0}
        digits = torch.arange(self.digits, device=logits.device)
        return {"class": (logits.argmax(1, keepdim=True) >> digits & 1).bool()}

    def index(self) -> Index:
        """A scan by equality: all items are tied at distance 0 or 1."""
        return Scan(SharedLabel() if self.multilabel else SameClass())
