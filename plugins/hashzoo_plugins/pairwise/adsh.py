"""Asymmetric Deep Supervised Hashing (Jiang & Li, AAAI 2018).

Only queries pass through the network; the codes of the training images, which are the database in the paper, are free
variables learned from labels.

    u = tanh(W f + c)  (B, K)
    loss on the network, V fixed:
        mean over i in the batch and j in train of (<u_i, v_j> - K S_ij)^2
        + gamma / n mean over i of |v_i - u_i|^2
    V, U fixed:
        v_k = -sgn(2 V_rest U_rest' u_k + q_k)
        Q = -2 K S' U - 2 gamma (U on its own rows)
    S = s (1 + r) - r,  r = sum s / sum (1 - s):
        1 for similar pairs, -r for the others, sum 0
    code = sgn(u);  for a training image in the database its row of V

Resolved: V is solved each time ``sample`` images have passed through the network (or all training images, if there are
fewer), from their values of U at that time; the paper passes three times over each sample. A bit with a zero argument
does not change. The rates and the decay of the paper are unverified. V depends on the labels of images that can be in
the database: if a protocol has training images in the database the row is marked, and it is not comparable with methods
that encode every image by the network. Otherwise V is used in training only.

Public code: scores on such databases are reported next to those of inductive methods; the ``adsh`` of another toolkit
is a different method (Angular Deep Supervised Hashing).

Cite: jiang2018adsh
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from hashzoo import Backbone, Batch, Card, Codes, Deep, Log, Loss, Output, Run, Setting, Split, bits, signs
from hashzoo_plugins.heads.linear import Tanh
from hashzoo_plugins.shallow.discrete import descent

CHUNK = 4096  # rows of the matrix of pairs that are counted at once


def ratio(labels: Tensor) -> float:
    """r, the ratio of similar to dissimilar pairs of images with labels (n, C); 1 without dissimilar pairs.

    >>> ratio(torch.eye(4))
    0.3333333333333333
    """
    alike = sum(int((part @ labels.T > 0).sum()) for part in torch.split(labels, CHUNK))
    other = len(labels) ** 2 - alike
    return alike / other if other else 1.0


def targets(a: Tensor, b: Tensor, r: float) -> Tensor:
    """(m, n) S = s (1 + r) - r for labels (m, C) and (n, C): 1 for similar pairs, -r for the others.

    >>> targets(torch.eye(2)[:1], torch.eye(2), 0.5)
    tensor([[ 1.0000, -0.5000]])
    """
    return torch.where(a @ b.T > 0, 1.0, -r).to(a.dtype)


def objective(v: Tensor, u: Tensor, s: Tensor, rows: Tensor, gamma: float) -> Tensor:
    """|U V' - K S|^2 + gamma |V_rows - U|^2 for V (n, K), U (m, K), S (m, n) and the rows (m,) of V for U."""
    return (u @ v.T - v.shape[1] * s).square().sum() + gamma * (v[rows] - u).square().sum()


def update(v: Tensor, u: Tensor, s: Tensor, rows: Tensor, gamma: float) -> Tensor:
    """V (n, K) after solving each column with the others fixed; never raises :func:`objective`."""
    q = v.shape[1] * s.T @ u  # (n, K), -1/2 of that of the paper
    q.index_add_(0, rows, gamma * u)  # an image can occur twice
    return descent(v, q, u.T, sweeps=1)


class Asymmetric(Loss):
    """Squared error of inner products with learned codes, in a table (pool, K); the rows of other images are 0."""

    codes: Tensor
    labels: Tensor

    def __init__(self, setting: Setting, *, gamma: float) -> None:
        super().__init__()
        self.gamma, self.r = gamma, 1.0
        self.register_buffer("codes", torch.zeros(setting.pool, setting.bits))
        self.register_buffer("labels", torch.zeros(setting.pool, setting.classes), persistent=False)
        self._read: tuple[tuple[int, ...], Tensor, Tensor] | None = None

    def known(self) -> tuple[Tensor, Tensor]:
        """The learned codes (n, K) and the labels (n, C) of their images; selected again only after a change."""
        version = tuple(value for t in (self.codes, self.labels) for value in (t.data_ptr(), t._version))
        if self._read is None or self._read[0] != version:
            rows = torch.nonzero(self.codes.abs().sum(1))[:, 0]
            self._read = version, self.codes[rows], self.labels[rows]
        return self._read[1:]

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Terms ``pair`` and ``quantization`` of (B, K) codes, against all codes of the table."""
        u = output.code
        v, labels = (part.to(u) for part in self.known())
        s = targets(batch.labels.to(u), labels, self.r)  # (B, n)
        own = self.codes[batch.ids].to(u)
        away = (own - u).square().sum(1).mean() * self.gamma / max(1, len(v))
        return {"pair": (u @ v.T - u.shape[1] * s).square().mean() if len(v) else u.sum() * 0, "quantization": away}


class ADSH(Deep):
    """Asymmetric deep supervised hashing: a network for queries, free training codes (Jiang & Li, AAAI 2018)."""

    loss: Asymmetric
    card = Card("deep", "pairs", paper="Jiang & Li, AAAI 2018", year=2018, saw_database=True)

    def __init__(
        self,
        setting: Setting,
        backbone: Backbone,
        *,
        gamma: Annotated[float, Log(1, 10_000)] = 200.0,
        sample: int = 2000,
    ) -> None:
        super().__init__(backbone, Tanh(setting, backbone), Asymmetric(setting, gamma=gamma))
        self.gamma, self.sample = gamma, sample

    def fit(self, train: Split, run: Run) -> None:
        """Alternate between training the network on a sample and solving for all codes."""
        table, device = self.loss.codes, run.device
        ids, labels = train.ids.to(device), train.labels.to(device)
        place = torch.zeros(len(table), dtype=torch.long, device=device)  # row of an id in the training split
        place[ids] = torch.arange(len(ids), device=device)
        table[ids] = signs(torch.randn(len(ids), table.shape[1], generator=run.generator)).to(table)
        self.loss.labels[ids], self.loss.r = labels, ratio(labels)
        optimizer = run.optimizer(self.backbone, self.head)
        seen: list[Tensor] = []
        outputs: list[Tensor] = []
        for batch in run.batches(train):
            output: Output = self.head(self.backbone(batch.images))
            run.step(optimizer, self.loss(output, batch))
            seen.append(place[batch.ids])
            outputs.append(output.code.detach())
            if sum(map(len, seen)) >= self.sample or (batch.ends_epoch and len(train) <= self.sample):
                rows, u = torch.cat(seen), torch.cat(outputs)
                s = targets(labels[rows], labels, self.loss.r).to(u)  # (m, n)
                table[ids] = update(table[ids], u, s, rows, self.gamma)
                seen, outputs = [], []

    def encode(self, batch: Batch) -> Codes:
        """sgn(u), or the learned code of a training image if the batch has its id."""
        code = bits(self.relaxed(batch))
        known = self.loss.codes[batch.ids.clamp(min=0)]
        learned = (batch.ids >= 0) & (known.abs().sum(1) > 0)
        return {"code": torch.where(learned[:, None], known > 0, code)}
