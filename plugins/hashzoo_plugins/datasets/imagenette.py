"""ImageNette: ten easily classified classes of ImageNet (fast.ai), 9,469 training and 3,925 validation images.

``root`` is a folder with the official ``train`` and ``val`` folders (or with ``imagenette2-320``, which contains them),
or with ``imagenette224_train.npz`` and ``imagenette224_val.npz``, the same images at 224 x 224. Without ``root`` the
official files with a shorter side of 320 pixels are downloaded. Networks pretrained on ImageNet have seen these classes
with their labels; their rows are marked.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from hashzoo import EnvironmentFailure, ImageFiles, Splits
from hashzoo_plugins.datasets.archives import fetch_folder
from hashzoo_plugins.datasets.packed import PackedImages
from hashzoo_plugins.datasets.paths import ImagePaths
from hashzoo_plugins.datasets.pool import Pool

WNIDS = (
    "n01440764", "n02102040", "n02979186", "n03000684", "n03028079",
    "n03394916", "n03417042", "n03425413", "n03445777", "n03888257",
)  # fmt: skip
CLASSES = (
    "tench", "English springer", "cassette player", "chain saw", "church",
    "French horn", "garbage truck", "gas pump", "golf ball", "parachute",
)  # fmt: skip
IMAGES = {"train": 9469, "val": 3925}
OFFICIAL = "imagenette2-320"
SOURCES = {OFFICIAL: "320", "imagenette2": "full size", "imagenette2-160": "160"}
PACKED = ("imagenette224_train.npz", "imagenette224_val.npz")


class ConcatenatedImages(ImageFiles):
    """The image files of one sequence, then those of another."""

    def __init__(self, first: ImageFiles, second: ImageFiles) -> None:
        self.first, self.second = first, second

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def _locate(self, row: int) -> tuple[ImageFiles, int]:
        return (self.first, row) if row < len(self.first) else (self.second, row - len(self.first))

    def read(self, row: int) -> bytes:
        """The bytes of one file."""
        files, at = self._locate(row)
        return files.read(at)

    def name(self, row: int) -> str:
        """The name in its own sequence."""
        files, at = self._locate(row)
        return files.name(at)

    def stamp(self, row: int) -> str:
        """The stamp in its own sequence."""
        files, at = self._locate(row)
        return files.stamp(at)


def pool(root: Path | None) -> tuple[Pool, int]:
    """All images, the official training images first, and the number of training images."""
    if root is not None and all((root / name).is_file() for name in PACKED):
        train, val = (PackedImages(root / name) for name in PACKED)
        labels = np.concatenate([train.extra["labels"], val.extra["labels"]]).astype(np.int64)
        names = tuple(str(name) for name in train.extra["classes"])
        one_hot = torch.eye(10)[torch.from_numpy(labels)]
        images = ConcatenatedImages(train, val)
        return Pool(images, one_hot, names, "ImageNette (224)", pretraining=("ImageNet",)), len(train)
    place = fetch_folder("imagenette") / OFFICIAL if root is None else _find_folder(root)
    listed = {part: [_image_paths(place / part / wnid) for wnid in WNIDS] for part in IMAGES}
    for part, expected in IMAGES.items():
        if (count := sum(map(len, listed[part]))) != expected:
            raise EnvironmentFailure(
                f"{place / part} has {count} images, expected {expected}; unpack {OFFICIAL}.tgz again"
            )
    by_class = [(c, path) for part in listed.values() for c, paths in enumerate(part) for path in paths]
    one_hot = torch.eye(10)[torch.tensor([c for c, _ in by_class])]
    source = f"ImageNette ({SOURCES.get(place.name, 'own folder')})"
    files = ImagePaths([path for _, path in by_class])
    return Pool(files, one_hot, CLASSES, source, pretraining=("ImageNet",)), IMAGES["train"]


def _find_folder(root: Path) -> Path:
    """The folder with ``train`` and ``val``: root, or an official one in it. Raises EnvironmentFailure if neither."""
    for place in (root, *(root / name for name in SOURCES)):
        if all((place / part).is_dir() for part in IMAGES):
            return place.resolve()
    if (root / f"{OFFICIAL}.tgz").is_file():
        raise EnvironmentFailure(f"{root / OFFICIAL}.tgz is still packed; unpack it there: tar -xzf {OFFICIAL}.tgz")
    raise EnvironmentFailure(
        f"{root} has no {' and '.join(IMAGES)} folders, and no {PACKED[0]} and {PACKED[1]}; "
        "set root to their folder, or leave root out to download them"
    )


def _image_paths(place: Path) -> list[Path]:
    return sorted(path for path in place.glob("*.JPEG") if not path.name.startswith("."))


def standard(*, root: Path | None = None, seed: int = 0, validation: float = 0.0) -> Splits:
    """ImageNette, official split: 3,925 validation images as queries; the 9,469 training images are the database."""
    whole, first = pool(root)
    return whole.official_splits("imagenette", first, seed=seed, validation=validation)


def base_splits(seed: int, root: Path | None) -> Splits:
    """The basis of long-tailed protocols: the official split."""
    return standard(root=root, seed=seed)
