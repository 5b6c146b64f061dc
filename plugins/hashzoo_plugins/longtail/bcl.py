"""Balanced Contrastive Learning for Long-Tailed Visual Recognition (Zhu, Wang, Chen, Chen & Jiang, CVPR 2022), adapted
to hashing.

Supervised contrast in which all classes have equal weight: a class enters the denominator as its mean, not as its sum,
and every class is in every batch through a center computed from the classifier's weights. A classifier with logits
adjusted by the class frequencies is trained too.

    h    = tanh(BN(W f))                                         (B, K)
    z    = normalized perceptron of h of two views               (2 B, K)
    c_j  = normalized perceptron of row j of W_c                 (C, K)
    B_ij = the z of class j and c_j, without z_i
    P_i  = B_ij of its own class, j = y_i
    D_i  = sum_j 1/|B_ij| sum_{k in B_ij} e^{z_i k / tau}
    L_B  = mean_i - 1/|P_i| sum_{p in P_i} log( e^{z_i p / tau} / D_i )
    L_LC = CE(W_c h + log pi, y),  pi_c = n_c / N
    L    = L_LC + 0.35 L_B + 0.1 mean (|h| - 1)^2
    b    = sgn(h)

Resolved: the hash layer, which both branches read, and the quantization term are the adaptation. Weights 1 and 0.35 and
tau = 0.07 are those for ImageNet-LT. The authors' code has three views, one for the classifier and two for the
contrast; here the classifier reads the same two views. The classifier is linear (theirs: cosines). A class without
images counts as one image in pi, so that its logit is finite, and its center takes part in the contrast. The loss
``bcl`` in a composition has one view.

Public code: it agrees with the formula in the denominators; the anchor does not count in its own class.

Cite: zhu2022bcl
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from hashzoo import Backbone, Batch, Card, Deep, Log, Loss, Output, Setting
from hashzoo_plugins.heads.linear import NormTanh
from hashzoo_plugins.longtail import two_views
from hashzoo_plugins.longtail.contrast import contrast
from hashzoo_plugins.longtail.hashing import projection, quantization, require_one_label
from hashzoo_plugins.pointwise.views import Views


def balanced_contrast(z: Tensor, centers: Tensor, classes: Tensor, temperature: float) -> Tensor:
    """L_B of z (M, K) with classes (M,) and the centers (C, K) of all classes; all vectors have length 1.

    >>> balanced_contrast(torch.eye(2), torch.eye(2), torch.tensor([0, 1]), 1.0)  # - log e / (e + 1), twice
    tensor(0.3133)
    """
    keys = torch.cat([z, centers])
    whose = torch.cat([classes, torch.arange(len(centers), device=classes.device)])  # (M + C,)
    alike = (classes[:, None] == whose[None]).to(z)  # (M, M + C)
    size = alike.sum(0) + 1 - alike  # |B_ij| of the class of each key, with one center
    alike = alike - torch.eye(*alike.shape, device=z.device, dtype=z.dtype)  # P_i
    return contrast(z, keys, alike / alike.sum(1, keepdim=True), temperature, size)


class BalancedContrast(Loss):
    """Class-averaged contrast with class centers and logit-adjusted cross-entropy (Zhu et al., CVPR 2022)."""

    log_prior: Tensor

    def __init__(
        self,
        setting: Setting,
        *,
        classification: float = 1.0,
        contrast: Annotated[float, Log(0.01, 10)] = 0.35,
        temperature: Annotated[float, Log(0.02, 1)] = 0.07,
        quantization: Annotated[float, Log(1e-3, 10)] = 0.1,
    ) -> None:
        super().__init__()
        require_one_label("bcl", setting)
        self.weights = {"classification": classification, "contrast": contrast, "quantization": quantization}
        self.temperature = temperature
        self.classifier = nn.Linear(setting.bits, setting.classes)
        self.projection, self.centring = projection(setting.bits), projection(setting.bits)
        counts = setting.class_counts.clamp(min=1).double()
        self._exact = (counts / counts.sum()).log()  # (C,), for losses in float64
        self.register_buffer("log_prior", self._exact.float())

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Terms ``classification``, ``contrast`` and ``quantization`` of (B, K) codes of one view or two."""
        codes, classes, _ = two_views.together(output, batch)
        z = normalize(self.projection(codes), dim=1)
        centers = normalize(self.centring(self.classifier.weight), dim=1)
        logits = self.classifier(codes)
        log_prior = self._exact.to(logits) if logits.dtype == torch.float64 else self.log_prior
        terms = {
            "classification": cross_entropy(logits + log_prior, classes),
            "contrast": balanced_contrast(z, centers, classes, self.temperature),
            "quantization": quantization(codes),
        }
        return {name: self.weights[name] * term for name, term in terms.items()}


class BCL(Deep):
    """Contrast with equal weight for all classes, and adjusted logits (Zhu et al., CVPR 2022)."""

    card = Card("deep", "classes", multilabel=False, paper="Zhu et al., CVPR 2022", year=2022, views=True)

    def __init__(
        self,
        setting: Setting,
        backbone: Backbone,
        *,
        classification: float = 1.0,
        contrast: Annotated[float, Log(0.01, 10)] = 0.35,
        temperature: Annotated[float, Log(0.02, 1)] = 0.07,
        quantization: Annotated[float, Log(1e-3, 10)] = 0.1,
        strength: float = 1.0,
        flip: bool = True,
        crop: float = 0.08,
    ) -> None:
        loss = BalancedContrast(
            setting,
            classification=classification,
            contrast=contrast,
            temperature=temperature,
            quantization=quantization,
        )
        super().__init__(backbone, NormTanh(setting, backbone), loss)
        self.views = [Views(strength, flip, crop)] * 2
