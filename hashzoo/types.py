"""Value types: Setting, Split, Batch, Features, Codes, Output, Ranking and others, with their shapes.

Shapes: B batch, N images, Q queries, D features, K bits, C classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: Set operation on the labels of two images, and so on their codes.
Operation = Literal["union", "intersection", "difference"]

#: Progress callback with the number of images done and in total.
ProgressCallback = Callable[[int, int], None]

#: Codes of images by name, each (N, ...). Bool tensors are bits, any other tensor is side information.
Codes = dict[str, Tensor]


@dataclass(frozen=True)
class Setting:
    """Facts about a dataset and a code length, known before a method is built.

    Attributes:
        bits: Code length K.
        classes: Number C of classes in the training labels.
        multilabel: Whether an image can have several labels.
        class_counts: (C,) int64, number of training images of each class.
        pool: Upper bound on image ids: a table with one row per image has ``pool`` rows and is indexed by
            ``Batch.ids``.
        metric: How the vectors of the dataset are compared: ``"cosine"``, ``"ip"`` or ``"l2"``; empty for images.
    """

    bits: int
    classes: int
    multilabel: bool
    class_counts: Tensor
    pool: int
    metric: str = ""


class LazyTensors(Sequence[Any]):
    """A lazily loaded sequence of tensors: a tensor is read from disk when it is accessed."""

    def __init__(self, makers: Sequence[Callable[[], Tensor]], device: torch.device | None = None) -> None:
        self._makers, self._device = makers, device

    def __len__(self) -> int:
        return len(self._makers)

    def __getitem__(self, index: Any) -> Any:
        """One tensor, or a tuple of them for a slice."""
        made = [make().to(self._device) for make in self._makers[index]] if isinstance(index, slice) else []
        return tuple(made) if isinstance(index, slice) else self._makers[index]().to(self._device)

    def to(self, device: torch.device) -> LazyTensors:
        """The same sequence, loaded to another device."""
        return LazyTensors(self._makers, device)

    def map(self, function: Callable[[Tensor], Tensor]) -> LazyTensors:
        """The results of a function of each tensor, each computed once, when it is first accessed."""
        return LazyTensors([cache(partial(self._mapped, function, index)) for index in range(len(self))], self._device)

    def _mapped(self, function: Callable[[Tensor], Tensor], index: int) -> Tensor:
        return function(self[index])


@dataclass(frozen=True)
class Features:
    """Features of images, as a backbone returns them.

    Attributes:
        pooled: (B, D) one vector per image.
        maps: Feature maps of the last stages, each (B, D_l, h_l, w_l), coarsest last.
    """

    pooled: Tensor
    maps: Sequence[Tensor] = ()

    def __len__(self) -> int:
        return len(self.pooled)

    def to(self, device: torch.device) -> Features:
        """The same features on another device."""
        maps = self.maps.to(device) if isinstance(self.maps, LazyTensors) else tuple(m.to(device) for m in self.maps)
        return Features(self.pooled.to(device), maps)


class SupportsTake(Sequence[Any], ABC):
    """A sequence with batched row access; :meth:`Split.take` uses :meth:`take` instead of a list of rows."""

    @abstractmethod
    def take(self, rows: Tensor) -> SupportsTake:
        """The given rows, in the given order."""


@dataclass(frozen=True)
class Split:
    """Images with their labels and ids.

    Attributes:
        images: A uint8 tensor (N, 1 or 3, H, W) in memory, or a sequence of uint8 tensors (3, H, W) or PIL images,
            each read when it is accessed; or :class:`hashzoo.Vectors`, which are features already.
        labels: (N, C) float, multi-hot; (N, 0) for data without labels.
        ids: (N,) int64. An image has the same id in every split.
        boxes: Bounding boxes of the labeled objects of each image, (n, 4) as x0 y0 x1 y1 in pixels; None if unknown.

    Raises:
        ValueError: If the numbers of images, labels and ids differ.
    """

    images: Any  # Tensor | Sequence[Tensor | PIL.Image.Image]
    labels: Tensor
    ids: Tensor
    boxes: Sequence[Tensor] | None = None

    def __post_init__(self) -> None:
        if not len(self.images) == len(self.labels) == len(self.ids):
            raise ValueError(
                f"a split needs as many labels and ids as images: {len(self.images)} images, "
                f"{len(self.labels)} labels, {len(self.ids)} ids"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Tensor) -> Split:
        """The split of the given rows, in the given order."""
        if isinstance(self.images, Tensor):
            images: Any = self.images[rows]
        elif isinstance(self.images, SupportsTake):
            images = self.images.take(rows)
        else:
            images = Rows(self.images, rows.numpy().copy())
        boxes = None if self.boxes is None else [self.boxes[i] for i in rows.tolist()]
        return replace(self, images=images, labels=self.labels[rows], ids=self.ids[rows], boxes=boxes)


@dataclass(frozen=True)
class Rows(Sequence[Any]):
    """Some rows of a longer sequence, each read when it is accessed."""

    base: Sequence[Any]
    rows: Sequence[int] | NDArray[np.int64]  # an array takes a quarter of the memory of a list

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return self.base[int(self.rows[index])]


@dataclass(frozen=True)
class Pairs:
    """Queries composed of two images each.

    Attributes:
        operation: Set operation that composes the labels of the two images.
        first: (P,) int64, row of the first image in the query split.
        second: (P,) int64, row of the second image.
        labels: (P, C) float, labels of the composed query.
    """

    operation: Operation
    first: Tensor
    second: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def among(self, rows: Sequence[int]) -> Pairs:
        """The pairs whose images are both in the given rows of the query split, as pairs of places in ``rows``.

        >>> pairs = Pairs("union", torch.tensor([0, 1]), torch.tensor([2, 2]), torch.ones(2, 3))
        >>> left = pairs.among([1, 2])
        >>> left.first.tolist(), left.second.tolist(), len(left.labels)
        ([0], [1], 1)
        """
        kept = torch.tensor(rows)
        both = torch.isin(self.first, kept) & torch.isin(self.second, kept)
        first, second = (torch.searchsorted(kept, side[both]) for side in (self.first, self.second))
        return Pairs(self.operation, first, second, self.labels[both])


@dataclass(frozen=True)
class SourceFinding:
    """What a dataset found while it read its files: ``hashzoo data check`` reports it, other commands print it.

    Attributes:
        name: A kind of finding of ``hashzoo data check``, such as ``"left-out-files"``.
        count: Number of items that have it.
        total: Number of items looked at.
        examples: Some of the items.
        detail: What was done with them, in one line.
    """

    name: str
    count: int
    total: int
    examples: tuple[str, ...] = ()
    detail: str = ""


@dataclass(frozen=True)
class Splits:
    """A dataset and its protocol: training set, database and queries.

    Attributes:
        train: Training set. Its labels can have fewer columns than those of the other parts; the remaining classes are
            unseen in training.
        database: Images that are searched.
        query: Images that the database is searched for.
        multilabel: Whether an image can have several labels.
        class_names: Names of the C classes.
        validation: Validation queries, taken out of the training set on request.
        pretraining: Datasets that share images with this one and that common weights are trained on, as
            ``("ImageNet",)`` for a subset of ImageNet: a backbone trained on one of them is marked as contaminated.
        notes: Known faults of the dataset, by name of the finding of ``hashzoo data check`` that they explain.
        pairs: If given, each query is composed of two images of the query split, by an operation on their codes.
        source: Origin of the image files in a few words, as "CIFAR-10 (JPEG)"; a column of every board.
        names: Name of each image by id, such as its path; given if ids are row numbers, and then part of the split
            digest.
        findings: What was found while the files were read, such as files that are not part of the dataset.
        metric: How vectors are compared, ``"cosine"``, ``"ip"`` (inner product) or ``"l2"``: the exact neighbours by it
            are the truth of ``recall@k``. Empty for images.
    """

    train: Split
    database: Split
    query: Split
    multilabel: bool
    class_names: tuple[str, ...]
    validation: Split | None = None
    pretraining: tuple[str, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)
    pairs: Pairs | None = None
    source: str = ""
    names: Sequence[str] | None = None
    findings: Sequence[SourceFinding] = ()
    metric: str = ""

    @property
    def labelled(self) -> bool:
        """Whether the data has labels at all."""
        return self.database.labels.shape[1] > 0

    def parts(self) -> dict[str, Split]:
        """The splits that are not None, by name."""
        known = {name: getattr(self, name) for name in ("train", "database", "query", "validation")}
        return {name: split for name, split in known.items() if split is not None}

    def setting(self, bits: int) -> Setting:
        """The facts that a method of this code length is built from."""
        return Setting(
            bits=bits,
            classes=self.train.labels.shape[1],
            multilabel=self.multilabel,
            class_counts=self.train.labels.sum(0).long(),
            pool=1 + max(int(part.ids.max()) for part in self.parts().values() if len(part)),
            metric=self.metric,
        )


@dataclass(frozen=True)
class Batch:
    """A batch of images, prepared for the backbone.

    Attributes:
        views: One entry per view of the images: (B, C, H, W) float, normalized for the backbone, or stored
            :class:`Features` if the backbone is frozen.
        labels: (B, C) float, multi-hot; all zero when images are encoded.
        ids: (B,) int64; -1 when images are encoded without ids.
        progress: Progress of the training, from 0 to 1.
        ends_epoch: Whether this is the last batch of a pass over the images.
    """

    views: tuple[Any, ...]  # of Tensor or Features
    labels: Tensor
    ids: Tensor
    progress: float = 0.0
    ends_epoch: bool = False

    @property
    def images(self) -> Any:
        """The first view."""
        return self.views[0]

    @property
    def similar(self) -> Tensor:
        """(B, B) float, 1 where two images share a label, so also on the diagonal of labeled images.

        >>> labels = torch.tensor([[1., 0.], [1., 1.], [0., 1.]])
        >>> Batch((None,), labels, torch.arange(3)).similar
        tensor([[1., 1., 0.],
                [1., 1., 1.],
                [0., 1., 1.]])
        """
        return (self.labels @ self.labels.T > 0).to(self.labels.dtype)

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Output:
    """Output of a hash head.

    Attributes:
        code: (B, K) relaxed code: real values whose signs are the bits.
        logits: (B, C) class scores, if the head has a classifier.
        extra: Other tensors that a loss reads, by name, each with one row per image.
    """

    code: Tensor
    logits: Tensor | None = None
    extra: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Ranking:
    """The k nearest database items of each query, nearest first.

    Attributes:
        rows: (Q, k) int64, rows of the database.
        distances: (Q, k) distances of these rows; equal distances are ties.
    """

    rows: Tensor
    distances: Tensor


def signs(x: Tensor) -> Tensor:
    """Map values to -1 or +1 by sign, with sgn(0) = +1, in the dtype of ``x``.

    >>> signs(torch.tensor([-2., -0., 0., 3.]))
    tensor([-1.,  1.,  1.,  1.])
    """
    return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)


#: Progress callback of a training, called with progress from 0 to 1 and the latest logged values by name.
Report = Callable[[float, dict[str, float]], None]


#: An augmentation. It maps a (C, H, W) uint8 image to another, with randomness from torch's global generator.
View = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Input:
    """Form in which images are given to a backbone.

    Attributes:
        size: Side of the square input in pixels; None keeps the size of the dataset's images.
        channels: 3 for networks that take RGB images; None keeps the channels of the dataset's images.
        mean: Mean that is subtracted from pixel values in 0..1: one for each channel, or one for all.
        std: Standard deviation that they are then divided by, in the same form.
        crop: Fraction of the shorter side of the resized image that the center crop keeps.
        draft: Whether JPEG files much larger than ``size`` are decoded at a fraction of their size; set by the budget.
    """

    size: int | None = None
    channels: int | None = None
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)
    crop: float = 1.0
    draft: bool = field(default=False, repr=False)

    @property
    def resized(self) -> int | None:
        """The shorter side of a resized image, before the center crop; None keeps the size of the dataset's images."""
        return None if self.size is None else round(self.size / self.crop)
