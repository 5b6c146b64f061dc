"""The binary version of CIFAR-10 and CIFAR-100: a record is its label bytes and an image of 3 x 32 x 32 bytes.

The Python version is pickles, which run code when they are loaded, so it is never read.
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
    """Where the files of one of the two are: the archive, the folder in it, and images by file, training first."""

    name: str  # of the data folder
    remote: Remote
    folder: str
    pickles: tuple[str, ...]
    images: dict[str, int]
    labels: int  # label bytes a record; the last is the class
    classes: int

    def content(self, root: Path | None, also: Sequence[str] = ()) -> dict[str, bytes]:
        """The files of images and some others.

        Out of ``root`` (the folder, what holds it, or what holds the archive) or the data folder. EnvironmentFailure
        where there are none, or where the archive is damaged.
        """
        files = [*self.images, *also]
        if root is None:
            return self._packed(self.remote.fetch(data_folder(self.name)), files)
        for place in (root, root / self.folder):
            if (place / files[0]).is_file():
                try:
                    return {file: (place / file).read_bytes() for file in files}
                except OSError as error:
                    raise EnvironmentFailure(f"{error.filename} cannot be read: {error.strerror}") from error
        if (root / self.remote.path).is_file():
            return self._packed(root / self.remote.path, files)
        cure = f"put {self.remote.path} there ({self.remote.urls[0]}), or leave root out to download it"
        for pickles in self.pickles:
            if (root / pickles).exists():
                raise EnvironmentFailure(
                    f"{root / pickles} is the Python version, pickles, which are never loaded; {cure}"
                )
        raise EnvironmentFailure(f"there is no {self.folder} and no {self.remote.path} in {root}; {cure}")

    def _packed(self, archive: Path, files: Sequence[str]) -> dict[str, bytes]:
        try:
            with tarfile.open(archive) as tar:
                return {file: _member(tar, f"{self.folder}/{file}") for file in files}
        except (tarfile.TarError, OSError, EOFError, zlib.error, KeyError) as error:
            raise EnvironmentFailure(f"{archive} is damaged: {error}; remove it to download it again") from error

    def records(self, content: dict[str, bytes]) -> tuple[Tensor, NDArray[np.int64]]:
        """All images (N, 3, 32, 32) uint8 and their classes (N,), training first. EnvironmentFailure for damaged
        files.
        """
        record = self.labels + IMAGE
        blocks = []
        for file, images in self.images.items():
            if (found := len(content[file])) != images * record:
                raise EnvironmentFailure(
                    f"{file} has {found} bytes, expected {images * record}; get {self.folder} anew"
                )
            blocks.append(np.frombuffer(content[file], dtype=np.uint8).reshape(-1, record))
        table = np.concatenate(blocks)  # (N, record)
        classes = table[:, self.labels - 1].astype(np.int64)
        if classes.max() >= self.classes:
            raise EnvironmentFailure(
                f"{self.folder} has a label {classes.max()}, expected below {self.classes}; get it anew"
            )
        return torch.from_numpy(table[:, self.labels :].reshape(-1, 3, 32, 32).copy()), classes


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    """One file of an archive. KeyError where it has none of that name."""
    file = tar.extractfile(name)
    if file is None:
        raise KeyError(f"{name!r} is no file")
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
