"""Self-Paced Relational Contrastive Hashing for Large-Scale Image Retrieval (Lu, Jin, Li & Tang, IEEE TMM 2024).

A contrast of each code with the other codes of the batch and with learned class prototypes. Pairs that are already
right lose weight in the course of the training.

    u = tanh(W f + v)  (B, K),  code = sgn(u)
    e_c = tanh of a learned vector, the prototype of class c  (C, K)
    P_i = sum over j with a common label of   w+_ij exp(cos(u_i, u_j) / T)
    N_i = sum over the others of              w-_ij exp(cos(u_i, u_j) / T)
    P'_i, N'_i = the same sums over the prototypes of the labels of i,
                 and of the other classes
    a_i, b_i = images per label, |P_i| / |P'_i| and |N_i| / |N'_i|
    loss = mean over i of
           - log( (P_i + a_i P'_i) / (P_i + a_i P'_i + N_i + b_i N'_i) )
    w+ = exp(-1 - cos)^(s / 4),  w- = exp(-1 + cos)^s, without gradient
    s rises from 0 to 1 in the first third of the training;  T = 0.3

Resolved: the image itself is one of its positives, as in the authors' code; without it an image that is the only one of
its class in a batch would have none. s follows steps, not epochs. The prototypes are trained at ten times the rate of
the head, and the head there at ten times that of the network, which here is ``backbone_lr`` of the budget. An image
without a label has no positive and is left out of the mean.

Public code: an image without a label, or with all labels, gives 0 / 0; fewer than three epochs divide by zero; the best
of the epochs that are tested on the queries is reported.

Cite: lu2024sprch
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from hashzoo import Batch, Card, Choice, Log, Loss, Output, Setting, deep
from hashzoo_plugins.pairwise import pairs
from hashzoo_plugins.pairwise.pairs import SMALL, cosines

PACE = 3  # the weights are complete after 1 / PACE of the training
NEVER = float("-inf")


class SPRCH(Loss):
    """Contrast with codes and class prototypes, easy pairs weighted down (Lu et al., IEEE TMM 2024)."""

    def __init__(
        self,
        setting: Setting,
        *,
        temperature: Annotated[float, Log(0.05, 2)] = 0.3,
        paced: Annotated[bool, Choice(True, False)] = True,
    ) -> None:
        super().__init__()
        self.temperature, self.paced = temperature, paced
        self.prototypes = nn.Parameter(torch.empty(setting.classes, setting.bits))
        bound = setting.classes**-0.5  # that of the linear layer in the authors' code
        nn.init.uniform_(self.prototypes, -bound, bound)

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """The term ``contrast`` of (B, K) codes and (B, C) labels. ValueError for a batch of one."""
        pairs.require("sprch", batch)
        code, own = output.code, batch.labels > 0
        alike = batch.similar > 0
        prototypes = normalize(torch.tanh(self.prototypes.to(code)), dim=1, eps=SMALL)
        pace = min(1.0, PACE * batch.progress) if self.paced else 0.0
        data = self.logs(cosines(code), alike, pace)  # (B, B)
        words = self.logs(normalize(code, dim=1, eps=SMALL) @ prototypes.T, own, pace)  # (B, C)
        words = words + torch.where(own, share(alike, own, code), share(~alike, ~own, code)).log()
        every = torch.cat([data, words], 1)
        right = every.masked_fill(~torch.cat([alike, own], 1), NEVER)
        taught = own.any(1)
        right = torch.where(taught[:, None], right, every)  # an image without positives has the term 0
        lost = torch.logsumexp(every, 1) - torch.logsumexp(right, 1)
        return {"contrast": lost.sum() / taught.sum().clamp(min=1)}

    def logs(self, cosine: Tensor, alike: Tensor, pace: float) -> Tensor:
        """The logarithms of the weighted summands for cosines and whether they are of positives, in one shape."""
        fixed = cosine.detach()
        return cosine / self.temperature + pace * torch.where(alike, (-1 - fixed) / 4, fixed - 1)


def share(alike: Tensor, own: Tensor, like: Tensor) -> Tensor:
    """(B, 1) the number of images (B, B) for each class (B, C) in the type of ``like``, 0 if there is no class."""
    return alike.sum(1, keepdim=True).to(like) / own.sum(1, keepdim=True).clamp(min=1)


METHOD = deep(
    "tanh",
    SPRCH,
    card=Card("deep", "classes", paper="Lu et al., IEEE TMM 2024", year=2024),
    doc="SPRCH: self-paced contrast with codes and class prototypes (Lu et al., IEEE TMM 2024)",
    loss_rate=10.0,
)
