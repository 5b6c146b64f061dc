"""knn-sign: codes trained for recall of the exact neighbors of training vectors; an objective of ours, no paper.

A code is good for search if the exact nearest neighbors of a row are the first by code. The neighbors of every training
row among the training rows are computed once; each row is then contrasted with drawn rows of its list, and the sign
stands in the loss itself, with the gradient of the identity.

    N_i = the m training rows nearest to row i, in order, without i
    C_i = the rows of the batch, and for each of them `positives` of
          the first k of its list and `further` of the others of its
          list, drawn anew in each step; without i
    b = sgn(z) forward, db/dz = 1 backward
    s_ij = <b_i, b_j> / (K temperature)
    P_i = the rows of C_i among the first k of N_i
    R_i = the other rows of C_i
    loss = mean over pairs (i, j), i in the batch and j in P_i, of
           -log(exp s_ij / (exp s_ij + sum over l in R_i of exp s_il))
    z = BatchNorm(W f),  code = sgn(z)

A pair has no loss where the neighbor comes before all that are no neighbors. Rows further down the list are the ones
that take its place in a ranking by code, which random rows of a batch do not.

Composed with another head, as in ``linear+knn-sign``, the loss has no lists of the training rows: the nearest rows of
the batch by the cosine of the head's features, as many as half of the others and at most k, are the neighbors then.

Measured: the defaults were chosen on sentence embeddings (384 features), with 500 rows of the first 40,000 as queries,
left out of the training; no query of the board `embeddings` was read. At 64 bits, 39,500 training rows and 3 epochs,
recall@10 is .239 at temperature 0.05, .238 at 0.1, .224 with ``head = "mlp"`` at 0.1; ``itq`` .208. Without
normalization (a linear layer alone) it is .193 at 0.05 and .121 at 0.1. At 256 bits, 10,000 training rows and 8 epochs,
0.02 gives .459, 0.05 .449 and 0.1 .340, all less than ``itq`` (.492).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from hashzoo import Backbone, Batch, Card, Deep, Features, Integer, Log, Loss, Output, Run, Setting, Split
from hashzoo_plugins.heads.linear import Norm
from hashzoo_plugins.heads.mlp import MLP
from hashzoo_plugins.pairwise import pairs
from hashzoo_plugins.pointwise.features import read
from hashzoo_plugins.quantization import straight_through

BLOCK = 1024  # rows whose neighbors are searched at once


def neighbour_lists(x: Tensor, count: int, metric: str = "cosine") -> Tensor:
    """(N, count) the rows nearest to each row of x (N, D), nearest first, without itself.

    ``metric`` is that of the vectors: ``"ip"``, ``"l2"``, or else the cosine.

    >>> neighbour_lists(torch.tensor([[0.0], [1.0], [3.0]]), 2, "l2")
    tensor([[1, 2],
            [0, 2],
            [1, 0]])
    """
    if metric not in {"ip", "l2"}:
        x = normalize(x, dim=1, eps=pairs.SMALL)
    shift = x.square().sum(1) / 2 if metric == "l2" else torch.zeros(len(x)).to(x)
    found = []
    for start in range(0, len(x), BLOCK):
        scores = x[start : start + BLOCK] @ x.T - shift
        rows = torch.arange(len(scores), device=x.device)
        scores[rows, start + rows] = float("-inf")
        found.append(scores.topk(count, dim=1).indices)
    return torch.cat(found)


def contrast(scores: Tensor, near: Tensor, rest: Tensor) -> Tensor:
    """Mean over the pairs of ``near`` (B, C) of the cross-entropy of its score against those of ``rest`` in the row.

    >>> round(float(contrast(torch.tensor([[1.0, 0, 9]]), *torch.tensor([[[1, 0, 0]], [[0, 1, 0]]]).bool())), 6)
    0.313262
    """
    others = scores.masked_fill(~rest, -1e9).logsumexp(1, keepdim=True)
    losses = torch.logaddexp(scores, others) - scores
    return (losses * near).sum() / near.sum().clamp(min=1)


class NeighbourRecall(Loss):
    """Contrast of the sign codes of exact neighbors with those of other rows, no labels (an objective of ours)."""

    def __init__(
        self,
        setting: Setting,
        *,
        nearest: Annotated[int, Integer(1, 50, log=True)] = 10,
        temperature: Annotated[float, Log(0.01, 1)] = 0.05,
    ) -> None:
        super().__init__()
        if nearest < 1 or temperature <= 0:
            raise ValueError(
                f"knn-sign needs nearest >= 1 and temperature > 0, not nearest={nearest}, temperature={temperature}"
            )
        self.nearest, self.temperature = nearest, temperature

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """The term ``contrast`` of codes (B, K), against those of the batch and of ``extra["drawn"]`` (B, M, K).

        With them, ``extra["drawn rows"]`` (B, M), ``extra["rows"]`` (B,) and ``extra["list"]`` (B, k) say which rows
        the drawn ones, those of the batch and their neighbors are.
        """
        pairs.require("knn-sign", batch)
        code, extra = output.code, output.extra
        if "drawn rows" in extra:
            others = torch.cat([code, extra["drawn"].flatten(0, 1)])  # (C, K)
            known = torch.cat([extra["rows"], extra["drawn rows"].flatten()])
            own = extra["rows"][:, None] == known
            near = (extra["list"][:, :, None] == known).any(1)
        else:
            others, own = code, torch.eye(len(code), dtype=torch.bool, device=code.device)
            count = min(self.nearest, max(1, (len(code) - 1) // 2))
            places = neighbour_lists(read("knn-sign", output, center=False), count)
            near = torch.zeros_like(own).scatter_(1, places, True)
        scores = straight_through(code) @ straight_through(others).T / (code.shape[1] * self.temperature)
        return {"contrast": contrast(scores, near, ~(near | own))}


class KNNSign(Deep):
    """knn-sign: codes trained for recall of exact neighbors, from neighbor lists, no labels (an objective of ours)."""

    card = Card("deep", "none")
    rows: Tensor
    lists: Tensor

    def __init__(
        self,
        setting: Setting,
        backbone: Backbone,
        *,
        nearest: Annotated[int, Integer(1, 50, log=True)] = 10,
        length: Annotated[int, Integer(20, 1000, log=True)] = 100,
        positives: int = 1,
        further: int = 1,
        temperature: Annotated[float, Log(0.01, 1)] = 0.05,
        head: Literal["norm", "mlp"] = "norm",
    ) -> None:
        if length <= nearest or positives < 1 or further < 0:
            raise ValueError(
                "knn-sign needs length > nearest, positives >= 1 and further >= 0, "
                f"not length={length}, nearest={nearest}, positives={positives}, further={further}"
            )
        layers = MLP(setting, backbone) if head == "mlp" else Norm(setting, backbone)
        super().__init__(backbone, layers, NeighbourRecall(setting, nearest=nearest, temperature=temperature))
        self.metric, self.nearest, self.length = setting.metric, nearest, length
        self.positives, self.further = positives, further

    def fit(self, train: Split, run: Run) -> None:
        """Compute the lists by the features before training, then train."""
        count = min(self.length, len(train) - 1)
        near = min(self.nearest, count)
        lists = neighbour_lists(run.features(self.backbone, train).pooled, count, self.metric).cpu()
        row = torch.zeros(int(train.ids.max()) + 1, dtype=torch.long)
        row[train.ids] = torch.arange(len(train))
        optimizer = run.optimizer(self.backbone, self.head, self.loss)
        run.resume(self)
        for batch in run.batches(train):
            rows = row[batch.ids.cpu()]
            drawn = self.draw(lists[rows], near, run.generator)
            output = self.beside(batch, train.take(drawn.flatten()), run)
            told = {"rows": rows, "drawn rows": drawn, "list": lists[rows, :near]}
            extra = output.extra | {name: value.to(run.device) for name, value in told.items()}
            run.step(optimizer, self.loss(replace(output, extra=extra), batch))

    def draw(self, lists: Tensor, near: int, generator: torch.Generator) -> Tensor:
        """(B, M) rows from lists (B, m): some of the first ``near``, and some of the others if there are any."""
        first = torch.randint(near, (len(lists), self.positives), generator=generator)
        if lists.shape[1] > near:
            further = torch.randint(near, lists.shape[1], (len(lists), self.further), generator=generator)
            first = torch.cat([first, further], 1)
        return lists.gather(1, first)

    def beside(self, batch: Batch, drawn: Split, run: Run) -> Output:
        """The output for a batch, with the codes (B, M, K) of the drawn rows in ``extra``; one pass of the head."""
        own = self.backbone(batch.images).pooled
        others = [self.backbone(part.images).pooled for part in run.blank(drawn)]
        output: Output = self.head(Features(torch.cat([own, *others])))
        code, rest = output.code[: len(own)], output.code[len(own) :]
        return Output(code, extra={"features": own, "drawn": rest.view(len(own), -1, rest.shape[1])})
