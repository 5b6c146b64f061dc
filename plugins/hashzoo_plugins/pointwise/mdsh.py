"""Deep Hashing with Minimal-Distance-Separated Hash Centers (Wang, Pan, Liu, Lai, Yin & Liu, CVPR 2023).

Class centers have a guaranteed smallest distance. A softmax over cosines pulls a code to the centers of its labels;
later it is also pulled to the codes of all training images that share a label, which a slowly changing copy of the
network provides.

    u = tanh(BatchNorm(W f + v))  (B, K),  code = sgn(u)
    c_1 .. c_C = centers of -1 and 1 with the smallest distance d
    p_ij = softmax over j of  sqrt(K) cos(u_i, c_j)
    loss = - mean over i, j of  s_ij log p_ij + (1 - s_ij) log(1 - p_ij)
           + beta  mean over i, n with a common label of
                   log(1 + exp((1 - cos(u_i, k_n)) / 2))
           + lambda  mean over i, k of (|u_ik| - 1)^2
    k_n = code of training image n by the copy, when n was last in a batch
    copy <- m copy + (1 - m) network,  before every batch;  m = 0.9

Resolved: beta 1 and lambda 1e-4 are those of the authors' code. The pull between images starts there after 9 epochs of
a training that stops early; here after ``start`` = 0.09 of the training. Images that were not in a batch yet have no
code and do not count. Centers are those of ``hashzoo_plugins.pointwise.mds`` (``centers``: another kind). Probabilities
are clamped to 1e-6 from 1 in log(1 - p). The loss in another composition reads codes of the network itself.

Public code: codes and labels of images that were not seen yet are random numbers, so that random images count as
similar; log(1 - p) of a probability that rounds to 1 gives NaN, as for two opposite centers at 128 bits; a port trains
with centers of which two are equal (100 classes, 16 bits); training stops at the best epoch on the test set.

Cite: wang2023mdsh
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, normalize, softplus
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hashzoo import Backbone, Batch, Card, Deep, Log, Loss, Output, Run, Setting, Split
from hashzoo_plugins.heads.linear import NormTanh
from hashzoo_plugins.pairwise.pairs import SMALL
from hashzoo_plugins.pointwise.mds import Kind, centers
from hashzoo_plugins.quantization import gap

SURE = 1e-6


def center_entropy(code: Tensor, rows: Tensor, labels: Tensor) -> Tensor:
    """(B, C) -s log p - (1 - s) log(1 - p), with p the softmax of sqrt(K) times the cosines with centers (C, K)."""
    cosine = normalize(code, dim=1, eps=SMALL) @ normalize(rows.to(code), dim=1).T
    logs = log_softmax(code.shape[1] ** 0.5 * cosine, 1)
    others = torch.log(-torch.expm1(logs.clamp(max=-SURE)))
    return -torch.where(labels > 0, logs, others)


class MDSHLoss(Loss):
    """Cross-entropy with distant centers, and a pull to images that share a label (Wang et al., CVPR 2023).

    ``output.extra["key"]``, or without it the code itself, is stored for each image; :meth:`store` limits the stored
    images to those of a training set.
    """

    centers: Tensor
    place: Tensor
    bank: Tensor
    known: Tensor

    def __init__(
        self,
        setting: Setting,
        *,
        beta: Annotated[float, Log(0.01, 100)] = 1.0,
        quantization: Annotated[float, Log(1e-6, 0.1)] = 1e-4,
        start: float = 0.09,
        centers: Kind = "mds",
    ) -> None:
        super().__init__()
        self.beta, self.weight, self.start = beta, quantization, start
        self.register_buffer("centers", make_centers(centers, setting))
        self.register_buffer("place", torch.arange(setting.pool), persistent=False)
        self.register_buffer("bank", torch.zeros(setting.pool, setting.bits), persistent=False)
        self.register_buffer("known", torch.zeros(setting.pool, setting.classes, dtype=torch.bool), persistent=False)

    def store(self, ids: Tensor) -> None:
        """Keep rows of the images with these ids (N,) only; a step compares its codes with all rows."""
        self.place[ids] = torch.arange(len(ids)).to(self.place)
        self.bank = self.bank.new_zeros(len(ids), self.bank.shape[1])
        self.known = self.known.new_zeros(len(ids), self.known.shape[1])

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Terms ``center``, ``pair`` and ``quantization`` of (B, K) codes and (B, C) labels."""
        u = output.code
        with torch.no_grad():
            rows = self.place[batch.ids]
            self.bank[rows] = output.extra.get("key", u).detach().to(self.bank)
            self.known[rows] = batch.labels > 0
        terms = {"center": center_entropy(u, self.centers, batch.labels).mean()}
        if batch.progress >= self.start and self.beta:
            terms["pair"] = self.beta * self.pull(u, batch.labels)
        return terms | {"quantization": self.weight * gap(u).square().mean()}

    def pull(self, code: Tensor, labels: Tensor) -> Tensor:
        """The mean softplus of (1 - cosine) / 2 of codes (B, K) and stored codes of images with a common label."""
        alike = labels.to(code) @ self.known.to(code).T > 0  # (B, pool)
        cosine = normalize(code, dim=1, eps=SMALL) @ normalize(self.bank.to(code), dim=1, eps=SMALL).T
        return (softplus((1 - cosine) / 2) * alike).sum() / alike.sum().clamp(min=1)


def make_centers(kind: Kind, setting: Setting) -> Tensor:
    """(C, K) centers of the classes of a setting."""
    return centers(kind, setting.classes, setting.bits)


class MDSH(Deep):
    """MDSH: centers with a guaranteed smallest distance, a pull between images (Wang et al., CVPR 2023)."""

    card = Card("deep", "classes", paper="Wang et al., CVPR 2023", year=2023, gathers=True)
    loss: MDSHLoss

    def __init__(
        self,
        setting: Setting,
        backbone: Backbone,
        *,
        beta: Annotated[float, Log(0.01, 100)] = 1.0,
        quantization: Annotated[float, Log(1e-6, 0.1)] = 1e-4,
        start: float = 0.09,
        momentum: float = 0.9,
        centers: Kind = "mds",
    ) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(
                f"mdsh: momentum, the share of the old copy, must be at least 0 and below 1, not {momentum}"
            )
        loss = MDSHLoss(setting, beta=beta, quantization=quantization, start=start, centers=centers)
        super().__init__(backbone, NormTanh(setting, backbone), loss)
        self.momentum = momentum

    def fit(self, train: Split, run: Run) -> None:
        """Train on every batch, with the codes of the copy of the network beside those of the network."""
        self.loss.store(train.ids)
        optimizer = run.optimizer(self.backbone, self.head)
        network = nn.Sequential(self.backbone, self.head)
        copy = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(self.momentum))  # type: ignore[no-untyped-call]
        for batch in run.batches(train):
            output: Output = network(batch.images)
            with torch.no_grad():
                copy.update_parameters(network)
                key: Output = copy(batch.images)
            output = replace(output, extra=output.extra | {"key": key.code})
            run.step(optimizer, self.loss(run.gathered(output, batch), batch))
