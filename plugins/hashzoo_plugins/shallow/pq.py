"""Product Quantization for Nearest Neighbor Search (Jegou, Douze & Schmid, TPAMI 2011).

The features are split into parts, and a code names the nearest of 256 centroids of each part. A real-valued query is
compared with the centroids: the asymmetric distance.

    f = (f^1, ..., f^M),  M = K / 8
    c^m_1, ..., c^m_256: k-means centroids of part m of the training set
    code^m = argmin over i of |f^m - c^m_i|,  8 bits each
    |q - f|^2 is estimated by sum over m of |q^m - c^m_code|^2

Resolved: bits are a multiple of 8. Parts have as equal a number of features as possible; faiss refuses numbers that M
does not divide. Centroids are learned from at most 65,536 training images, as in faiss, in ``iterations`` steps from
random images. With fewer than 256 images there are as many centroids as images. ``metric``: for the inner product,
<q, f> is estimated by sum over m of <q^m, c^m_code>. Distances are real numbers, so metrics within a Hamming radius
are not defined.

Measured: on 1,000 of 40,000 sentence embeddings that were held out from training, 64 bits, recall@10 is .236 with 10
iterations and .239 with the 25 of faiss, recall@10:f5 .544 for both.

Public code: the symmetric distance of some ports compares two codes and is less accurate.

Cite: jegou2011pq
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from hashzoo import Backbone, Batch, Card, Codes, Index, Method, Run, Scan, Setting, Split
from hashzoo_plugins.shallow import estimates
from hashzoo_plugins.shallow.estimates import Metric

WORDS = 256  # centroids of a part: a byte
TRAIN = 256 * WORDS  # training images at most


def layout(features: int, parts: int) -> Tensor:
    """(M, w) the features of each part; -1, where a part has one fewer than others, stands for a zero.

    >>> layout(5, 2)
    tensor([[ 0,  1,  2],
            [ 3,  4, -1]])
    """
    split = torch.arange(features).tensor_split(parts)
    return torch.nn.utils.rnn.pad_sequence(list(split), batch_first=True, padding_value=-1)


def parted(x: Tensor, places: Tensor) -> Tensor:
    """(M, N, w) the parts of rows (N, D), with zeros where a part has fewer features."""
    padded = torch.cat([x, x.new_zeros(len(x), 1)], dim=1)  # feature -1 is 0
    return padded[:, places].transpose(0, 1)


def joined(parts: Tensor, places: Tensor) -> Tensor:
    """(N, D) the rows of parts (M, N, w): the inverse of :func:`parted`."""
    return parts.transpose(0, 1)[:, places >= 0]


def centroids(parts: Tensor, iterations: int, generator: torch.Generator, start: Tensor | None = None) -> Tensor:
    """(M, 256, w) k-means centroids of parts (M, N, w), from random rows or from ``start`` (M, 256, w).

    Centroids that few rows leave unused are equal to the first, which is the nearest of equal ones.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    count = min(WORDS, parts.shape[1])
    seeds = torch.randint(2**31 - 1, (len(parts),), generator=generator).tolist()
    found = []
    for m, (points, seed) in enumerate(zip(parts.float().cpu().numpy(), seeds, strict=True)):
        first = "random" if start is None else start[m, :count].float().cpu().numpy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # duplicate images: fewer distinct points
            solver = KMeans(count, init=first, n_init=1, max_iter=iterations, tol=0, random_state=seed).fit(points)
        words = torch.from_numpy(solver.cluster_centers_).to(parts)
        found.append(torch.cat([words, words[:1].expand(WORDS - count, -1)]))
    return torch.stack(found)


def nearest(parts: Tensor, codebook: Tensor) -> Tensor:
    """(N, M) the nearest centroid of each of N rows, by parts (M, N, w) and centroids (M, 256, w)."""
    x, words = parts.double(), codebook.double()
    apart = words.square().sum(2)[:, None] - 2 * x @ words.transpose(1, 2)  # (M, N, 256)
    return apart.argmin(2).T


def words_of(code: Tensor, codebook: Tensor) -> Tensor:
    """(M, N, w) the centroids that numbers (N, M) name."""
    return torch.stack([words[code[:, m]] for m, words in enumerate(codebook)])


def require_bytes(method: str, setting: Setting, backbone: Backbone) -> None:
    """Raise ValueError unless bits are a multiple of 8 and there is a feature for each part."""
    if reason := refusal(method, setting.bits, backbone.dim):
        raise ValueError(reason)


def refusal(method: str, bits: int, features: int | None) -> str:
    """Why a method with one byte per part cannot serve so many bits and features; empty if it can.

    >>> refusal("pq", 20, 64)
    'pq stores a byte for each part: 20 bits are no multiple of 8; use 16 or 24 bits'
    """
    if bits % 8:
        near = " or ".join(str(count) for count in (bits // 8 * 8, bits // 8 * 8 + 8) if count)
        return f"{method} stores a byte for each part: {bits} bits are no multiple of 8; use {near} bits"
    if features is not None and features < bits // 8:
        return (
            f"{method} needs a feature for each byte: {bits} bits are {bits // 8} bytes, {features} features; "
            "use fewer bits or a wider backbone"
        )
    return ""


class PQ(Method):
    """The nearest of 256 centroids of each part of the features (Jegou et al., TPAMI 2011)."""

    places: Tensor
    codebook: Tensor
    card = Card("shallow", "none", paper="Jegou et al., TPAMI 2011", year=2011)

    def __init__(self, setting: Setting, backbone: Backbone, *, iterations: int = 10, metric: Metric = "data") -> None:
        super().__init__()
        require_bytes("pq", setting, backbone)
        if iterations < 1:
            raise ValueError(f"pq needs iterations >= 1, not {iterations}")
        self.backbone, self.iterations = backbone, iterations
        self.metric = estimates.metric_of(setting, metric)
        places = layout(backbone.dim, setting.bits // 8)
        self.register_buffer("places", places)
        self.register_buffer("codebook", torch.zeros(len(places), WORDS, places.shape[1]))

    def fit(self, train: Split, run: Run) -> None:
        """Learn the centroids of each part."""
        x = estimates.compared(run.features(self.backbone, train).pooled, self.metric)  # (N, D)
        chosen = torch.randperm(len(x), generator=run.generator)[:TRAIN].to(x.device)
        self.codebook = centroids(parted(x[chosen], self.places), self.iterations, run.generator)

    def encode(self, batch: Batch) -> Codes:
        """The numbers of the nearest centroids as bits, and the features, with which an image is a query."""
        x = estimates.compared(self.backbone(batch.images).pooled, self.metric)
        code = nearest(parted(x, self.places), self.codebook)
        return {"code": estimates.digits(code, 8), "query": x}

    def index(self) -> Index:
        """An exact scan by the asymmetric distance."""
        codebook, places = self.codebook.cpu(), self.places.cpu()

        def decode(stored: Codes) -> Tensor:
            return joined(words_of(estimates.numbers(stored["code"], 8), codebook), places)

        return Scan(estimates.Decoded(self.metric, ("code",), decode))
