"""Long-Tail Hashing (Chen, Hou, Leng, Zhang, Lin & Zhang, SIGIR 2021).

A memory of class prototypes lends small classes what their few images do not show: the feature of an image is
joined by a mixture of prototypes, as far as a selector lets it, and the hash layer reads the sum. Cross-entropy of the
classes, weighted by the effective number of their images, is all that is minimised.

    v  = relu(W_v relu(f))               direct feature (B, M), M = 2000, of the pooled feature f (B, D)
    P  = class means of v                prototypes (C, M), taken in eval mode before every epoch
    o  = softmax(T_h v),  v_m = o P      what the memory says (B, M)
    v' = v + tanh(T_s v) v_m             entry by entry
    h  = tanh(W_h v'),  p = softmax(W_c h)
    L  = - 1/B sum_i w_{y_i} log p_{i, y_i},   w_c = (1 - beta) / (1 - beta^n_c) over the largest of them
    b  = sgn(h)

Resolved: ``beta`` is 0 as in the authors' code, which makes the weights 1 and the loss plain cross-entropy; their help
text says 0.99. There is no quantization term and no normalisation of the code, as in the paper; the optimizer and its
schedule are the budget's (the authors': RMSprop 1e-5, cosine to a hundredth, batches of 128, 100 epochs). A class
without images has a prototype of zeros and no weight. The head needs labels between epochs, so it is no head by
itself; the loss is (``lthnet``).

Public code: the prototype of a class without images is 0/0; the logarithm of the soft-max output is taken without
a bound (here log-softmax); ``topk = -1`` slices the last item of the database off; precision and recall curves leave
queries without a hit out; the query set is scored every epoch and the best kept.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hashzoo import Backbone, Batch, Card, Deep, Features, Output, Run, Setting, Split
from hashzoo_plugins.longtail.hashing import require_one_label


def effective(counts: Tensor, beta: float) -> Tensor:
    """(C,) weights (1 - beta) / (1 - beta^n_c) over the largest of them; 0 for a class without images.

    >>> effective(torch.tensor([5000, 500, 50, 0]), 0.99)
    tensor([0.3950, 0.3976, 1.0000, 0.0000], dtype=torch.float64)
    """
    numbers = (1 - beta ** counts.clamp(min=1).double()) / (1 - beta)  # of n_c images that overlap
    w = torch.where(counts > 0, 1 / numbers, 0.0)
    return w / w.max()


def prototypes(sums: Tensor, counts: Tensor) -> Tensor:
    """(C, M) class means of sums (C, M) over counts (C,); zeros for a class without images.

    >>> prototypes(torch.tensor([[2.0, 4.0], [0.0, 0.0]]), torch.tensor([2, 0]))
    tensor([[1., 2.],
            [0., 0.]])
    """
    return sums / counts.clamp(min=1)[:, None]


class Memory(nn.Module):
    """Direct features and what a memory of prototypes adds to them, hashed."""

    prototypes: Tensor

    def __init__(self, backbone: Backbone, setting: Setting, *, width: int = 2000) -> None:
        super().__init__()
        self.direct_layer = nn.Linear(backbone.dim, width)
        self.mixture = nn.Linear(width, setting.classes)  # T_h
        self.selector = nn.Linear(width, width)  # T_s
        self.hash = nn.Linear(width, setting.bits)
        self.register_buffer("prototypes", torch.zeros(setting.classes, width))

    def direct(self, features: Features) -> Tensor:
        """v (B, M)."""
        return torch.relu(self.direct_layer(torch.relu(features.pooled)))

    def enriched(self, v: Tensor) -> Tensor:
        """v' (B, M) of v (B, M)."""
        recalled = torch.softmax(self.mixture(v), 1) @ self.prototypes  # (B, M)
        return v + torch.tanh(self.selector(v)) * recalled

    def forward(self, features: Features) -> Output:
        """``code`` (B, K) in (-1, 1)."""
        return Output(torch.tanh(self.hash(self.enriched(self.direct(features)))))


class ClassBalanced(nn.Module):
    """Cross-entropy of codes, classes weighted by effective numbers (Chen et al., SIGIR 2021)."""

    weights: Tensor

    def __init__(self, setting: Setting, *, beta: float = 0.0) -> None:
        super().__init__()
        require_one_label("lthnet", setting)
        if not 0 <= beta < 1:
            raise ValueError(f"lthnet's beta is 0 to below 1, not {beta}")
        self.classifier = nn.Linear(setting.bits, setting.classes)
        self.register_buffer("weights", effective(setting.class_counts, beta).float())

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Term ``classification`` of (B, K) codes: a sum of weighted images, over B and not over their weights."""
        y = batch.labels.argmax(1)
        losses = cross_entropy(self.classifier(output.code), y, reduction="none")  # (B,)
        return {"classification": (self.weights[y] * losses).mean()}


class LTHNet(Deep):
    """A memory of class prototypes enriches features before they are hashed (Chen et al., SIGIR 2021)."""

    card = Card("deep", "classes", multilabel=False, paper="Chen et al., SIGIR 2021", year=2021)
    head: Memory

    def __init__(self, setting: Setting, backbone: Backbone, *, width: int = 2000, beta: float = 0.0) -> None:
        super().__init__(backbone, Memory(backbone, setting, width=width), ClassBalanced(setting, beta=beta))

    def fit(self, train: Split, run: Run) -> None:
        """The memory is taken anew before every epoch, and stands still within it."""
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
        """The prototypes of the network as it is, summed batch by batch in eval mode."""
        self.eval()
        sums, labels = torch.zeros_like(self.head.prototypes), train.labels.to(run.device)
        rows = 0
        for batch in run.blank(train):
            sums += labels[rows : rows + len(batch)].T @ self.head.direct(self.backbone(batch.images))
            rows += len(batch)
        self.head.prototypes = prototypes(sums, labels.sum(0))
        self.train()
