"""The Swin dual-stream model (Li & Wang, Hans Publishers 2025) with the losses of Deep Hash Distillation (Jang et al.,
ECCV 2022): proxies, self-distillation between a weak and a strong view, binary cross-entropy quantization.

The two streams are the backbone ``dual-stream``; this file has the head, the loss, the views and the ranking.

Resolved: the hash layer has batch normalization, as in the source (the code of DHD has layer normalization: ``norm =
"layer"``). The weak view is the teacher and gets no gradient from the distillation. Equation 11 lacks the plus between
its two cross-entropies, and its minus must apply to both. Temperature 0.2, deviation 0.5 and the weights 0.1 and 0.1
are those of DHD; the source gives none. The strengths of the views, 0.5 and 1, scale the probability of each transform,
not its magnitude; the blur is defined for 224 pixels and proportional to the image. The source's final ranking combines
the Hamming distance with the classifier's confidence, without a formula: ``ranking = "weighted"`` adds ``mu`` K/2
(1 - <pi_q, pi_i>) to the distance, "tie-break" only orders images at equal distances. Both store C numbers of 32 bits
per image in addition, use the classifier, and mark their rows. ``swin-dual-stream`` ranks by the codes alone, since
other methods are compared by their codes; ``swin-dual-stream-c`` is the same network with ``ranking = "weighted"``.

Cite: li2025swin, jang2022dhd
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

from torch import Tensor
from torch.nn.functional import softmax

from hashzoo import Backbone, Batch, Card, Codes, Deep, Distance, Hamming, Index, Log, Operation, Scan, Setting, bits
from hashzoo_plugins.heads.linear import NormTanh
from hashzoo_plugins.pointwise.dhd import DHD, proxy_scores
from hashzoo_plugins.pointwise.views import Views

CONFIDENCES = "the confidences of the classifier, 32 bits a class"


class Confident(Distance):
    """Hamming distance plus ``weight`` times the disagreement of the classifier's confidences, 1 - <pi_q, pi_i>."""

    stored = ("code", "confidence")

    def __init__(self, weight: float) -> None:
        self.weight, self.hamming = weight, Hamming("code")

    def __call__(self, query: Codes, database: Codes) -> Tensor:
        """(Q, N) float32, rounded from float64, so that identical images have identical distances in any order."""
        agreement = query["confidence"].double() @ database["confidence"].double().T
        return (self.hamming(query, database) + self.weight * (1 - agreement)).float()


class SwinDualStream(Deep):
    """Two streams, batch-normalized codes, proxies and self-distillation (Li & Wang 2025; Jang et al., ECCV 2022)."""

    loss: DHD
    card = Card(
        "deep",
        "classes",
        paper="Li & Wang, Hans Publishers 2025; Jang et al., ECCV 2022",
        year=2025,
        views=True,
    )

    def __init__(
        self,
        setting: Setting,
        backbone: Backbone,
        *,
        norm: Literal["batch", "layer"] = "batch",
        temperature: Annotated[float, Log(0.05, 1)] = 0.2,
        deviation: float = 0.5,
        distillation: Annotated[float, Log(1e-3, 10)] = 0.1,
        quantization: Annotated[float, Log(1e-3, 10)] = 0.1,
        weak: float = 0.5,
        strong: float = 1.0,
        flip: bool = True,
        crop: float = 0.08,
        ranking: Literal["hamming", "weighted", "tie-break"] = "hamming",
        mu: float = 1.0,
    ) -> None:
        head = NormTanh(setting, backbone, norm=norm)
        loss = DHD(
            setting,
            temperature=temperature,
            deviation=deviation,
            distillation=distillation,
            quantization=quantization,
        )
        super().__init__(backbone, head, loss)
        self.bits, self.ranking, self.mu = setting.bits, ranking, mu
        self.views = [Views(weak, flip, crop), Views(strong, flip, crop)]
        self.mark = "" if ranking == "hamming" else "uses the classifier"
        if ranking != "hamming":
            self.card = replace(self.card, beyond=CONFIDENCES)  # type: ignore[misc]  # what this one stores

    def encode(self, batch: Batch) -> Codes:
        """sgn(h) of the image itself, and the softmax over proxies if the ranking uses confidences."""
        h = self.relaxed(batch)
        if self.ranking == "hamming":
            return {"code": bits(h)}
        scores = proxy_scores(self.loss.proxies, h) / self.loss.temperature
        return {"code": bits(h), "confidence": softmax(scores, 1)}

    def bitwise(self, operation: Operation, a: Codes, b: Codes) -> Codes:
        """Bitwise codes; confidences are combined as those of independent labels and normalized to a sum of 1."""
        made = super().bitwise(operation, a, b)
        if "confidence" in a:
            p, q = a["confidence"], b["confidence"]
            joint = {"union": p + q, "intersection": p * q, "difference": p * (1 - q)}[operation]
            made["confidence"] = joint / joint.sum(1, keepdim=True).clamp(min=1e-12)
        return made

    def index(self) -> Index:
        """A scan by Hamming distance, optionally with the confidence of the classifier."""
        if self.ranking == "hamming":
            return Scan(Hamming("code"))
        return Scan(Confident(self.mu * self.bits / 2 if self.ranking == "weighted" else 0.5))


#: The same method with the source's final ranking, for a second row on a board.
CONFIDENT: Any = partial(SwinDualStream, ranking="weighted")
CONFIDENT.card = replace(SwinDualStream.card, beyond=CONFIDENCES)
CONFIDENT.__doc__ = (
    """swin-dual-stream, ranked by Hamming distance and the classifier's confidence, as in its source."""
)
