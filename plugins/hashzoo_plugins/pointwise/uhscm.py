"""Unsupervised Hashing with Semantic Concept Mining (Tu, Mao, Lin, Cai, Qin, Wei, Wang & Huang, SIGMOD 2023).

A network that was trained on images with texts, such as CLIP, says how well a list of concepts fits each image. Images
are similar if the same concepts fit them, and the codes are trained to have these similarities. No labels are read.

    x_ij = cosine of image i and the text "a photo of the [concept j]",
           for the n training images and m concepts
    p = softmax over j of 3 m x_ij
    keep the concepts that have the largest p of a row in more than
           n / (2 m) images; p again, over the m' kept ones, with 3 m'
    S_ij = 2 cos(p_i, p_j) - 1,  u = tanh(W f + v)  (B, K)
    loss = mean over i, j of (cos(u_i, u_j) - S_ij)^2
           + beta mean over i of |sgn u_i - u_i|^2
           + alpha mean over pairs with S_ij >= threshold of
             -log(e_ij / (sum over k with S_ik < threshold of e_ik + 1e-5)),
             e_ij = exp(cos(u_i, u_j) / temperature)
    code = sgn(u)

``scores`` is the path of a ``.npy`` file with x: row i is the image with id i of the dataset (``Splits.names``). Any
network of images and texts can compute them: vectors of images times vectors of texts, each of length 1. The training
images alone select the concepts; with another head (``mlp+uhscm``) all rows do. Without ``scores`` the method sees no
concepts: S is the cosine of the features, of which the mean of the batch is subtracted.

Resolved: the defaults are those of CIFAR-10. An image is a positive of itself, as in the released code, so that there
is always one. If no concept is the best one of enough images, all are kept. Scores are read from a file, because the
text networks are on model hubs only. A cell's key has the path of the file: give a changed file a new name.

Measured: without scores, which is not the method of the paper, on digits.standard (stored scattering features, 32 bits,
three seeds) map@all is .360, ``lsh`` .383, ``itq`` .618. The cause was not looked for. Scores of CLIP were not
measured.

Public code: the script that makes S normalizes images for CLIP with the means of ImageNet. The training stops before
its first step: it uses two names that are not defined, and reads a pickle as text.

Cite: tu2023uhscm
"""

from __future__ import annotations

from math import log
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from hashzoo import Backbone, Batch, Card, Deep, Log, Loss, Output, Run, Setting, Split, UsageError
from hashzoo_plugins.heads.linear import Tanh
from hashzoo_plugins.pairwise import pairs
from hashzoo_plugins.pointwise.features import read
from hashzoo_plugins.quantization import gap

FLOOR = 1e-5  # added to the sum over dissimilar images, which can be empty


