"""Deep Quantization Network for Efficient Image Retrieval (Cao, Long, Wang, Zhu & Wen, AAAI 2016).

Product quantization instead of a Hamming code: a bottleneck z is cut into parts, and each part is replaced by the
nearest of 256 codewords, so an image takes K / 8 bytes. The real z of a query is compared with the codewords.

    loss = mean over i < j of (s_ij - cos(z_i, z_j))^2,  s = +1 or -1
           + lambda mean over i of |z_i - C b_i|^2
    z = W f + v  (B, 300);  C b_i: in each part the codeword nearest to z_i
    distance(q, i) = |z_q - C b_i|^2

Resolved: the codebook is updated after every epoch from the values of z in its batches, by k-means in each part,
initialized with the previous codewords. With K bits and codewords of ``word_bits`` bits there are K / word_bits parts;
the width of the bottleneck is the largest multiple of that number within ``width``. With fewer training images than
codewords some codewords are unused. The numbers of the paper are unverified.

Public code: scores of the asymmetric distance, whose query is not quantized, appear in tables of Hamming codes.

Cite: cao2016dqn
"""

from __future__ import annotations

import warnings
from typing import Annotated

import torch
from torch import Tensor, nn

from hashzoo import (
    Backbone,
    Batch,
    Card,
    Codes,
    Deep,
    Distance,
    Features,
    Head,
    Index,
    Integer,
    Log,
    Loss,
    NonFiniteError,
    Output,
    Run,
    Scan,
    Setting,
    Split,
)
from hashzoo_plugins.pairwise import pairs

STEPS = 10  # of k-means after an epoch; the codewords only need to follow the network


