"""BBN: Bilateral-Branch Network with Cumulative Learning for Long-Tailed Visual Recognition (Zhou, Cui, Wei & Chen,
CVPR 2020), adapted to hashing.

Two last blocks share a trunk. The samples of one are uniform over images, those of the other mostly from small classes.
A code combines both, and training shifts from the first to the second.

    f_c   = block of an image of the plain sampler               (B, D)
    f_r   = block of an image of the reversed sampler            (B, D)
            P(c) = w_c / sum w,  w_c = n_max / n_c, then uniform in the class
    alpha = 1 - p^2,  p the progress of training, 0 to 1
    h     = tanh(BN(W 2 [alpha f_c ; (1 - alpha) f_r]))          (B, K)
    L     = alpha CE(W_c h, y_c) + (1 - alpha) CE(W_c h, y_r)
            + 0.1 mean (|h| - 1)^2
    b     = sgn(h) of one image in both blocks, alpha = 0.5

Resolved: BBN is a classifier; the hash layer on the mixed feature, which the classifier reads, and the quantization
term are the adaptation. An arbitrary backbone has no last block to duplicate, so a block is x + relu(W x) on its pooled
feature. alpha follows steps (the paper: (T - 1) / T_max of epochs T). Training mixes two images and ends at alpha = 0,
but encoding mixes an image with itself at 0.5, so the batch statistics of training do not apply: those of the hash
layer are recomputed over the training images, in the form in which they are encoded, after the last step. On another
split of digits.lt50 (32 bits, seed = 10, three runs) this raised map@all from 0.805 to 0.838, and that of large classes
from 0.902 to 0.969, and lowered that of small classes from 0.579 to 0.545.

Measured: with 1,280 features and 64 bits, the two blocks have 3.4 million weights, 40 times those of a linear hash
layer, and each step reads a batch of each sampler. A fit on stored features takes over five times as long as the median
of deep methods, nearly all of it in the products and optimizer steps of the blocks.

Public code: the published CIFAR configurations are for an imbalance of 50 (ratio 0.02); imbalances of 100 and 10 need
ratios of 0.01 and 0.1.

Cite: zhou2020bbn
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hashzoo import Backbone, Batch, Card, Deep, Features, Head, Log, Loss, Output, Run, Setting, Split
from hashzoo_plugins.longtail import sampling
from hashzoo_plugins.longtail.hashing import quantization, require_one_label


class Block(nn.Module):
    """x + relu(W x), the last block of a branch, on pooled features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, D) features to (B, D)."""
        return x + torch.relu(self.layer(x))


class Bilateral(Head):
    """Two branches, mixed and hashed."""

    def __init__(self, setting: Setting, backbone: Backbone) -> None:
        super().__init__()
        self.conventional, self.rebalancing = Block(backbone.dim), Block(backbone.dim)
        self.hash = nn.Linear(2 * backbone.dim, setting.bits, bias=False)
        self.norm = nn.BatchNorm1d(setting.bits)

    def mixed(self, plain: Features, rare: Features, alpha: float) -> Tensor:
        """2 [alpha f_c ; (1 - alpha) f_r] (B, 2 D) of the features of each branch."""
        branches = alpha * self.conventional(plain.pooled), (1 - alpha) * self.rebalancing(rare.pooled)
        return 2 * torch.cat(branches, 1)

    def code(self, mixed: Tensor) -> Output:
        """``code`` (B, K) in (-1, 1) of mixed features (B, 2 D)."""
        return Output(torch.tanh(self.norm(self.hash(mixed))))

    def forward(self, features: Features) -> Output:
        """``code`` (B, K) of the same images in both branches, with alpha = 0.5."""
        return self.code(self.mixed(features, features, 0.5))


class Classification(Loss):
    """Cross-entropy of a linear classifier of codes, and the quantization term."""

    def __init__(self, setting: Setting, *, quantization: Annotated[float, Log(1e-3, 10)] = 0.1) -> None:
        super().__init__()
        require_one_label("bbn", setting)
        self.quantization = quantization
        self.classifier = nn.Linear(setting.bits, setting.classes)

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Terms ``classification`` and ``quantization`` of (B, K) codes and labels (B, C) with a sum of 1."""
        return {
            "classification": cross_entropy(self.classifier(output.code), batch.labels),
            "quantization": self.quantization * quantization(output.code),
        }


class BBN(Deep):
    """Two branches with two samplers; training shifts from large classes to small ones (Zhou et al., CVPR 2020)."""

    card = Card("deep", "classes", multilabel=False, paper="Zhou et al., CVPR 2020", year=2020)
    head: Bilateral

    def __init__(
        self, setting: Setting, backbone: Backbone, *, quantization: Annotated[float, Log(1e-3, 10)] = 0.1
    ) -> None:
        super().__init__(backbone, Bilateral(setting, backbone), Classification(setting, quantization=quantization))
        self.probabilities = sampling.inverse(setting.class_counts)

    def fit(self, train: Split, run: Run) -> None:
        """Train with both samplers in parallel, then recompute the batch statistics for encoding."""
        optimizer = run.optimizer(self.backbone, self.head, self.loss)
        weights = sampling.weights(train.labels, self.probabilities)
        for plain, rare in zip(run.batches(train), run.batches(train, weights=weights), strict=False):
            alpha = sampling.share(plain.progress)
            mixed = self.head.mixed(self.backbone(plain.images), self.backbone(rare.images), alpha)
            labels = alpha * plain.labels + (1 - alpha) * rare.labels  # cross-entropy is linear in the labels
            run.step(optimizer, self.loss(self.head.code(mixed), replace(plain, labels=labels)))
        self.settle(train, run)

    @torch.no_grad()
    def settle(self, train: Split, run: Run) -> None:
        """Set the batch statistics of the hash layer to those of the training images at alpha = 0.5."""
        self.eval()
        seen = (self.backbone(batch.images) for batch in run.blank(train))
        z = torch.cat([self.head.hash(self.head.mixed(f, f, 0.5)) for f in seen])  # (N, K)
        self.head.norm.running_mean, self.head.norm.running_var = z.mean(0), z.var(0)
        self.train()
