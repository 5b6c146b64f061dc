"""The Swin dual-stream model (Li & Wang, Hans Publishers 2025) with the losses of Deep Hash Distillation (Jang et al.,
ECCV 2022): proxies, self-distillation between a weak and a strong view, binary cross-entropy quantization.

The two streams are the backbone ``dual-stream``; what is here is the head, the loss, the views and the ranking.

Resolved: the hash layer has batch normalisation as the source says (DHD's code has layer normalisation: ``norm =
"layer"``). The weak view teaches and gets no gradient from the distillation. Equation 11 lacks the plus between its
two cross-entropies, and its minus must cover both. Temperature 0.2, deviation 0.5, weights 0.1 and 0.1 are DHD's;
the source gives none. Views scale the probability of each transform by their strength, 0.5 and 1, not its size; the
blur is for 224 pixels and shrinks with the picture. The ranking by classifier confidence is named in the source
without a formula: ``ranking = "weighted"`` adds ``mu`` K/2 (1 - <pi_q, pi_i>) to the Hamming distance, "tie-break"
uses it inside equal distances only. Both store C more numbers a picture, use the classifier, and are marked so.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, log_softmax, normalize, softmax
from torchvision.transforms import v2

from hashzoo.index import Distance, Hamming, Index, Scan
from hashzoo.method import Backbone, Card, Method, bits
from hashzoo.run import Run
from hashzoo.types import Batch, Codes, Operation, Output, Setting, Split
from hashzoo_plugins.heads.linear import NormTanh

FULL = 224  # pixels for which the blur is meant


class Views:
    """One view of a picture: DHD's group of transforms, each with its probability scaled by ``strength``.

    Random resized crop 1, flip 0.5, colour jitter 0.8, greyscale 0.2, Gaussian blur 0.5. ``flip = False`` is for
    pictures that mean something else in a mirror, ``crop`` the smallest share of the area that a crop keeps.
    """

    def __init__(self, strength: float, flip: bool, crop: float) -> None:
        if not 0 <= strength <= 1:
            raise ValueError(f"the strength of a view is a multiple of probabilities, 0 to 1, not {strength}")
        self.strength, self.flip, self.crop = strength, flip, crop

    def __call__(self, picture: Tensor) -> Tensor:
        """A (C, H, W) uint8 picture in, one of the same shape out; randomness is torch's global generator."""
        a, (channels, height, width) = self.strength, picture.shape
        side = min(height, width)
        half = min(round(12 * side / FULL), side - 1)
        steps: list[tuple[float, nn.Module]] = [
            (a, v2.RandomResizedCrop((height, width), scale=(self.crop, 1.0), antialias=True)),
            (0.5 * a * self.flip, v2.RandomHorizontalFlip(1.0)),
            (0.8 * a, v2.ColorJitter(0.4, 0.8, 0.8, 0.2) if channels == 3 else v2.ColorJitter(0.4, 0.8)),
            (0.2 * a * (channels == 3), v2.RandomGrayscale(1.0)),
        ]
        if half:
            scale = side / FULL
            steps.append((0.5 * a, v2.GaussianBlur(2 * half + 1, (max(0.1 * scale, 1e-3), 2.0 * scale))))
        draws = torch.rand(5)
        for draw, (probability, step) in zip(draws, steps, strict=False):
            if float(draw) < probability:
                picture = step(picture)
        return picture


def proxy_scores(proxies: Tensor, code: Tensor) -> Tensor:
    """(B, C) cosines of codes (B, K) with the class proxies (C, K), eq. 8."""
    return normalize(code, dim=1) @ normalize(proxies, dim=1).T


def likelihood_gap(code: Tensor, deviation: float) -> Tensor:
    """(B,) mean over bits of the two cross-entropies of eq. 10 and 11, towards the sign of each bit.

    >>> round(float(likelihood_gap(torch.tensor([[0.5]], dtype=torch.float64), 0.5)), 6)
    0.511171
    """
    # Even in h: the target of h >= 0 is (1, 0), of h < 0 it is (0, 1). The far likelihood is below 1.
    near = (code.abs() - 1).square() / (2 * deviation**2)  # -log g of the side the bit is on
    far = (code.abs() + 1).square() / (2 * deviation**2)
    return (near - torch.log(-torch.expm1(-far))).mean(1)


