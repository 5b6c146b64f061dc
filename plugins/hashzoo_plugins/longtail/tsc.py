"""Targeted Supervised Contrastive Learning for Long-Tailed Recognition (Li, Cao, Yuan, Fan, Yang, Feris, Indyk &
Katabi, CVPR 2022), adapted to hashing.

Contrast of a long tail spreads the large classes and leaves the small ones what is left of the sphere. Here as many
targets as there are classes are spread evenly beforehand; every class is pulled to one of them, and which one is
settled while training, so that classes move as little as may be.

    t_1 .. t_C = argmin sum_i log sum_j e^{t_i t_j / 0.07},  |t_i| = 1                       (C, K)
    h   = tanh(BN(W f)) of two views,   z = normalised perceptron of h                       (2 B, K)
    m_c = normalised 0.9 m_c + 0.1 (normalised mean of the z of class c)                     after every batch
    s   = argmax over permutations of sum_c m_c t_{s(c)}                                     Hungarian matching
    L_K = mean_i - 1/(k+1) sum_{p in V_i} log( e^{z_i p / tau} / sum_{j != i} e^{z_i z_j / tau} )
          V_i: the other view of the image and k others of its class
    L_T = mean_i - log( e^{z_i t_{s(y_i)} / tau} / (sum_{j != i} e^{z_i z_j / tau} + sum_c e^{z_i t_c / tau}) )
    L   = L_K + 0.2 L_T + 0.1 mean (|h| - 1)^2
    b   = sgn(h)

Resolved: the hash layer and the quantization term are the adaptation. The second stage, a linear classifier on frozen
features, would not change a code and is left out. Up to C = K + 1 classes the minimum is the regular simplex: the
loss is convex and increasing in the cosines, whose sum is at least -C. It is then written down and turned at random;
beyond that ``steps`` of Adam find it, at the authors' rate. The k others of a class are not drawn: each weighs what it
would in the mean over all draws, which is the same loss without its noise; a class with m < k others has m. Views and
negatives are those of the batch, as in the authors' code for CIFAR (theirs for ImageNet has a queue and a momentum
encoder). A class not yet seen has no direction and takes a target that is left.

Public code: both terms have the same denominator, images and targets, and are divided by k + 2, the number of all
positives; classes not yet seen start from random directions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, one_hot

from hashzoo import Backbone, Batch, Card, Deep, Output, Run, Setting, Split
from hashzoo_plugins.heads.linear import NormTanh
from hashzoo_plugins.longtail import two_views
from hashzoo_plugins.longtail.contrast import contrast, k_positive
from hashzoo_plugins.longtail.hashing import projection, quantization, require_one_label
from hashzoo_plugins.longtail.targets import matched, spread
from hashzoo_plugins.pointwise.views import Views


class Targeted(nn.Module):
    """k-positive contrast, and a pull of each class to the target that it is matched with."""

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
            "contrast": contrast(z, z, k_positive(classes, images, self.k), self.temperature),
            "target": self.pull * contrast(z, torch.cat([z, self.targets]), drawn, self.temperature),
            "quantization": self.quantization * quantization(codes),
        }

    @torch.no_grad()
    def match(self, output: Output, batch: Batch) -> None:
        """Move the centroids of the classes of a batch, and match classes with targets anew."""
        codes, classes, _ = two_views.together(output, batch)
        z = normalize(self.projection(codes), dim=1)
        for c in torch.unique(classes):
            mean = normalize(z[classes == c].mean(0), dim=0)
            self.centroids[c] = normalize(self.momentum * self.centroids[c] + (1 - self.momentum) * mean, dim=0)
        self.assignment = matched(self.centroids, self.targets)


class TSC(Deep):
    """Contrast that pulls classes to targets spread beforehand (Li et al., CVPR 2022)."""

    card = Card("deep", "classes", multilabel=False, paper="Li et al., CVPR 2022", year=2022, views=True)
    loss: Targeted

    def __init__(
        self,
        setting: Setting,
        backbone: Backbone,
        *,
        k: int = 6,
        temperature: float = 0.07,
        pull: float = 0.2,
        momentum: float = 0.9,
        steps: int = 10_000,
        quantization: float = 0.1,
        strength: float = 1.0,
        flip: bool = True,
        crop: float = 0.08,
    ) -> None:
        if setting.classes < 2:
            raise ValueError("tsc spreads the targets of classes: it needs two classes or more")
        loss = Targeted(setting, k=k, temperature=temperature, pull=pull, momentum=momentum, quantization=quantization)
        super().__init__(backbone, NormTanh(backbone, setting), loss)
        self.views, self.steps = [Views(strength, flip, crop)] * 2, steps

    def fit(self, train: Split, run: Run) -> None:
        """Targets first; then two views of every image, and the matching anew with every batch."""
        classes, bits = self.loss.targets.shape
        self.loss.targets = spread(classes, bits, self.steps, run.generator).to(self.loss.targets)
        optimizer = run.optimizer(self.backbone, self.head, self.loss)
        for batch in run.batches(train, views=self.views):
            output = self.seen(batch)
            self.loss.match(output, batch)
            run.step(optimizer, self.loss(output, batch))
