"""Inductive hashing on manifolds (Shen, Shen, Shi, van den Hengel & Tang, CVPR 2013).

A manifold embedding is learned for a few anchors only; every image gets the weighted mean of the embeddings of its
nearest anchors.

    a_j    = anchors: m k-means centers
    e_j    = their embeddings (m, K) by t-SNE or Laplacian eigenmaps, centered
    w_j(x) = exp(-|x - a_j|^2 / sigma^2) for the s nearest anchors,
             scaled to a sum of 1
    sigma  = mean distance of training images to their s-th nearest anchor,
             also for queries
    code   = sgn( sum_j w_j(x) e_j )

    t-SNE:      the anchors' top max(20, K) principal components,
                perplexity 10, the exact algorithm
    Laplacian:  the K lowest eigenvectors, eigenvalues above 1e-3, of
                (D_SS - W_SS) + 2 (D_SR - Wbar_RS' W_RS)
                W_SS (m, m): 20 nearest anchors, the larger of both directions
                W_RS (N, m): s nearest anchors;  Wbar_RS: its rows with a sum
                of 1;  D: diagonal, sums of W_SS and of the columns of W_RS

Resolved: t-SNE is the default: on a validation part of digits.standard at 32 bits, where every training image is an
anchor, the mean of map@all over three seeds is 0.657 with t-SNE and 0.647 with the Laplacian (random hyperplanes
0.505). Its cost grows with m^2 K and does not depend on N. Its kernel has K - 1 degrees of freedom, as in scikit-learn
(van der Maaten, AISTATS 2009); the authors' has one (unverified). All weights have the width sigma. k-means stops after
20 iterations. With fewer training images than anchors each image is an anchor; the Laplacian then needs more images
than bits.

Public code: one port fixes the weights at exp(-d / 512) for any features. Inter-media hashing, a cross-media method,
has the same acronym.

Cite: shen2013imh
"""

from __future__ import annotations

import warnings
from typing import Annotated, Literal

import torch
from torch import Tensor

from hashzoo import Backbone, Batch, Card, Codes, Integer, Method, Run, Setting, Split, bits
from hashzoo_plugins.shallow import anchors, span

PERPLEXITY, COMPONENTS, NEIGHBOURS, FLOOR = 10.0, 20, 20, 1e-3


def seed(generator: torch.Generator) -> int:
    """A seed for scikit-learn."""
    return int(torch.randint(2**31 - 1, (1,), generator=generator))


def centers(x: Tensor, count: int, iterations: int, generator: torch.Generator) -> Tensor:
    """(m, D) k-means centers of rows (N, D); m is the smaller of ``count`` and N."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    solver = KMeans(min(count, len(x)), n_init=1, max_iter=iterations, random_state=seed(generator))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # duplicate images: fewer distinct points than centers
        return torch.from_numpy(solver.fit(x.cpu().numpy()).cluster_centers_).to(x)


def nearest(squared: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` smallest values of each row of squared distances (N, m), and their columns, both (N, s)."""
    found = squared.topk(min(count, squared.shape[1]), dim=1, largest=False)
    return found.values, found.indices


def interpolated(squared: Tensor, embedding: Tensor, sigma: Tensor, count: int) -> Tensor:
    """(N, K) means of the embeddings (m, K) of the s nearest anchors, weighted by exp(-d^2 / sigma^2).

    >>> squared = torch.tensor([[0.0, 1e9, 1e9], [1.0, 1.0, 1e9]])
    >>> interpolated(squared, torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor(1.0), 2)
    tensor([[1.],
            [2.]])
    """
    values, where = nearest(squared, count)
    weights = torch.softmax(-values / sigma**2, 1)  # a sum of 1 without underflow, even far from all anchors
    return (weights[:, :, None] * embedding[where]).sum(1)


def tsne(a: Tensor, dimensions: int, generator: torch.Generator) -> Tensor:
    """(m, K) centered t-SNE embedding of anchors (m, D)."""
    from sklearn.manifold import TSNE

    centered = a - a.mean(0)
    reduced = centered @ span.principal(centered, min(max(COMPONENTS, dimensions), *a.shape))
    perplexity = min(PERPLEXITY, (len(a) - 1) / 3)
    solver = TSNE(dimensions, perplexity=perplexity, init="random", method="exact", random_state=seed(generator))
    embedding = torch.from_numpy(solver.fit_transform(reduced.double().cpu().numpy())).to(a)
    return embedding - embedding.mean(0)


