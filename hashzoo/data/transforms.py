"""From stored images to the inputs of a backbone: views, resizing, normalization, and background loading."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hashzoo.data.image_files import ImageFiles
from hashzoo.types import Input, Rows, Split, View

# torchvision takes longer to import than torch, so functions import it when they need it

MAX_ASPECT = 16  # longer side divided by shorter side; images beyond it are cropped before they are resized

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - its free room is read, nothing is written
SPARE = 4  # multiple of the needed shared memory that must be free, since other processes use it too

#: Values of ``[train] augment``.
AUGMENTATIONS = ("none", "flip", "shift", "crop-flip")


def augmentation(name: str) -> View | None:
    """The view of an augmentation in ``AUGMENTATIONS``; None for ``none``.

    ``shift`` rotates and translates but does not mirror, for images such as digits.
    """
    if name in ("none", "crop-flip"):
        return crop_flip if name == "crop-flip" else None
    from torchvision.transforms import v2

    flip, shift = v2.RandomHorizontalFlip(), v2.RandomAffine(degrees=10, translate=(0.1, 0.1))
    view: View = {"flip": flip, "shift": shift}[name]
    return view


def crop_flip(image: Tensor) -> Tensor:
    """Pad by four pixels, crop at random to the original size, and flip with probability 0.5."""
    from torchvision.transforms import v2

    cropped = v2.RandomCrop(tuple(image.shape[-2:]), padding=4)(image)
    flipped: Tensor = v2.RandomHorizontalFlip()(cropped)
    return flipped


def pil_to_tensor(image: Image.Image) -> Tensor:
    """The pixels of an image, mode L or RGB, as uint8 (C, H, W).

    >>> pil_to_tensor(Image.new("RGB", (3, 2), (1, 2, 3)))[:, 0, 0].tolist()
    [1, 2, 3]
    """
    pixels = torch.from_numpy(np.array(image))
    return pixels.view(image.height, image.width, len(image.getbands())).permute(2, 0, 1)


def as_tensor(image: Any) -> Tensor:
    """An image as uint8 (C, H, W): PIL images are converted to RGB, tensors are returned as they are."""
    return image if isinstance(image, Tensor) else pil_to_tensor(image.convert("RGB"))


def prepare(images: Tensor, target: Input) -> Tensor:
    """Convert images (..., C, H, W) uint8 to inputs of a backbone: resized, cropped, scaled to 0..1, normalized.

    >>> prepare(torch.full((2, 1, 4, 4), 255, dtype=torch.uint8), Input(size=2, channels=3)).shape
    torch.Size([2, 3, 2, 2])
    """
    return normalise(resize(images, target), target)


def resize(images: Tensor, target: Input) -> Tensor:
    """Images (..., C, H, W) uint8 with the channels and the size of a backbone's inputs, still uint8."""
    if target.channels == 3 and images.shape[-3] == 1:
        images = images.expand(*images.shape[:-3], 3, *images.shape[-2:])
    if target.size is not None:
        from torchvision.transforms.v2 import functional

        side = target.resized or target.size
        longest = MAX_ASPECT * min(images.shape[-2:])
        if max(images.shape[-2:]) > longest:  # resizing an image of 1 x 10,000 pixels would take gigabytes
            images = functional.center_crop(images, [min(length, longest) for length in images.shape[-2:]])
        if images.shape[-2:] != (side, side):
            images = functional.resize(images, [side], antialias=True)
        images = functional.center_crop(images, [target.size, target.size])
    return images


def normalise(images: Tensor, target: Input) -> Tensor:
    """Images (..., C, H, W) uint8 as floats: scaled to 0..1, then normalized by the mean and std of the backbone."""
    scaled = images.float() / 255
    mean, std = (torch.tensor(v, device=scaled.device).view(-1, 1, 1) for v in (target.mean, target.std))
    return (scaled - mean) / std


def opened(images: Sequence[Any], row: int, side: int | None) -> Any:
    """An image of a split, decoded at a fraction of its size if ``side`` allows it; see ``decode``."""
    while side and isinstance(images, Rows):
        row, images = int(images.rows[row]), images.base
    drafts = isinstance(images, ImageFiles) and type(images).__getitem__ is ImageFiles.__getitem__
    return images.decoded(row, side) if side and drafts else images[row]  # type: ignore[attr-defined]


class PreparedImages(Dataset[tuple[Tensor, ...]]):
    """The prepared views of images. An item is indexed by (row, seed).

    The seed of each item makes its augmentation independent of the number of processes that load images.
    """

    def __init__(self, images: Sequence[Any], views: Sequence[View | None], target: Input) -> None:
        self.images, self.views, self.target = images, views, target

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, ...]:
        row, seed = item
        image = as_tensor(opened(self.images, row, self.target.resized if self.target.draft else None))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed takes milliseconds: it looks for devices
            return tuple(prepare(view(image) if view else image, self.target) for view in self.views)


