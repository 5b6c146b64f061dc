"""From stored images to what a backbone takes: geometry, normalisation, views, and loading in the background."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hashzoo.types import Input, Split, View

# torchvision takes longer to import than torch, so functions import it where they need it

LONGEST = 16  # times its shorter side that is resized of an image's longer one

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
    """An image as uint8 (C, H, W): PIL images become RGB, tensors stay."""
    return image if isinstance(image, Tensor) else pil_to_tensor(image.convert("RGB"))


def prepare(images: Tensor, to: Input) -> Tensor:
    """Images (..., C, H, W) uint8 as the backbone takes them: resized, cropped, scaled to 0..1, normalised.

    >>> prepare(torch.full((2, 1, 4, 4), 255, dtype=torch.uint8), Input(size=2, channels=3)).shape
    torch.Size([2, 3, 2, 2])
    """
    return normalised(shaped(images, to), to)


def shaped(images: Tensor, to: Input) -> Tensor:
    """Images (..., C, H, W) uint8 in the channels and the size that the backbone takes, uint8 still."""
    if to.channels == 3 and images.shape[-3] == 1:
        images = images.expand(*images.shape[:-3], 3, *images.shape[-2:])
    if to.size is not None:
        from torchvision.transforms.v2 import functional

        side = round(to.size / to.crop)
        most = LONGEST * min(images.shape[-2:])
        if max(images.shape[-2:]) > most:  # one pixel by thousands would become gigabytes, of which the middle counts
            images = functional.center_crop(images, [min(length, most) for length in images.shape[-2:]])
        if images.shape[-2:] != (side, side):
            images = functional.resize(images, [side], antialias=True)
        images = functional.center_crop(images, [to.size, to.size])
    return images


def normalised(images: Tensor, to: Input) -> Tensor:
    """Images (..., C, H, W) uint8 as floats, scaled to 0..1, then by the mean and the deviation of the backbone."""
    scaled = images.float() / 255
    mean, std = (torch.tensor(v, device=scaled.device).view(-1, 1, 1) for v in (to.mean, to.std))
    return (scaled - mean) / std


class Prepared(Dataset[tuple[Tensor, ...]]):
    """Rows of a split as prepared views. An item is asked for by (row, seed), so its randomness is its own.

    That makes an image's augmentation the same whether one process loads it or eight.
    """

    def __init__(self, images: Sequence[Any], views: Sequence[View | None], to: Input) -> None:
        self.images, self.views, self.to = images, views, to

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, ...]:
        row, seed = item
        image = as_tensor(self.images[row])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return tuple(prepare(view(image) if view else image, self.to) for view in self.views)


def stacked(items: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """A list of items with V views each as V batches."""
    return tuple(torch.stack(view) for view in zip(*items, strict=True))


def load(
    split: Split,
    rows: Iterable[Tensor],
    seeds: Iterable[Tensor],
    views: Sequence[View | None],
    to: Input,
    workers: int,
) -> Iterator[tuple[Any, ...]]:
    """The prepared views of each group of rows, in order.

    Images in memory are indexed, whole groups at a time where no view is random; images on disk are read by
    ``workers`` background processes (0: by this one). The result does not depend on ``workers``. Groups are asked for
    as they are needed.
    """
    if isinstance(split.images, Tensor) and not any(views):
        for group in rows:
            ready = prepare(split.images[group], to)
            yield (ready,) * len(views)
        return
    items = Prepared(split.images, views, to)
    asked = (list(zip(r.tolist(), s.tolist(), strict=True)) for r, s in zip(rows, seeds, strict=True))
    if workers == 0 or isinstance(split.images, Tensor):
        for wanted in asked:
            yield stacked([items[item] for item in wanted])
        return
    loader: DataLoader[Any] = DataLoader(items, batch_sampler=asked, num_workers=workers, collate_fn=stacked)
    yield from loader
