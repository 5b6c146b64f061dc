"""The class of a plain classifier as the code (Sablayrolles, Douze, Usunier & Jegou, ICASSP 2017)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from hashzoo import Backbone, Batch, Card, Codes, Distance, Index, Method, Run, Scan, Setting, Split


class SameClass(Distance):
    """0 where two class codes are equal, 1 elsewhere."""

    stored = ("class",)

    def __call__(self, query: Codes, database: Codes) -> Tensor:
        """(Q, N) of 0 and 1, from the binary digits (., ceil(log2 C)) of the class."""
        q, d = (2.0 * codes["class"].float() - 1 for codes in (query, database))
        return (q @ d.T < q.shape[1]).float()


class SharedLabel(Distance):
    """0 where two predicted label sets share a label, 1 elsewhere."""

    stored = ("class",)

    def __call__(self, query: Codes, database: Codes) -> Tensor:
        """(Q, N) of 0 and 1, from predicted labels (., C)."""
        return (query["class"].float() @ database["class"].float().T == 0).float()


class Classifier(Method):
    """A plain classifier whose predicted class is the code (Sablayrolles et al., ICASSP 2017).

    A supervised hash that does not beat it has shown nothing beyond classification. Stores ceil(log2 C) bits
    whatever was asked. For several labels an image it stores the C predicted labels, and two images match
    where they share one; the paper has single labels only.
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
        """Cross-entropy: softmax for one label an image, sigmoid for several."""
        optimizer = run.optimizer(self.backbone, self.head)
        for batch in run.batches(train):
            logits = self.head(self.backbone(batch.images).pooled)  # (B, C)
            loss = binary_cross_entropy_with_logits if self.multilabel else cross_entropy
            run.step(optimizer, {"classification": loss(logits, batch.labels)})

    def encode(self, batch: Batch) -> Codes:
        """The binary digits of the most likely class, or every label more likely than not."""
        logits = self.head(self.backbone(batch.images).pooled)
        if self.multilabel:
            return {"class": logits > 0}
        digits = torch.arange(self.digits, device=logits.device)
        return {"class": (logits.argmax(1, keepdim=True) >> digits & 1).bool()}

    def index(self) -> Index:
        """Ranked by equality: everything is tied at 0 or at 1."""
        return Scan(SharedLabel() if self.multilabel else SameClass())
