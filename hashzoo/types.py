"""The words of the house: what travels between data, methods and measurement.

Shapes, everywhere: B batch, N items, Q queries, D features, K bits, C classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: What may be done with the label sets, and so with the codes, of two images.
Operation = Literal["union", "intersection", "difference"]

#: To be told how many of how many images are done.
ProgressCallback = Callable[[int, int], None]

#: What a method stores of an image: name -> (N, ...). Tensors of dtype bool are bits; the rest is side information.
Codes = dict[str, Tensor]


@dataclass(frozen=True)
class Setting:
    """What is known before a method is built.

    ``class_counts`` (C,) counts the training images of each class; ``pool`` is the number of distinct image
    ids, so a table with one row an image has ``pool`` rows and is indexed by ``Batch.ids``.
    """

    bits: int
    classes: int
    multilabel: bool
    class_counts: Tensor  # (C,) int64
    pool: int


class LazyTensors(Sequence[Any]):
    """Tensors that are made when they are looked at, so that what nobody reads is never read from disk."""

    def __init__(self, makers: Sequence[Callable[[], Tensor]], device: torch.device | None = None) -> None:
        self._makers, self._device = makers, device

    def __len__(self) -> int:
        return len(self._makers)

    def __getitem__(self, index: Any) -> Any:
        """One tensor, or a tuple of them for a slice."""
        made = [make().to(self._device) for make in self._makers[index]] if isinstance(index, slice) else []
        return tuple(made) if isinstance(index, slice) else self._makers[index]().to(self._device)

    def to(self, device: torch.device) -> LazyTensors:
        """The same, made on another device."""
        return LazyTensors(self._makers, device)


@dataclass(frozen=True)
class Features:
    """What a backbone sees in images: ``pooled`` (B, D) and the maps of its last stages, coarsest last."""

    pooled: Tensor  # (B, D)
    maps: Sequence[Tensor] = ()  # each (B, D_l, h_l, w_l)

    def __len__(self) -> int:
        return len(self.pooled)

    def to(self, device: torch.device) -> Features:
        """The same features on another device."""
        maps = self.maps.to(device) if isinstance(self.maps, LazyTensors) else tuple(m.to(device) for m in self.maps)
        return Features(self.pooled.to(device), maps)


class SupportsTake(Sequence[Any], ABC):
    """A sequence of which many rows can be had at once, as arrays; a split takes its rows by :meth:`take`."""

    @abstractmethod
    def take(self, rows: Tensor) -> SupportsTake:
        """Some rows, in their order."""


@dataclass(frozen=True)
class Split:
    """Images with their labels and ids.

    ``images`` is either one uint8 tensor (N, 3 or 1, H, W) that sits in memory, or any sequence whose items are
    uint8 tensors (3, H, W) or PIL images, read when asked for. ``labels`` is (N, C) multi-hot float;
    ``ids`` (N,) int64 names an image with the same number in every split.
    """

    images: Any  # Tensor | Sequence[Tensor | PIL.Image.Image]
    labels: Tensor  # (N, C)
    ids: Tensor  # (N,)
    boxes: Sequence[Tensor] | None = None  # for each image (n, 4) x0 y0 x1 y1, where the labelled things stand

    def __post_init__(self) -> None:
        if not len(self.images) == len(self.labels) == len(self.ids):
            raise ValueError(
                f"a split needs as many labels and ids as images: {len(self.images)} images, "
                f"{len(self.labels)} labels, {len(self.ids)} ids"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Tensor) -> Split:
        """The split of these rows only, in their order."""
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
    """Some rows of a longer sequence, read when asked for."""

    base: Sequence[Any]
    rows: Sequence[int] | NDArray[np.int64]  # an array takes a quarter of the memory of a list

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return self.base[int(self.rows[index])]


@dataclass(frozen=True)
class Pairs:
    """Queries made of two images each: their rows in the query split, and the labels that the operation gives."""

    operation: Operation
    first: Tensor  # (P,) int64
    second: Tensor  # (P,)
    labels: Tensor  # (P, C)

    def __len__(self) -> int:
        return len(self.labels)

    def among(self, rows: Sequence[int]) -> Pairs:
        """The pairs both of whose images are among these rows of the query split, as pairs of the rows taken.

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
class Splits:
    """The three parts of a benchmark, and the names of the classes.

    With ``pairs``, the queries are made of two images of the query split each, by an operation on their codes.

    ``validation`` is carved out of what would have been train, and only when asked for. ``pretraining`` names
    what the data shares with common pretrained weights (``"ImageNet"`` for a subset of ImageNet), so that a
    backbone trained on it is marked as contaminated. ``source`` says in a few words which files the images are, as
    "CIFAR-10 (JPEG)", and stands in every row. Training labels may have fewer columns than those of the other parts:
    the classes that come after are never learned. ``names`` says, by id, what an id stands for, as the path of a
    image below its folder; it is given where ids are mere row numbers, and the split digest then covers it.
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

    def parts(self) -> dict[str, Split]:
        """The parts there are, by name."""
        known = {name: getattr(self, name) for name in ("train", "database", "query", "validation")}
        return {name: split for name, split in known.items() if split is not None}

    def setting(self, bits: int) -> Setting:
        """What a method is told of this data before it is built."""
        return Setting(
            bits=bits,
            classes=self.train.labels.shape[1],
            multilabel=self.multilabel,
            class_counts=self.train.labels.sum(0).long(),
            pool=1 + max(int(part.ids.max()) for part in self.parts().values() if len(part)),
        )


@dataclass(frozen=True)
class Batch:
    """Some images on their way through a method.

    ``views`` holds one entry for each view asked for, each (B, 3, H, W) normalised for the backbone, or stored
    ``Features`` when the backbone is frozen. ``progress`` runs from 0 to 1 through the training;
    ``ends_epoch`` is True for the last batch of each pass over the images.
    """

    views: tuple[Any, ...]  # of Tensor or Features
    labels: Tensor  # (B, C) multi-hot float
    ids: Tensor  # (B,)
    progress: float = 0.0
    ends_epoch: bool = False

    @property
    def images(self) -> Any:
        """The first view."""
        return self.views[0]

    @property
    def similar(self) -> Tensor:
        """(B, B) float, 1 where two images share a label.

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
    """What a hash head makes of features: relaxed codes (B, K), class scores (B, C) and whatever else a loss reads."""

    code: Tensor  # (B, K)
    logits: Tensor | None = None  # (B, C)
    extra: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Ranking:
    """The k nearest database rows of each query, nearest first; equal distances are ties."""

    rows: Tensor  # (Q, k) int64
    distances: Tensor  # (Q, k)


def signs(x: Tensor) -> Tensor:
    """-1 or +1 by sign, with sgn(0) = +1, in the dtype of ``x``.

    >>> signs(torch.tensor([-2., -0., 0., 3.]))
    tensor([-1.,  1.,  1.,  1.])
    """
    return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)


Report = Callable[[float, dict[str, float]], None]


#: A view: a (C, H, W) uint8 image in, an image out. Randomness comes from torch's global generator.
View = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Input:
    """How images must reach a backbone.

    ``size`` is the side in pixels of the square it takes (None: whatever the dataset has), ``channels`` 3 for
    networks that want RGB (None: as the dataset has them), ``crop`` the fraction of the resized image's
    shorter side that the center crop keeps; ``mean`` and ``std`` normalise values in 0..1, one for each channel
    or one for all.
    """

    size: int | None = None
    channels: int | None = None
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)
    crop: float = 1.0
