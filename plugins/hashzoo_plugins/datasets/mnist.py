"""MNIST (LeCun et al., 1998) and Fashion-MNIST (Xiao et al., 2017): 70,000 gray images of 28 x 28 pixels each.

``root`` is a folder with the four official ``idx`` files, compressed (``.gz``) or not, or the folder of torchvision
that contains ``MNIST/raw`` or ``FashionMNIST/raw``. Without it they are downloaded from the mirrors of torchvision.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hashzoo import EnvironmentFailure, Splits
from hashzoo_plugins.datasets.download import Remote, data_folder
from hashzoo_plugins.datasets.pool import Pool

QUERIES, TRAIN = 1000, 5000


@dataclass(frozen=True)
class IdxFiles:
    """The files of one of the two datasets: training images and labels, then test images and labels."""

    name: str
    folder: str  # of torchvision
    source: str
    classes: tuple[str, ...]
    mirrors: tuple[str, ...]
    md5: dict[str, str]
    counts: tuple[int, int] = (60_000, 10_000)

    @property
    def remotes(self) -> list[Remote]:
        """The four files."""
        return [Remote(tuple(m + file for m in self.mirrors), file, md5=md5) for file, md5 in self.md5.items()]

    def paths(self, root: Path | None) -> list[Path]:
        """The paths of the four files. Raises EnvironmentFailure if one is missing."""
        if root is None:
            return [remote.fetch(data_folder(self.name), [*self.md5]) for remote in self.remotes]
        for place in (root, root / self.folder / "raw"):
            found = [next((p for p in (place / f, place / f[:-3]) if p.is_file()), None) for f in self.md5]
            if any(found):
                missing = [f for f, path in zip(self.md5, found, strict=True) if path is None]
                if missing:
                    raise EnvironmentFailure(
                        f"{place} has no {', '.join(missing)}; leave root out to download all files"
                    )
                return [path for path in found if path]
        raise EnvironmentFailure(f"{root} has no {', '.join(self.md5)}; leave root out to download them")

    def pool(self, root: Path | None) -> tuple[Pool, int]:
        """All images (N, 1, 28, 28), the official training images first, and the number of training images."""
        paths, (first, second) = self.paths(root), self.counts
        images = [read_idx(path, (n, 28, 28)) for path, n in zip(paths[::2], (first, second), strict=True)]
        labels = np.concatenate([read_idx(path, (n,)) for path, n in zip(paths[1::2], (first, second), strict=True)])
        if labels.max() >= len(self.classes):
            raise EnvironmentFailure(
                f"{paths[1].parent} has a label {labels.max()}, expected below 10; download it again"
            )
        one_hot = torch.eye(10)[torch.from_numpy(labels.astype(np.int64))]
        stacked = torch.from_numpy(np.concatenate(images))[:, None]
        # the two datasets use the same file names, so only the checksums of the compressed files identify them
        known = all(
            self.md5.get(p.name) == hashlib.md5(p.read_bytes(), usedforsecurity=False).hexdigest() for p in paths
        )
        return Pool(stacked, one_hot, self.classes, self.source if known else f"{self.source} (own files)"), first

    def disjoint(self, root: Path | None, seed: int, validation: float) -> Splits:
        """Stratified splits."""
        whole, _ = self.pool(root)
        return whole.disjoint_splits(self.name, QUERIES, TRAIN, seed=seed, validation=validation)

    def official(self, root: Path | None, seed: int, validation: float) -> Splits:
        """The official splits."""
        whole, first = self.pool(root)
        return whole.official_splits(self.name, first, seed=seed, validation=validation)


def read_idx(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The array in an idx file of unsigned bytes. Raises EnvironmentFailure for any other type or shape."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise EnvironmentFailure(f"cannot read {path}: {error}; remove it to download it again") from error
    header = np.array([0x0800 + len(shape), *shape], dtype=">i4").tobytes()
    if data[: len(header)] != header or len(data) != len(header) + math.prod(shape):
        raise EnvironmentFailure(f"{path} is not an idx file of shape {shape}; remove it to download it again")
    return np.frombuffer(data, dtype=np.uint8, offset=len(header)).reshape(shape)


MNIST = IdxFiles(
    "mnist",
    "MNIST",
    "MNIST",
    tuple(str(digit) for digit in range(10)),
    ("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"),
    {
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    },
)
FASHION = IdxFiles(
    "fashion-mnist",
    "FashionMNIST",
    "Fashion-MNIST",
    ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
    {
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    },
)


def disjoint(*, root: Path | None = None, seed: int = 0, validation: float = 0.0) -> Splits:
    """MNIST: 1,000 queries, 5,000 training images, the 64,000 other images as the database."""
    return MNIST.disjoint(root, seed, validation)


def official(*, root: Path | None = None, seed: int = 0, validation: float = 0.0) -> Splits:
    """MNIST, official split: 10,000 test images as queries; the 60,000 training images are the database."""
    return MNIST.official(root, seed, validation)


def fashion_disjoint(*, root: Path | None = None, seed: int = 0, validation: float = 0.0) -> Splits:
    """Fashion-MNIST: 1,000 queries, 5,000 training images, the 64,000 other images as the database."""
    return FASHION.disjoint(root, seed, validation)


def fashion_official(*, root: Path | None = None, seed: int = 0, validation: float = 0.0) -> Splits:
    """Fashion-MNIST, official split: 10,000 test images as queries; the 60,000 training images are the database."""
    return FASHION.official(root, seed, validation)
