"""Deep Hash Distillation for Image Retrieval (Jang, Gu, Ko, Kang & Cho, ECCV 2022).

Codes of a weakly and a strongly transformed view of an image are pulled together, with the weak view as the teacher.
Trainable class proxies are the targets of the codes, and a binary cross-entropy pulls every bit to its sign.

    h = tanh(LayerNorm(W f))  (B, K): h_T of the weak view, h_S of the strong
    S(u, v) = cosine,  proxies p (C, K)
    loss = mean over i of
           - sum_c y_c / |y| log softmax(S(p_c, h_T) / tau)_c
           + lambda_1 (1 - S(sg[h_T], h_S))                      distillation
           + lambda_2 / K sum_k Q(h_Tk)                          quantization
    Q(h) = (|h| - 1)^2 / (2 sigma^2) - log(1 - exp(-(|h| + 1)^2 / (2 sigma^2)))
    code = sgn(h) of the image itself

Resolved: tau 0.2, sigma 0.5 and the weights 0.1 and 0.1 are those of the authors' code. The weak view scales the
probability of every transform by 0.5, the strong view by 1; the size of the blur is proportional to the image. The two
views pass the network separately, each with its own batch statistics. With stored features both views are equal, and
the distillation term is 0.

Public code: the period of the cosine schedule is in batches but is stepped by epochs, so that the rate rises again; the
label tensor is divided in place; an image without a label gives NaN; the best epoch on the test set is reported.

Cite: jang2022dhd
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, log_softmax, normalize

from hashzoo import Backbone, Batch, Card, Deep, Log, Loss, Output, Setting
from hashzoo_plugins.heads.linear import NormTanh
from hashzoo_plugins.pointwise.centers import shares
from hashzoo_plugins.pointwise.views import Views


def proxy_scores(proxies: Tensor, code: Tensor) -> Tensor:
    """(B, C) cosines of codes (B, K) with the class proxies (C, K), eq. 8."""
    return normalize(code, dim=1) @ normalize(proxies, dim=1).T


def likelihood_gap(code: Tensor, deviation: float) -> Tensor:
    """(B,) the cross-entropies of eq. 10 and 11 with the sign of each bit as the target, mean over bits.

    >>> round(float(likelihood_gap(torch.tensor([[0.5]], dtype=torch.float64), 0.5)), 6)
    0.511171
    """
    # Even in h: the target is (1, 0) for h >= 0 and (0, 1) for h < 0. The likelihood of the other side is below 1.
    near = (code.abs() - 1).square() / (2 * deviation**2)  # -log g of the side of the bit
    far = (code.abs() + 1).square() / (2 * deviation**2)
    return (near - torch.log(-torch.expm1(-far))).mean(1)


class DHD(Loss):
    """Hash proxies, self-distillation and binary cross-entropy quantization (Jang et al., ECCV 2022).

    ``output.code`` is the code of the teacher view, ``output.extra["second"]`` that of the student. A composition
    head+dhd has one view and no distillation.
    """

    def __init__(
        self,
        setting: Setting,
        *,
        temperature: Annotated[float, Log(0.05, 1)] = 0.2,
        deviation: float = 0.5,
        distillation: Annotated[float, Log(1e-3, 10)] = 0.1,
        quantization: Annotated[float, Log(1e-3, 10)] = 0.1,
    ) -> None:
        super().__init__()
        self.temperature, self.deviation = temperature, deviation
        self.distillation, self.quantization = distillation, quantization
        self.proxies = nn.Parameter(torch.empty(setting.classes, setting.bits))
        nn.init.xavier_uniform_(self.proxies, gain=nn.init.calculate_gain("tanh"))

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Terms ``proxy``, ``distillation`` and ``quantization`` of (B, K) codes and (B, C) labels."""
        target, teacher = shares("dhd", batch.labels), output.code
        scores = log_softmax(proxy_scores(self.proxies.to(teacher), teacher) / self.temperature, 1)
        terms = {"proxy": -(target * scores).sum(1).mean()}
        if "second" in output.extra:
            alike = cosine_similarity(teacher.detach(), output.extra["second"], dim=1)
            terms["distillation"] = self.distillation * (1 - alike).mean()
        terms["quantization"] = self.quantization * likelihood_gap(teacher, self.deviation).mean()
        return terms


class DeepHashDistillation(Deep):
    """Deep Hash Distillation: proxies, a weak view teaching a strong one, binary bits (Jang et al., ECCV 2022)."""

    card = Card("deep", "classes", paper="Jang et al., ECCV 2022", year=2022, views=True)

    def __init__(
        self,
        setting: Setting,
        backbone: Backbone,
        *,
        temperature: Annotated[float, Log(0.05, 1)] = 0.2,
        deviation: float = 0.5,
        distillation: Annotated[float, Log(1e-3, 10)] = 0.1,
        quantization: Annotated[float, Log(1e-3, 10)] = 0.1,
        weak: float = 0.5,
        strong: float = 1.0,
        flip: bool = True,
        crop: float = 0.08,
    ) -> None:
        loss = DHD(
            setting,
            temperature=temperature,
            deviation=deviation,
            distillation=distillation,
            quantization=quantization,
        )
        super().__init__(backbone, NormTanh(setting, backbone, norm="layer"), loss)
        self.views = [Views(weak, flip, crop), Views(strong, flip, crop)]