def affinity(squared: Tensor, sigma: Tensor, count: int) -> Tensor:
    """(N, m) exp(-d^2 / sigma^2) of squared distances for the ``count`` nearest anchors, else 0."""
    values, where = nearest(squared, count)
    return torch.zeros_like(squared).scatter_(1, where, torch.exp(-values / sigma**2))


def laplacian(a: Tensor, squared: Tensor, sigma: Tensor, count: int) -> Tensor:
    """The Laplacian (m, m) of anchors (m, D); images, at squared distances (N, m), link their ``count`` nearest."""
    mutual = anchors.squared_distances(a, a).double().fill_diagonal_(float("inf"))
    w = affinity(mutual, sigma, NEIGHBOURS)
    w = torch.maximum(w, w.T)
    rest = affinity(squared.double(), sigma, count)  # (N, m)
    bar = rest / rest.sum(1, keepdim=True).clamp(min=1e-300)
    return torch.diag(w.sum(1)) - w + 2 * (torch.diag(rest.sum(0)) - bar.T @ rest)


def eigenmaps(of: Tensor, dimensions: int) -> Tensor:
    """(m, K) the eigenvectors of a Laplacian (m, m) with the smallest nonzero eigenvalues."""
    values, vectors = torch.linalg.eigh(of)
    above: Tensor = vectors[:, values > FLOOR]
    if above.shape[1] < dimensions:
        raise ValueError(
            f"imh has {above.shape[1]} eigenmaps for {dimensions} bits; "
            "use fewer bits, more anchors or embedding = 'tsne'"
        )
    return above[:, :dimensions]


class IMH(Method):
    """Codes by the embedding of the nearest k-means anchors (Shen et al., CVPR 2013)."""

    card = Card("shallow", "none", paper="Shen et al., CVPR 2013", year=2013)

    def __init__(
        self,
        setting: Setting,
        backbone: Backbone,
        *,
        anchors: Annotated[int, Integer(50, 1000, log=True)] = 400,
        nearest: Annotated[int, Integer(2, 20, log=True)] = 5,
        embedding: Literal["tsne", "laplacian"] = "tsne",
        iterations: int = 20,
    ) -> None:
        super().__init__()
        if anchors < 2 or nearest < 1 or iterations < 1:
            raise ValueError(
                f"imh needs anchors >= 2, nearest >= 1 and iterations >= 1, "
                f"not anchors={anchors}, nearest={nearest}, iterations={iterations}"
            )
        if embedding == "laplacian" and anchors <= setting.bits:
            raise ValueError(
                f"imh with embedding = 'laplacian' needs more anchors than bits: {setting.bits} bits, {anchors} anchors"
            )
        self.backbone, self.bits, self.most, self.nearest = backbone, setting.bits, anchors, nearest
        self.kind, self.iterations = embedding, iterations
        self.register_buffer("anchors", torch.zeros(anchors, backbone.dim))
        self.register_buffer("embedding", torch.zeros(anchors, setting.bits))
        self.register_buffer("sigma", torch.ones(()))
        self.register_buffer(
            "count", torch.tensor(anchors)
        )  # rows in use: fewer than allocated if there are fewer training images

    def fit(self, train: Split, run: Run) -> None:
        """Compute the anchors, the width of the weights, and the embeddings of the anchors."""
        x = run.features(self.backbone, train).pooled  # (N, D)
        a = centers(x, self.most, self.iterations, run.generator)
        squared = anchors.squared_distances(x, a)  # (N, m)
        farthest = nearest(squared, self.nearest)[0][:, -1]  # (N,) squared distance to the s-th nearest anchor
        self.sigma = farthest.double().sqrt().mean().to(x).clamp(min=1e-6)
        if self.kind == "tsne":
            e = tsne(a, self.bits, run.generator)
        else:
            e = eigenmaps(laplacian(a, squared, self.sigma.double(), self.nearest), self.bits).to(x)
        self.count = torch.tensor(len(a), device=x.device)
        self.anchors, self.embedding = anchors.padded(a, self.most), anchors.padded(e, self.most)

    def encode(self, batch: Batch) -> Codes:
        """The sign of the mean embedding of the nearest anchors."""
        known = slice(int(self.count))
        squared = anchors.squared_distances(self.backbone(batch.images).pooled, self.anchors[known])
        return {"code": bits(interpolated(squared, self.embedding[known], self.sigma, self.nearest))}