def stack_views(items: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Collate items of V views to V batches."""
    return tuple(torch.stack(view) for view in zip(*items, strict=True))


def stack_arrays(items: list[tuple[Tensor, ...]]) -> tuple[NDArray[Any], ...]:
    """Collate items of V views to V arrays. They reach another process through a pipe; tensors use shared memory."""
    return tuple(view.numpy() for view in stack_views(items))


def shared_memory_suffices(size: int) -> bool:
    """Whether ``size`` bytes fit into shared memory with room to spare. A full one makes worker processes hang."""
    return not SHARED_MEMORY.is_dir() or SPARE * size <= shutil.disk_usage(SHARED_MEMORY).free


class Workers:
    """Processes that read images in the background, for several passes over several splits.

    They start with the first pass over a split under some views and wait for the next one; starting them anew for each
    epoch takes seconds. The processes of the ``KEPT`` latest splits and views are kept.

    Args:
        count: Processes for each split; 0 reads images in this process.
        pinned: Whether batches are in page-locked memory, which a GPU copies while it computes.
    """

    KEPT = 3  # the training set with its augmentation; with validation, also without, and the validation images

    def __init__(self, count: int, pinned: bool = False) -> None:
        self.count, self.pinned = count, pinned
        self._pools: dict[tuple[int, ...], _Pool] = {}

    def load(self, dataset: PreparedImages, batches: Iterator[list[tuple[int, int]]]) -> Iterator[tuple[Tensor, ...]]:
        """The views of the items of each batch, in order."""
        key = (id(dataset.images), *map(id, dataset.views))
        pool = self._pools.pop(key, None)
        if pool is None or pool.running:  # two passes at a time have processes each
            pool = _Pool(dataset, self.count, self.pinned)
        self._pools[key] = pool
        while len(self._pools) > self.KEPT:
            del self._pools[next(iter(self._pools))]
        yield from pool.load(batches)


class _Pass:
    """The batches of the current pass, as a loader asks for them."""

    batches: Iterator[list[tuple[int, int]]] = iter(())

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return self.batches


class _Pool:
    """The processes of one split and its views. It keeps the split, so that its id is not reused."""

    def __init__(self, dataset: PreparedImages, count: int, pinned: bool) -> None:
        self.dataset, self.count, self.pinned = dataset, count, pinned
        self.running = False
        self._pass = _Pass()  # not this object: without a cycle of references, the processes end with the last one
        self._loader: DataLoader[Any] | None = None

    def load(self, batches: Iterator[list[tuple[int, int]]]) -> Iterator[tuple[Tensor, ...]]:
        first = next(batches, None)
        if first is None:
            return
        self._pass.batches = chain([first], batches)
        if self._loader is None:
            bytes_of = sum(view.nbytes for view in self.dataset[first[0]])
            waiting = 2 * self.count * len(first) * bytes_of  # two batches for each process
            stack = stack_views if shared_memory_suffices(waiting) else stack_arrays
            self._loader = DataLoader(
                self.dataset,
                batch_sampler=cast(Any, self._pass),
                num_workers=self.count,
                collate_fn=stack,
                persistent_workers=True,
                pin_memory=self.pinned and stack is stack_views,
            )
        self.running = True
        for batch in self._loader:
            yield tuple(torch.as_tensor(view) for view in batch)
        self.running = False  # not if the pass is left before its end: its processes still read ahead


def load_views(
    split: Split,
    rows: Iterable[Tensor],
    seeds: Iterable[Tensor],
    views: Sequence[View | None],
    target: Input,
    workers: Workers | None = None,
) -> Iterator[tuple[Any, ...]]:
    """Yield the prepared views of each group of rows, in order.

    Images in memory are indexed, whole groups at a time if there are no views. Images on disk are read by ``workers``
    in the background (None or 0 processes: by this process), with the same result. ``rows`` and ``seeds`` are consumed
    lazily.
    """
    if isinstance(split.images, Tensor) and not any(views):
        for group in rows:
            ready = prepare(split.images[group], target)
            yield (ready,) * len(views)
        return
    dataset = PreparedImages(split.images, views, target)
    batches = (list(zip(r.tolist(), s.tolist(), strict=True)) for r, s in zip(rows, seeds, strict=True))
    if workers is None or workers.count == 0 or isinstance(split.images, Tensor):
        for batch in batches:
            yield stack_views([dataset[item] for item in batch])
        return
    yield from workers.load(dataset, batches)
