"""Long-Tail Hashing (Chen, Hou, Leng, Zhang, Lin & Zhang, SIGIR 2021).

A memory of class prototypes transfers knowledge to small classes: a gated mixture of prototypes is added to the feature
of an image, and the hash layer reads the sum. The only loss is the cross-entropy of the classes, weighted by the
effective numbers of their images.

    v   = relu(W_v relu(f))          direct feature (B, M), M = 2000,
                                     of the pooled feature f (B, D)
    P   = class means of v           prototypes (C, M), computed in eval
                                     mode before every epoch
    o   = softmax(T_h v)
    v_m = o P                        output of the memory (B, M)
    v'  = v + tanh(T_s v) v_m        elementwise
    h   = tanh(W_h v'),  p = softmax(W_c h)
    w_c = (1 - beta) / (1 - beta^n_c) over the largest of them
    L   = - 1/B sum_i w_{y_i} log p_{i, y_i}
    b   = sgn(h)

Resolved: ``beta`` is 0 as in the authors' code, so all weights are 1 and the loss is plain cross-entropy; its help
text says 0.99. There is no quantization term and no normalization of the code, as in the paper; the optimizer and its
schedule are those of the budget (the authors use RMSprop with 1e-5, a cosine schedule to a hundredth, batches of 128
and 100 epochs). A class without images has a prototype of zeros and no weight. The head needs labels between epochs, so
it is not available for compositions; the loss is (``lthnet``).

Measured: with 1,280 features and 64 bits, the memory has 6.7 million weights, 80 times those of a linear hash layer.
Their products and optimizer steps are nearly all of a fit, which takes over ten times as long as the median of deep
methods on stored features.

Public code: the prototype of a class without images is 0/0; the logarithm of the softmax output is unbounded (here
log-softmax); ``topk = -1`` drops the last item of the database; precision and recall curves exclude queries without a
hit; the query set is scored every epoch and the best epoch is reported.

Cite: chen2021lthnet
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hashzoo import Backbone, Batch, Card, Choice, Deep, Features, Head, Integer, Loss, Output, Run, Setting, Split
from hashzoo_plugins.longtail.hashing import require_one_label


def effective(counts: Tensor, beta: float) -> Tensor:
    """(C,) weights (1 - beta) / (1 - beta^n_c) over the largest of them; 0 for a class without images.

    >>> effective(torch.tensor([5000, 500, 50, 0]), 0.99)
    tensor([0.3950, 0.3976, 1.0000, 0.0000], dtype=torch.float64)
    """
    numbers = (1 - beta ** counts.clamp(min=1).double()) / (1 - beta)  # effective numbers of n_c overlapping images
    w = torch.where(counts > 0, 1 / numbers, 0.0)
    return w / w.max()


def prototypes(sums: Tensor, counts: Tensor) -> Tensor:
    """(C, M) class means from sums (C, M) and counts (C,); zeros for a class without images.

    >>> prototypes(torch.tensor([[2.0, 4.0], [0.0, 0.0]]), torch.tensor([2, 0]))
    tensor([[1., 2.],
            [0., 0.]])
    """
    return sums / counts.clamp(min=1)[:, None]


class Memory(Head):
    """Direct features plus the output of a memory of prototypes, then the hash layer."""

    prototypes: Tensor

    def __init__(
        self, setting: Setting, backbone: Backbone, *, width: Annotated[int, Integer(250, 4000, log=True)] = 2000
    ) -> None:
        super().__init__()
        self.direct_layer = nn.Linear(backbone.dim, width)
        self.mixture = nn.Linear(width, setting.classes)  # T_h
        self.selector = nn.Linear(width, width)  # T_s
        self.hash = nn.Linear(width, setting.bits)
        self.register_buffer("prototypes", torch.zeros(setting.classes, width))

    def direct(self, features: Features) -> Tensor:
        """v (B, M), the direct features."""
        return torch.relu(self.direct_layer(torch.relu(features.pooled)))

    def enriched(self, v: Tensor) -> Tensor:
        """v' (B, M), the features v (B, M) with the output of the memory."""
        recalled = torch.softmax(self.mixture(v), 1) @ self.prototypes  # (B, M)
        return v + torch.tanh(self.selector(v)) * recalled

    def forward(self, features: Features) -> Output:
        """``code`` (B, K) in (-1, 1)."""
        return Output(torch.tanh(self.hash(self.enriched(self.direct(features)))))


class ClassBalanced(Loss):
    """Cross-entropy of codes, classes weighted by effective numbers (Chen et al., SIGIR 2021)."""

    weights: Tensor

    def __init__(self, setting: Setting, *, beta: Annotated[float, Choice(0.0, 0.9, 0.99, 0.999)] = 0.0) -> None:
        super().__init__()
        require_one_label("lthnet", setting)
        if not 0 <= beta < 1:
            raise ValueError(f"lthnet needs 0 <= beta < 1, not {beta}")
        self.classifier = nn.Linear(setting.bits, setting.classes)
        self._exact = effective(setting.class_counts, beta)  # (C,), for losses in float64
        self.register_buffer("weights", self._exact.float())

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """The term ``classification`` of (B, K) codes: the weighted sum divided by B, not by the sum of weights."""
        y = batch.labels.argmax(1)
        losses = cross_entropy(self.classifier(output.code), y, reduction="none")  # (B,)
        weights = self._exact.to(losses) if losses.dtype == torch.float64 else self.weights
        return {"classification": (weights[y] * losses).mean()}


class LTHNet(Deep):
    """A memory of class prototypes enriches features before they are hashed (Chen et al., SIGIR 2021)."""

    card = Card("deep", "classes", multilabel=False, paper="Chen et al., SIGIR 2021", year=2021)
    head: Memory

    def __init__(
        self,
        setting: Setting,
        backbone: Backbone,
        *,
        width: Annotated[int, Integer(250, 4000, log=True)] = 2000,
        beta: Annotated[float, Choice(0.0, 0.9, 0.99, 0.999)] = 0.0,
    ) -> None:
        super().__init__(backbone, Memory(setting, backbone, width=width), ClassBalanced(setting, beta=beta))

    def fit(self, train: Split, run: Run) -> None:
        """Train, with the memory recomputed before every epoch and constant within it."""
        optimizer = run.optimizer(self.backbone, self.head, self.loss)
        begins = True
        for batch in run.batches(train):
            if begins:
                self.remember(train, run)
            begins = batch.ends_epoch
            run.step(optimizer, self.loss(self.head(self.backbone(batch.images)), batch))
        self.remember(train, run)

    @torch.no_grad()
    def remember(self, train: Split, run: Run) -> None:
        """Compute the prototypes of the current network, batch by batch in eval mode."""
        self.eval()
        sums, labels = torch.zeros_like(self.head.prototypes), train.labels.to(self.head.prototypes)
        rows = 0
        for batch in run.blank(train):
            sums += labels[rows : rows + len(batch)].T @ self.head.direct(self.backbone(batch.images))
            rows += len(batch)
        self.head.prototypes = prototypes(sums, labels.sum(0))
        self.train()
