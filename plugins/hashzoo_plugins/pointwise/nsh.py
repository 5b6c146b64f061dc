"""NSH: Learning to Hash Naturally Sorts (Yu, Shen, Wang, Zhang & Torr, IJCAI 2022).

The images of a batch are sorted by the similarity of their codes to a query, softly, so that the order has a gradient.
Features of the first places are positives of the query in a contrastive loss, those of all further places negatives.

    h = tanh(W f)  (n, K),  z = V f / |V f|  (n, L), for two views ' and ''
    S_ij = <h'_i, h''_j> / (2 K) + 1/2                            in 0..1
    P_i = softsort of row i:  P_irj = softmax over j of -|S_ij - S_i[r]| / tau,
          S_i[r] the r-th largest of the row
    e_ir = sum_j P_irj z'_j                  expected features at place r
    c_ir = <e_ir, z''_i> / temperature
    loss = - mean over i and r <= m of
             log(exp c_ir / (exp c_ir + sum over q > m of exp c_iq))
           + quantization mean of (h - sgn h)^2
    code = sgn(h)

Resolved: m = 2, temperature 0.3, L = 1024 and quantization 1 are those of a port by the authors of SDC, from which the
formulas were read. tau = 0 stands for 1 / K, the width of one bit in S. In a batch of m images or fewer there is no
negative and the contrast is 0. ``features`` of another head serve as z, at length 1. The memory grows with the cube of
the batch. With stored features both views are equal; then the first positive is the image itself.

Measured: on digits.standard (scattering features, 32 bits, two seeds) map@all is .709, ``itq`` .618. A small network
trained with it from random weights gives .195 (three seeds; ``itq`` on pixels .648): the port freezes the backbone, and
a trained one can move its own features to where the order of the codes is. A fit on stored features takes eight times
as long as that of the median deep method: the order of a batch has n x n x n weights, and the latent layer sixteen
times as many weights as a hash layer of 64 bits.

Public code: the port gives the softmax of c to a cross-entropy that takes the softmax again, so that its loss cannot
fall below log(1 + (n - m) / e): its gradient vanishes where the positives are far behind. Here it is taken once.

Cite: yu2022nsh
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from hashzoo import Backbone, Batch, Card, Deep, Features, Head, Integer, Log, Loss, Output, Setting
from hashzoo_plugins.pairwise import pairs
from hashzoo_plugins.pointwise.views import Views
from hashzoo_plugins.quantization import gap


class TwoHeads(Head):
    """A hash layer with tanh, and beside it a linear layer to a vector of length 1 (Yu et al., IJCAI 2022)."""

    def __init__(self, setting: Setting, backbone: Backbone, *, latent: int = 1024) -> None:
        super().__init__()
        self.hash, self.latent = nn.Linear(backbone.dim, setting.bits), nn.Linear(backbone.dim, latent)

    def forward(self, features: Features) -> Output:
        """``code`` (B, K) in (-1, 1), and ``extra["latent"]`` (B, L)."""
        latent = normalize(self.latent(features.pooled), dim=1, eps=pairs.SMALL)
        return Output(torch.tanh(self.hash(features.pooled)), extra={"latent": latent})


def softsort(s: Tensor, tau: float) -> Tensor:
    """(n, n, m) weights of the entries of each row (n, m) at each place of the row in descending order.

    >>> softsort(torch.tensor([[0.0, 1.0]]), 1e-3)
    tensor([[[0., 1.],
             [1., 0.]]])
    """
    ordered = s.sort(dim=1, descending=True).values
    return (-(s[:, None, :] - ordered[:, :, None]).abs() / tau).softmax(2)


def contrast(c: Tensor, positives: int) -> Tensor:
    """Cross-entropy of each of the first places of (n, m) scores against all places after them, a mean.

    >>> round(float(contrast(torch.tensor([[1.0, 0.0, 0.0]]), 1)), 6)
    0.551445
    """
    rest = c[:, positives:].logsumexp(1, keepdim=True) if c.shape[1] > positives else torch.full_like(c[:, :1], -1e9)
    first = c[:, :positives]
    return (torch.logaddexp(first, rest) - first).mean()


class NSH(Loss):
    """Contrast of features in the order of code similarity, sorted softly, no labels (Yu et al., IJCAI 2022)."""

    def __init__(
        self,
        setting: Setting,
        *,
        positives: Annotated[int, Integer(1, 8)] = 2,
        temperature: Annotated[float, Log(0.05, 2)] = 0.3,
        tau: float = 0.0,
        quantization: Annotated[float, Log(0.01, 100)] = 1.0,
    ) -> None:
        super().__init__()
        self.positives, self.temperature = positives, temperature
        self.tau, self.quantization = tau or 1 / setting.bits, quantization

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Terms ``contrast`` and ``quantization``; a single view is used as both."""
        pairs.require("nsh", batch)
        extra = output.extra
        latent = next((extra[name] for name in ("latent", "features") if name in extra), None)
        if latent is None:
            raise ValueError("nsh needs a head that returns a latent vector or its features, such as nsh or linear")
        first, second = output.code, extra.get("second", output.code)
        z = normalize(latent, dim=1, eps=pairs.SMALL)
        places = softsort(first @ second.T / (2 * first.shape[1]) + 0.5, self.tau)  # (n, n, n)
        similar = extra.get("second latent", z) @ z.T  # first: (n, n, L) expected features would cost L times as much
        scores = torch.einsum("irj,ij->ir", places, similar)
        both = torch.cat([first, second])
        return {
            "contrast": contrast(scores / self.temperature, self.positives),
            "quantization": self.quantization * gap(both).square().mean(),
        }


class NaturallySorted(Deep):
    """NSH: two views contrasted in the order of their codes' similarity, no labels (Yu et al., IJCAI 2022)."""

    card = Card("deep", "none", paper="Yu et al., IJCAI 2022", year=2022, views=True)

    def __init__(
        self,
        setting: Setting,
        backbone: Backbone,
        *,
        positives: Annotated[int, Integer(1, 8)] = 2,
        temperature: Annotated[float, Log(0.05, 2)] = 0.3,
        tau: float = 0.0,
        quantization: Annotated[float, Log(0.01, 100)] = 1.0,
        latent: int = 1024,
        flip: bool = True,
        crop: float = 0.2,
    ) -> None:
        loss = NSH(setting, positives=positives, temperature=temperature, tau=tau, quantization=quantization)
        super().__init__(backbone, TwoHeads(setting, backbone, latent=latent), loss)
        self.views = [Views(1.0, flip, crop)] * 2

    def seen(self, batch: Batch) -> Output:
        """The output of the first view, with code and latent vector of the second in ``extra``."""
        outputs: list[Output] = [self.head(self.backbone(view)) for view in batch.views]
        first, second = outputs
        extra = {"second": second.code, "second latent": second.extra["latent"]}
        return replace(first, extra=first.extra | extra)
