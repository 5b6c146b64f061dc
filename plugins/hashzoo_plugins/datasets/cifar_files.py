"""The binary version of CIFAR-10 and CIFAR-100. Each record has label bytes and an image of 3 x 32 x 32 bytes.

The Python version consists of pickles, which execute code when they are loaded, and is never read.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashzoo import EnvironmentFailure
from hashzoo_plugins.datasets.download import Remote, data_folder

IMAGE = 3 * 32 * 32
SITE = "https://www.cs.toronto.edu/~kriz/"


@dataclass(frozen=True)
class CifarFiles:
    """The official files of one of the two datasets."""

    name: str  # of the data folder
    remote: Remote
    folder: str  # inside the archive
    pickles: tuple[str, ...]  # folder and archive of the Python version
    images: dict[str, int]  # number of images by file, training images first
    labels: int  # label bytes per record; the last one is the class
    classes: int

    def read_files(self, root: Path | None, also: Sequence[str] = ()) -> dict[str, bytes]:
        """Read the files with the images, and the files ``also``.

        They are read from ``root`` (the folder itself, its parent, or the folder of the archive), or else from the data
        folder, where the archive is downloaded if necessary.

        Raises:
            EnvironmentFailure: If there are no such files, or the archive is damaged.
        """
        files = [*self.images, *also]
        if root is None:
            return self._extract(self.remote.fetch(data_folder(self.name)), files)
        for place in (root, root / self.folder):
            if (place / files[0]).is_file():
                try:
                    return {file: (place / file).read_bytes() for file in files}
                except OSError as error:
                    raise EnvironmentFailure(f"cannot read {error.filename}: {error.strerror}") from error
        if (root / self.remote.path).is_file():
            return self._extract(root / self.remote.path, files)
        cure = f"put {self.remote.path} there ({self.remote.urls[0]}), or leave root out to download it"
        for pickles in self.pickles:
            if (root / pickles).exists():
                raise EnvironmentFailure(
                    f"{root / pickles} is the Python version, which consists of pickles and is never loaded; {cure}"
                )
        raise EnvironmentFailure(f"{root} has no {self.folder} and no {self.remote.path}; {cure}")

    def _extract(self, archive: Path, files: Sequence[str]) -> dict[str, bytes]:
        try:
            with tarfile.open(archive) as tar:
                return {file: _read_member(tar, f"{self.folder}/{file}") for file in files}
        except (tarfile.TarError, OSError, EOFError, zlib.error, KeyError) as error:
            raise EnvironmentFailure(f"{archive} is damaged: {error}; remove it to download it again") from error

    def parse(self, content: dict[str, bytes]) -> tuple[Tensor, NDArray[np.int64]]:
        """All images (N, 3, 32, 32) uint8 and their classes (N,), training images first.

        Raises:
            EnvironmentFailure: If a file is damaged.
        """
        record = self.labels + IMAGE
        blocks = []
        for file, images in self.images.items():
            if (size := len(content[file])) != images * record:
                raise EnvironmentFailure(
                    f"{file} has {size} bytes, expected {images * record}; download {self.folder} again"
                )
            blocks.append(np.frombuffer(content[file], dtype=np.uint8).reshape(-1, record))
        table = np.concatenate(blocks)  # (N, record)
        classes = table[:, self.labels - 1].astype(np.int64)
        if classes.max() >= self.classes:
            raise EnvironmentFailure(
                f"{self.folder} has a label {classes.max()}, expected below {self.classes}; download it again"
            )
        return torch.from_numpy(table[:, self.labels :].reshape(-1, 3, 32, 32).copy()), classes


def _read_member(tar: tarfile.TarFile, name: str) -> bytes:
    """The content of a file in an archive. Raises KeyError if there is no such file."""
    file = tar.extractfile(name)
    if file is None:
        raise KeyError(f"{name!r} is not a file")
    return file.read()


CIFAR10 = CifarFiles(
    "cifar10",
    Remote((f"{SITE}cifar-10-binary.tar.gz",), "cifar-10-binary.tar.gz", md5="c32a1d4ab5d03f1284b67883e8d87530"),
    "cifar-10-batches-bin",
    ("cifar-10-batches-py", "cifar-10-python.tar.gz"),
    {**{f"data_batch_{i}.bin": 10_000 for i in range(1, 6)}, "test_batch.bin": 10_000},
    labels=1,
    classes=10,
)
CIFAR100 = CifarFiles(
    "cifar100",
    Remote((f"{SITE}cifar-100-binary.tar.gz",), "cifar-100-binary.tar.gz", md5="03b5dce01913d631647c71ecec9e9cb8"),
    "cifar-100-binary",
    ("cifar-100-python", "cifar-100-python.tar.gz"),
    {"train.bin": 50_000, "test.bin": 10_000},
    labels=2,
    classes=100,
)
