"""Targeted Supervised Contrastive Learning for Long-Tailed Recognition (Li, Cao, Yuan, Fan, Yang, Feris, Indyk &
Katabi, CVPR 2022), adapted to hashing.

With a long tail, contrast spreads the large classes and leaves little of the sphere to the small ones. Here one target
per class is spread evenly in advance. Every class is pulled to a target; the assignment is updated during training, so
that classes move as little as possible.

    t_1 .. t_C = argmin sum_i log sum_j e^{t_i t_j / 0.07},  |t_i| = 1,  (C, K)
    h   = tanh(BN(W f)) of two views                             (2 B, K)
    z   = normalized perceptron of h                             (2 B, K)
    m_c = normalized 0.9 m_c + 0.1 (normalized mean of the z of class c),
          after every batch
    s   = argmax over permutations of sum_c m_c t_{s(c)},  Hungarian matching
    D_i = sum_{j != i} e^{z_i z_j / tau}
    V_i = the other view of the image and k others of its class
    L_K = mean_i - 1/(k+1) sum_{p in V_i} log( e^{z_i p / tau} / D_i )
    L_T = mean_i - log( e^{z_i t_{s(y_i)} / tau}
                        / (D_i + sum_c e^{z_i t_c / tau}) )
    L   = L_K + 0.2 L_T + 0.1 mean (|h| - 1)^2
    b   = sgn(h)

Resolved: the hash layer and the quantization term are the adaptation. The second stage, a linear classifier on frozen
features, would not change a code and is not included. For up to C = K + 1 classes the minimum is the regular simplex,
since the loss is convex and increasing in the cosines, whose sum is at least -C; it is computed directly and rotated at
random. For more classes ``steps`` of Adam minimize the loss, at the authors' rate. The k others of a class are not
sampled: each has its expected weight, which gives the same loss without the noise; a class with m < k others has m.
Views and negatives are those of the batch, as in the authors' code for CIFAR (that for ImageNet has a queue and a
momentum encoder). A class that has not occurred yet has no direction and takes a remaining target.

Public code: both terms have the same denominator, images and targets, and are divided by k + 2, the number of all
positives; classes that have not occurred yet start from random directions.

Cite: li2022tsc
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from hashzoo import Backbone, Batch, Card, Deep, Log, Loss, Output, Run, Setting, Split
from hashzoo_plugins.heads.linear import NormTanh
from hashzoo_plugins.longtail import two_views
from hashzoo_plugins.longtail.contrast import contrast, k_positive
from hashzoo_plugins.longtail.hashing import projection, quantization, require_one_label
from hashzoo_plugins.longtail.targets import matched, spread
from hashzoo_plugins.pointwise.views import Views


class Targeted(Loss):
    """k-positive contrast, and a pull of each class to its target."""

    targets: Tensor
    centroids: Tensor
    assignment: Tensor

    def __init__(
        self, setting: Setting, *, k: int, temperature: float, pull: float, momentum: float, quantization: float
    ) -> None:
        super().__init__()
        require_one_label("tsc", setting)
        self.k, self.temperature, self.pull, self.momentum = k, temperature, pull, momentum
        self.quantization = quantization
        self.projection = projection(setting.bits)
        self.register_buffer("targets", torch.zeros(setting.classes, setting.bits))
        self.register_buffer("centroids", torch.zeros(setting.classes, setting.bits))
        self.register_buffer("assignment", torch.arange(setting.classes))

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Terms ``contrast``, ``target`` and ``quantization`` of (B, K) codes of one view or two."""
        codes, classes, images = two_views.together(output, batch)
        z = normalize(self.projection(codes), dim=1)  # (M, K)
        goal = one_hot(self.assignment[classes], len(self.targets)).to(z)  # (M, C)
        drawn = torch.cat([z.new_zeros(len(z), len(z)), goal], 1)
        return {
            "contrast": contrast(z, z, k_positive(classes, images, self.k, z.dtype), self.temperature),
            "target": self.pull * contrast(z, torch.cat([z, self.targets]), drawn, self.temperature),
            "quantization": self.quantization * quantization(codes),
        }

    @torch.no_grad()
    def match(self, output: Output, batch: Batch) -> None:
        """Update the centroids of the classes in a batch, and the assignment of targets."""
        codes, classes, _ = two_views.together(output, batch)
        z = normalize(self.projection(codes), dim=1)
        own = one_hot(classes, len(self.centroids)).to(z)  # (M, C)
        means = normalize(own.T @ z, dim=1)  # their length is that of the directions, so the sums do
        moved = normalize(self.momentum * self.centroids + (1 - self.momentum) * means, dim=1)
        self.centroids = torch.where(own.any(0)[:, None], moved, self.centroids)
        self.assignment = matched(self.centroids, self.targets)


class TSC(Deep):
    """Contrast that pulls classes to evenly spread targets (Li et al., CVPR 2022)."""

    card = Card("deep", "classes", multilabel=False, paper="Li et al., CVPR 2022", year=2022, views=True)
    loss: Targeted

    def __init__(
        self,
        setting: Setting,
        backbone: Backbone,
        *,
        k: int = 6,
        temperature: Annotated[float, Log(0.02, 1)] = 0.07,
        pull: Annotated[float, Log(0.01, 10)] = 0.2,
        momentum: float = 0.9,
        steps: int = 10_000,
        quantization: Annotated[float, Log(1e-3, 10)] = 0.1,
        strength: float = 1.0,
        flip: bool = True,
        crop: float = 0.08,
    ) -> None:
        if setting.classes < 2:
            raise ValueError("tsc needs at least two classes")
        loss = Targeted(setting, k=k, temperature=temperature, pull=pull, momentum=momentum, quantization=quantization)
        super().__init__(backbone, NormTanh(setting, backbone), loss)
        self.views, self.steps = [Views(strength, flip, crop)] * 2, steps

    def fit(self, train: Split, run: Run) -> None:
        """Spread the targets, then train on two views of every image and update the assignment in every batch."""
        classes, bits = self.loss.targets.shape
        self.loss.targets = spread(classes, bits, self.steps, run.generator).to(self.loss.targets)
        optimizer = run.optimizer(self.backbone, self.head, self.loss)
        for batch in run.batches(train, views=self.views):
            output = self.seen(batch)
            self.loss.match(output, batch)
            run.step(optimizer, self.loss(output, batch))