class DHD(nn.Module):
    """Hash proxies, self-distillation and binary cross-entropy quantization (Jang et al., ECCV 2022).

    ``output.code`` is the teacher's; the student's is ``output.extra["student"]``. In a composition head+dhd there is
    one view, and no distillation.
    """

    def __init__(
        self,
        setting: Setting,
        *,
        temperature: float = 0.2,
        deviation: float = 0.5,
        distillation: float = 0.1,
        quantization: float = 0.1,
    ) -> None:
        super().__init__()
        self.temperature, self.deviation = temperature, deviation
        self.distillation, self.quantization = distillation, quantization
        self.proxies = nn.Parameter(torch.empty(setting.classes, setting.bits))
        nn.init.xavier_uniform_(self.proxies, gain=nn.init.calculate_gain("tanh"))

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Terms ``proxy``, ``distillation`` and ``quantization`` of (B, K) codes and (B, C) labels."""
        size = batch.labels.sum(1, keepdim=True)
        if not (size > 0).all():
            raise ValueError("dhd pulls codes to the proxies of their labels: a picture of the batch has no label")
        teacher = output.code
        scores = log_softmax(proxy_scores(self.proxies.to(teacher), teacher) / self.temperature, 1)
        terms = {"proxy": -(batch.labels / size * scores).sum(1).mean()}
        if "student" in output.extra:
            alike = cosine_similarity(teacher.detach(), output.extra["student"], dim=1)
            terms["distillation"] = self.distillation * (1 - alike).mean()
        terms["quantization"] = self.quantization * likelihood_gap(teacher, self.deviation).mean()
        return terms


class Confident(Distance):
    """Hamming distance with the disagreement of the classifier's confidences, 1 - <pi_q, pi_i>, times ``weight``."""

    stored = ("code", "confidence")

    def __init__(self, weight: float) -> None:
        self.weight, self.hamming = weight, Hamming("code")

    def __call__(self, query: Codes, database: Codes) -> Tensor:
        """(Q, N) float32; rounded from float64 so that equal pictures are equally far wherever they stand."""
        agreement = query["confidence"].double() @ database["confidence"].double().T
        return (self.hamming(query, database) + self.weight * (1 - agreement)).float()


class SwinDualStream(Method):
    """Two streams, batch-normalised codes, proxies and self-distillation (Li & Wang 2025; Jang et al., ECCV 2022)."""

    card = Card(
        "deep",
        "classes",
        paper="Li & Wang, Hans Publishers 2025; Jang et al., ECCV 2022",
        year=2025,
    )

    def __init__(
        self,
        setting: Setting,
        backbone: Backbone,
        *,
        norm: Literal["batch", "layer"] = "batch",
        temperature: float = 0.2,
        deviation: float = 0.5,
        distillation: float = 0.1,
        quantization: float = 0.1,
        weak: float = 0.5,
        strong: float = 1.0,
        flip: bool = True,
        crop: float = 0.08,
        ranking: Literal["hamming", "weighted", "tie-break"] = "hamming",
        mu: float = 1.0,
    ) -> None:
        super().__init__()
        self.backbone, self.bits, self.ranking, self.mu = backbone, setting.bits, ranking, mu
        self.head = NormTanh(backbone, setting, norm=norm)
        self.loss = DHD(
            setting,
            temperature=temperature,
            deviation=deviation,
            distillation=distillation,
            quantization=quantization,
        )
        self.views = [Views(weak, flip, crop), Views(strong, flip, crop)]
        self.mark = "" if ranking == "hamming" else "uses the classifier"

    def fit(self, train: Split, run: Run) -> None:
        """The weak view teaches the strong one; two passes, each with batch statistics of its own."""
        optimizer = run.optimizer(self.backbone, self.head, self.loss)
        for batch in run.batches(train, views=self.views):
            teacher, student = (self.head(self.backbone(view)).code for view in batch.views)
            run.step(optimizer, self.loss(Output(teacher, extra={"student": student}), batch))

    def relaxed(self, batch: Batch) -> Tensor:
        """h."""
        output: Output = self.head(self.backbone(batch.images))
        return output.code

    def encode(self, batch: Batch) -> Codes:
        """sgn(h) of the picture itself; with a ranking by confidence, the softmax over proxies too."""
        h = self.relaxed(batch)
        if self.ranking == "hamming":
            return {"code": bits(h)}
        scores = proxy_scores(self.loss.proxies, h) / self.loss.temperature
        return {"code": bits(h), "confidence": softmax(scores, 1)}

    def bitwise(self, operation: Operation, a: Codes, b: Codes) -> Codes:
        """The bits; confidences as those of independent labels, scaled to a sum of 1."""
        made = super().bitwise(operation, a, b)
        if "confidence" in a:
            p, q = a["confidence"], b["confidence"]
            joint = {"union": p + q, "intersection": p * q, "difference": p * (1 - q)}[operation]
            made["confidence"] = joint / joint.sum(1, keepdim=True).clamp(min=1e-12)
        return made

    def index(self) -> Index:
        """Hamming distance, alone or with the classifier's confidence."""
        if self.ranking == "hamming":
            return Scan(Hamming("code"))
        return Scan(Confident(self.mu * self.bits / 2 if self.ranking == "weighted" else 0.5))