class Bottleneck(Head):
    """A linear layer of ``width`` real values."""

    def __init__(self, backbone: Backbone, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(backbone.dim, width)

    def forward(self, features: Features) -> Output:
        """``code`` (B, width), unbounded."""
        return Output(self.layer(features.pooled))


def nearest(codebook: Tensor, z: Tensor) -> Tensor:
    """(B, M) the nearest codeword to each part of z (B, M d); codebook (M, words, d)."""
    parts = z.unflatten(1, (len(codebook), -1)).transpose(0, 1)  # type: ignore[no-untyped-call]  # (M, B, d)
    return torch.cdist(parts.double(), codebook.double()).argmin(2).T


def decoded(codebook: Tensor, words: Tensor) -> Tensor:
    """(B, M d) the values of codewords (B, M)."""
    return torch.cat([codebook[m, words[:, m]] for m in range(len(codebook))], 1)


class DQNLoss(Loss):
    """Squared error of cosines, and the distance to the codebook once it is initialized."""

    codebook: Tensor

    def __init__(self, parts: int, words: int, width: int, weight: float) -> None:
        super().__init__()
        self.weight = weight
        self.register_buffer("codebook", torch.zeros(parts, words, width // parts))
        self._read: tuple[tuple[int, int], bool] | None = None

    @property
    def initialized(self) -> bool:
        """Whether the codebook has values; they are read again only after a change."""
        version = self.codebook.data_ptr(), self.codebook._version
        if self._read is None or self._read[0] != version:
            self._read = version, bool(self.codebook.any())
        return self._read[1]

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Terms ``pair`` and ``quantization`` of (B, width) bottlenecks. ValueError for a batch of one."""
        pairs.require("dqn", batch)
        z = output.code
        pair = pairs.upper((2 * batch.similar - 1 - pairs.cosines(z)).square())  # (P,)
        terms = {"pair": pair.mean()}
        if self.initialized:
            away = z - decoded(self.codebook.to(z), nearest(self.codebook, z.detach()))
            terms["quantization"] = self.weight * away.square().sum(1).mean()
        return terms


class Quantized(Distance):
    """Squared distance between the real z of a query and the stored codewords of an image."""

    stored = ("code",)

    def __init__(self, codebook: Tensor) -> None:
        self.codebook = codebook.detach().cpu().double()  # (M, words, d)

    def __call__(self, query: Codes, database: Codes) -> Tensor:
        """(Q, N) float32, rounded from float64, so that identical images have identical distances in any order."""
        words = numbers(database["code"], len(self.codebook))  # (N, M)
        # (M, Q, d)
        parts = query["z"].double().unflatten(1, (len(self.codebook), -1)).transpose(0, 1)  # type: ignore[no-untyped-call]
        tables = (parts[:, :, None] - self.codebook[:, None]).square().sum(3)  # (M, Q, words)
        return torch.stack([tables[m][:, words[:, m]] for m in range(len(tables))]).sum(0).float()


def digits(words: Tensor, width: int) -> Tensor:
    """(B, M width) bool binary digits, lowest first, of codewords (B, M).

    >>> digits(torch.tensor([[5, 2]]), 3).int()
    tensor([[1, 0, 1, 0, 1, 0]], dtype=torch.int32)
    """
    return (words[:, :, None] >> torch.arange(width, device=words.device) & 1).bool().flatten(1)


def numbers(code: Tensor, parts: int) -> Tensor:
    """(N, M) codewords from their binary digits (N, K): the inverse of :func:`digits`.

    >>> numbers(digits(torch.tensor([[5, 2]]), 3), 2)
    tensor([[5, 2]])
    """
    split: Tensor = code.long().unflatten(1, (parts, -1))  # type: ignore[no-untyped-call]
    return (split << torch.arange(split.shape[2], device=code.device)).sum(2)


class DQN(Deep):
    """Deep Quantization Network: product quantization of a learned bottleneck (Cao et al., AAAI 2016)."""

    loss: DQNLoss
    card = Card("deep", "pairs", paper="Cao et al., AAAI 2016", year=2016)

    def __init__(
        self,
        setting: Setting,
        backbone: Backbone,
        *,
        width: Annotated[int, Integer(64, 1024, log=True)] = 300,
        word_bits: int = 8,
        quantization: Annotated[float, Log(1e-6, 0.01)] = 1e-4,
    ) -> None:
        if word_bits < 1 or setting.bits % word_bits:
            raise ValueError(
                f"dqn: word_bits = {word_bits} does not divide {setting.bits} bits; "
                "change the number of bits or word_bits"
            )
        parts = setting.bits // word_bits
        if width < parts:
            raise ValueError(f"dqn: width must be at least {parts}, one per part of the code, not {width}")
        width -= width % parts
        super().__init__(backbone, Bottleneck(backbone, width), DQNLoss(parts, 2**word_bits, width, quantization))
        self.word_bits = word_bits

    @property
    def codebook(self) -> Tensor:
        """The codewords (M, words, d)."""
        return self.loss.codebook

    def fit(self, train: Split, run: Run) -> None:
        """Alternate between an epoch of the network and an update of the codebook."""
        optimizer = run.optimizer(self.backbone, self.head)
        outputs: list[Tensor] = []
        for batch in run.batches(train):
            output: Output = self.head(self.backbone(batch.images))
            run.step(optimizer, self.loss(output, batch))
            outputs.append(output.code.detach())
            if batch.ends_epoch:
                self._learn_words(torch.cat(outputs), run)
                outputs = []

    def _learn_words(self, z: Tensor, run: Run) -> None:
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning

        seed = int(torch.randint(2**31, (1,), generator=run.generator))
        known = self.loss.initialized
        for m, part in enumerate(z.unflatten(1, (len(self.codebook), -1)).unbind(1)):  # type: ignore[no-untyped-call]
            points = part.double().cpu().numpy()
            count = min(self.codebook.shape[1], len(points))
            start = self.codebook[m, :count].double().cpu().numpy() if known else "k-means++"
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than codewords
                found = KMeans(count, init=start, n_init=1, max_iter=STEPS, random_state=seed).fit(points)
            words = torch.from_numpy(found.cluster_centers_).to(self.codebook)
            self.codebook[m] = words[0]  # unused codewords repeat the first, which wins ties
            self.codebook[m, :count] = words

    def encode(self, batch: Batch) -> Codes:
        """The binary digits of the nearest codewords, and z, which is used for queries only."""
        z = self.relaxed(batch)
        if not torch.isfinite(z).all():
            raise NonFiniteError("the bottleneck is not finite; try a smaller learning rate")
        return {"code": digits(nearest(self.codebook, z), self.word_bits), "z": z}

    def index(self) -> Index:
        """An exact scan by the asymmetric distance."""
        return Scan(Quantized(self.codebook))