def read_scores(path: str, images: int) -> Tensor:
    """The cosines (n, m) of images and concepts in a .npy file with a row for each image id below ``images``."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise UsageError(f"uhscm.scores: there is no file {path}; give a .npy file with the scores of concepts")
    try:
        found = np.load(file, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UsageError(f"uhscm.scores: {path} is not a .npy file; write it with numpy.save") from error
    if not isinstance(found, np.ndarray) or found.ndim != 2 or not found.shape[1]:
        raise UsageError(f"uhscm.scores: {path} is no table; give one row of concept scores for each image")
    if len(found) < images:
        raise UsageError(
            f"uhscm.scores: {path} has {len(found)} rows, and image ids reach {images - 1}; give one row for each image"
        )
    if not (np.issubdtype(found.dtype, np.floating) and np.isfinite(found).all()):
        raise UsageError(f"uhscm.scores: {path} has values that are not finite real numbers; write cosines as float32")
    return torch.from_numpy(found).float()


def concept_shares(scores: Tensor, rows: Tensor, sharpness: float) -> Tensor:
    """The distribution of each image (n, m) over the concepts that ``rows`` of the scores (n, m) select, length 1.

    >>> concept_shares(torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.9, 0.1]]), torch.tensor([0, 1]), 30.0).round()
    tensor([[1., 0., 0.],
            [0., 1., 0.]])
    """
    chosen = scores[rows].argmax(1)  # the largest share is that of the largest score
    counts = torch.bincount(chosen, minlength=scores.shape[1])
    kept = counts > len(rows) / (2 * scores.shape[1])
    if not kept.any():
        kept = torch.ones_like(kept)
    sharp = sharpness * int(kept.sum()) * scores
    return normalize(sharp.masked_fill(~kept, float("-inf")).softmax(1), dim=1)


def mean_where(values: Tensor, chosen: Tensor) -> Tensor:
    """The mean of the values that a mask of their shape chooses; on a GPU without waiting for their number.

    >>> mean_where(torch.tensor([1.0, 2.0, 6.0]), torch.tensor([True, False, True]))
    tensor(3.5000)
    """
    if values.device.type == "cpu":
        return values[chosen].mean()
    return (values * chosen).sum() / chosen.sum()


class UHSCMLoss(Loss):
    """Cosines of codes trained to the similarity of concepts, and a contrast of similar pairs (Tu et al., SIGMOD 2023).

    Without ``scores``, the similarity is that of the features.
    """

    def __init__(
        self,
        setting: Setting,
        *,
        scores: str = "",
        sharpness: float = 3.0,
        threshold: float = 0.8,
        temperature: Annotated[float, Log(0.05, 2)] = 0.2,
        alpha: Annotated[float, Log(0.01, 10)] = 0.2,
        beta: Annotated[float, Log(1e-5, 1)] = 0.001,
    ) -> None:
        super().__init__()
        if not -1 < threshold <= 1:
            raise ValueError(f"uhscm: threshold must be above -1 and at most 1, not {threshold}")
        self.scores, self.sharpness, self.images = scores, sharpness, setting.pool
        self.threshold, self.temperature, self.alpha, self.beta = threshold, temperature, alpha, beta
        self.shares: Tensor | None = None  # (pool, m), read for training only: a trained method encodes without it

    def select(self, ids: Tensor | None = None) -> Tensor:
        """Read the scores and let the images of these ids select the concepts, by default all images."""
        table = read_scores(self.scores, self.images)
        rows = torch.arange(len(table)) if ids is None else ids.cpu()
        self.shares = concept_shares(table, rows, self.sharpness)
        return self.shares

    def similarity(self, output: Output, batch: Batch) -> Tensor:
        """The similarities S (B, B) in [-1, 1] of the images of a batch."""
        if not self.scores:
            return pairs.cosines(read("uhscm", output, center=True)).to(output.code)
        shares = self.select() if self.shares is None else self.shares
        own = shares[batch.ids.to(shares.device)].to(output.code)
        return 2 * own @ own.T - 1

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Terms ``similarity``, ``quantization`` and ``contrast`` of (B, K) codes."""
        pairs.require("uhscm", batch)
        u, s = output.code, self.similarity(output, batch)
        cosine = pairs.cosines(u)
        positive = (s >= self.threshold) | torch.eye(len(u), dtype=torch.bool, device=u.device)
        logits = cosine / self.temperature
        others = torch.cat([logits.masked_fill(positive, float("-inf")), torch.full_like(logits[:, :1], log(FLOOR))], 1)
        contrast = others.logsumexp(1, keepdim=True) - logits  # (B, B)
        return {
            "similarity": (cosine - s).square().mean(),
            "quantization": self.beta * gap(u).square().sum(1).mean(),
            "contrast": self.alpha * mean_where(contrast, positive),
        }


class UHSCM(Deep):
    """UHSCM: similarities of concepts that images show, from scores of your own, no labels (Tu et al., SIGMOD 2023)."""

    loss: UHSCMLoss
    card = Card("deep", "none", paper="Tu et al., SIGMOD 2023", year=2023)

    def __init__(
        self,
        setting: Setting,
        backbone: Backbone,
        *,
        scores: str = "",
        sharpness: float = 3.0,
        threshold: float = 0.8,
        temperature: Annotated[float, Log(0.05, 2)] = 0.2,
        alpha: Annotated[float, Log(0.01, 10)] = 0.2,
        beta: Annotated[float, Log(1e-5, 1)] = 0.001,
    ) -> None:
        loss = UHSCMLoss(
            setting,
            scores=scores,
            sharpness=sharpness,
            threshold=threshold,
            temperature=temperature,
            alpha=alpha,
            beta=beta,
        )
        super().__init__(backbone, Tanh(setting, backbone), loss)

    def fit(self, train: Split, run: Run) -> None:
        """Let the training images select the concepts, then train."""
        if self.loss.scores:
            self.loss.select(train.ids)
        super().fit(train, run)
