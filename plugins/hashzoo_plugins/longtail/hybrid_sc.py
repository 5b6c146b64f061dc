"""Contrastive Learning based Hybrid Networks for Long-Tailed Image Classification (Wang, Han, Wei, Zhang & Wang,
CVPR 2021), adapted to hashing.

One branch learns features by contrast, from images sampled uniformly; the other learns a classifier, from images
sampled uniformly over classes. Training shifts from the first to the second.

    h     = tanh(BN(W f))                                        (B, K)
    z     = normalized perceptron of h, K -> K -> K
    P_i   = the other z of the class of i
    L_SC  = mean_i - 1/|P_i| sum_{p in P_i}
            log( e^{z_i z_p / tau} / sum_{k != i} e^{z_i z_k / tau} )
    L_CE  = CE(W_c h, y) of the class-balanced sampler
    alpha = 1 - p^2,  p the progress of training, 0 to 1
    L     = alpha L_SC + (1 - alpha) L_CE + 0.1 mean (|h| - 1)^2
    b     = sgn(h)

``contrast = "prototypes"`` is the paper's PSC, contrast with one learned prototype p_c per class,
- log( e^{z p_y / tau} / sum_{j != y} e^{z p_j / tau} ): the denominator excludes the own class, so the loss can be
negative.

Resolved: the hash layer, which both branches read, and the quantization term, over the codes of both, are the
adaptation. The sampler is uniform for the contrast and class-balanced for the classifier (unverified). The contrast has
two views of each image, so that a class with one image has a positive; an anchor without a positive is excluded. alpha
follows steps, not epochs. tau is 0.1; that of PSC is 0.1 for CIFAR-100 and 1 for CIFAR-10. The loss ``hybrid-sc`` in a
composition has one view, and the uniform sampler for both branches.

Public code: none by the authors was found; a reproduction was read.

Cite: wang2021hybrid
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from hashzoo import Backbone, Batch, Card, Deep, Log, Loss, Output, Run, Setting, Split
from hashzoo_plugins.heads.linear import NormTanh
from hashzoo_plugins.longtail import sampling, two_views
from hashzoo_plugins.longtail.contrast import contrast, same
from hashzoo_plugins.longtail.hashing import projection, quantization, require_one_label
from hashzoo_plugins.pointwise.views import Views


def prototypical(z: Tensor, prototypes: Tensor, classes: Tensor, temperature: float) -> Tensor:
    """PSC: the mean of -log(e^s_iy / sum_{j != y} e^s_ij), s = z prototypes' / temperature; vectors have length 1.

    >>> prototypical(torch.eye(2), torch.eye(2), torch.tensor([0, 1]), 0.5)
    tensor(-2.)
    """
    s = z @ prototypes.T / temperature  # (M, C)
    own = torch.zeros_like(s, dtype=torch.bool).scatter(1, classes[:, None], True)
    return (torch.logsumexp(s.masked_fill(own, -torch.inf), 1) - s[own]).mean()


class Hybrid(Loss):
    """Contrast of images first, cross-entropy later; one view, one sampler (Wang et al., CVPR 2021)."""

    def __init__(
        self,
        setting: Setting,
        *,
        contrast: Literal["pictures", "prototypes"] = "pictures",
        temperature: Annotated[float, Log(0.02, 1)] = 0.1,
        quantization: Annotated[float, Log(1e-3, 10)] = 0.1,
    ) -> None:
        super().__init__()
        require_one_label("hybrid-sc", setting)
        if contrast == "prototypes" and setting.classes < 2:
            raise ValueError("hybrid-sc with contrast = 'prototypes' needs at least two classes")
        self.contrast, self.temperature, self.quantization = contrast, temperature, quantization
        self.classifier = nn.Linear(setting.bits, setting.classes)
        self.projection = projection(setting.bits)
        if contrast == "prototypes":
            self.prototypes = nn.Parameter(torch.randn(setting.classes, setting.bits))

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """The three terms of (B, K) codes, with the same images in both branches."""
        return self.terms(output, batch, output, batch)

    def terms(self, plain: Output, seen: Batch, even: Output, drawn: Batch) -> dict[str, Tensor]:
        """``contrast`` of the first branch, ``classification`` of the second, ``quantization`` of both."""
        alpha = sampling.share(seen.progress)
        codes, classes, _ = two_views.together(plain, seen)
        classification = cross_entropy(self.classifier(even.code), drawn.labels.argmax(1))
        gap = quantization(codes if even is plain else torch.cat([codes, even.code]))
        return {
            "contrast": alpha * self.contrasted(normalize(self.projection(codes), dim=1), classes),
            "classification": (1 - alpha) * classification,
            "quantization": self.quantization * gap,
        }

    def contrasted(self, z: Tensor, classes: Tensor) -> Tensor:
        """L_SC or PSC of z (M, K)."""
        if self.contrast == "prototypes":
            return prototypical(z, normalize(self.prototypes, dim=1), classes, self.temperature)
        return contrast(z, z, same(classes, z.dtype), self.temperature)


class HybridSC(Deep):
    """A contrastive and a classification branch with two samplers, first to second (Wang et al., CVPR 2021)."""

    card = Card("deep", "classes", multilabel=False, paper="Wang et al., CVPR 2021", year=2021, views=True)
    loss: Hybrid

    def __init__(
        self,
        setting: Setting,
        backbone: Backbone,
        *,
        contrast: Literal["pictures", "prototypes"] = "pictures",
        temperature: Annotated[float, Log(0.02, 1)] = 0.1,
        quantization: Annotated[float, Log(1e-3, 10)] = 0.1,
        strength: float = 1.0,
        flip: bool = True,
        crop: float = 0.08,
    ) -> None:
        loss = Hybrid(setting, contrast=contrast, temperature=temperature, quantization=quantization)
        super().__init__(backbone, NormTanh(setting, backbone), loss)
        self.views = [Views(strength, flip, crop)] * 2
        self.probabilities = sampling.balanced(setting.class_counts)

    def fit(self, train: Split, run: Run) -> None:
        """Train with both samplers in parallel, with two views for the contrast and one for the classifier."""
        optimizer = run.optimizer(self.backbone, self.head, self.loss)
        weights = sampling.weights(train.labels, self.probabilities)
        plain = run.batches(train, views=self.views)
        for seen, drawn in zip(plain, run.batches(train, weights=weights), strict=False):
            contrasted = self.seen(seen)
            classified = self.head(self.backbone(drawn.images))
            run.step(optimizer, self.loss.terms(contrasted, seen, classified, drawn))
