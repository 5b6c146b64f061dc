"""Vectors as the images of a split: rows of a matrix in memory or on disk, read when they are used.

Shapes: M rows of the matrix, N rows of a split, D dimensions.
"""

from __future__ import annotations

import os
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashzoo.errors import EnvironmentFailure, printable
from hashzoo.types import SupportsTake, View

#: How vectors are compared, by name.
METRICS = ("cosine", "ip", "l2")

DROPPED, NOISE = 0.2, 0.1  # of a view: share of numbers that are 0, and noise relative to those of the vector

BLOCK = 1 << 24  # bytes of float32 vectors that are read at a time
BFLOAT16 = "bfloat16"


class Matrix(ABC):
    """A matrix of vectors, one a row.

    Attributes:
        shape: (M, D).
        kind: The type of its numbers, such as ``"float16"``.
        name: The name of its file in messages.
    """

    shape: tuple[int, int]
    kind: str
    name: str

    @abstractmethod
    def read(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Numbers (n, D) of some rows, in the type of the matrix; bfloat16 as float32."""


class ArrayMatrix(Matrix):
    """A matrix in memory, float, integer, or uint16 that holds bfloat16 if ``kind`` says so."""

    def __init__(self, array: NDArray[Any], name: str, kind: str = "") -> None:
        self.array, self.name, self.kind = array, name, kind or array.dtype.name
        self.shape = (len(array), array.shape[1])

    def read(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Some rows."""
        return as_numbers(self.array[rows], self.kind)


class FileMatrix(Matrix):
    """A matrix in a file, row after row, each with the same number of bytes before it.

    Rows are read by position, so memory does not grow with the file. The file is not mapped: if a mapped file shrinks,
    the system ends the process that reads it.

    Args:
        path: The file.
        shape: (M, D).
        dtype: The type of the stored numbers.
        start: Bytes before the first row.
        before: Bytes before the numbers of each row.
        kind: ``"bfloat16"`` for uint16 numbers that hold it.
    """

    def __init__(
        self, path: Path, shape: tuple[int, int], dtype: Any, start: int, *, before: int = 0, kind: str = ""
    ) -> None:
        self.path, self.shape, self.dtype, self.start, self.before = path, shape, np.dtype(dtype), start, before
        self.name, self.kind = printable(path), kind or self.dtype.newbyteorder("=").name
        self.record = before + shape[1] * self.dtype.itemsize
        self._lock, self._file = threading.Lock(), path.open("rb", buffering=0)
        weakref.finalize(self, self._file.close)
        self._stamp = self._current()
        if self._stamp[0] < start + shape[0] * self.record:
            raise EnvironmentFailure(
                f"{self.name} has {self._stamp[0]:,} bytes, and its {shape[0]:,} rows of {shape[1]} {self.kind} need "
                f"{start + shape[0] * self.record:,}; write the file again"
            )

    def read(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Some rows. Raises EnvironmentFailure if the file has changed since it was opened."""
        raw = np.empty((len(rows), self.record), np.uint8)
        ends = np.flatnonzero(np.diff(rows) != 1) + 1  # each run of consecutive rows is read at once
        with self._lock:
            for first, last in zip([0, *ends.tolist()], [*ends.tolist(), len(rows)], strict=True):
                if last > first:
                    self._fill(raw[first:last], int(rows[first]))
            if self._current() != self._stamp:
                raise EnvironmentFailure(f"{self.name} changed while it was read; run the command again")
        numbers = np.ascontiguousarray(raw[:, self.before :]).view(self.dtype)
        self.check(raw, rows)
        return as_numbers(numbers.astype(self.dtype.newbyteorder("="), copy=False), self.kind)

    def check(self, raw: NDArray[np.uint8], rows: NDArray[np.int64]) -> None:
        """Check the bytes (n, record) of some rows; a subclass raises EnvironmentFailure for wrong ones."""

    def _fill(self, target: NDArray[np.uint8], row: int) -> None:
        self._file.seek(self.start + row * self.record)
        view = memoryview(target.data).cast("B")
        while len(view):
            count = self._file.readinto(view)
            if not count:
                raise EnvironmentFailure(f"{self.name} became shorter while it was read; write the file again")
            view = view[count:]

    def _current(self) -> tuple[int, int]:
        found = os.fstat(self._file.fileno())
        return found.st_size, found.st_mtime_ns


def as_numbers(stored: NDArray[Any], kind: str) -> NDArray[Any]:
    """Numbers in a type that NumPy has: bfloat16, stored as uint16, as float32.

    >>> as_numbers(np.array([0x3F80, 0xC000], np.uint16), BFLOAT16).tolist()
    [1.0, -2.0]
    """
    if kind != BFLOAT16:
        return stored
    return (stored.astype(np.uint32) << 16).view(np.float32)


class Vectors(SupportsTake):
    """Rows of a matrix as the images of a split.

    Args:
        matrix: The matrix.
        rows: (N,) its rows, by default all.
        unit: Whether each row is divided by its length.
    """

    def __init__(self, matrix: Matrix, rows: NDArray[np.int64] | None = None, *, unit: bool = False) -> None:
        self.matrix, self.unit = matrix, unit
        self.rows = np.arange(matrix.shape[0]) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def dim(self) -> int:
        """Number D of dimensions."""
        return self.matrix.shape[1]

    def __getitem__(self, rows: Any) -> Any:
        """Vectors of some rows as a float32 tensor: (D,) for one row, else (n, D)."""
        if isinstance(rows, int | np.integer):
            return torch.from_numpy(self.numbers(self.rows[[int(rows)]])[0])
        return torch.from_numpy(self.numbers(self.rows[rows]))

    def numbers(self, rows: NDArray[np.int64], dtype: Any = np.float32) -> NDArray[Any]:
        """(n, D) some rows of the matrix in a float type, divided by their lengths if ``unit`` is set.

        A row of zeros remains one.
        """
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes inf, which is reported as such
            values = self.matrix.read(rows).astype(dtype)
        if not self.unit:
            return values
        wide = values.astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            length = np.sqrt(np.square(wide).sum(axis=1, keepdims=True))
            return np.asarray((wide / np.where(length > 0, length, 1)).astype(dtype))

    def take(self, rows: Tensor) -> Vectors:
        """Some rows, in the given order."""
        return Vectors(self.matrix, self.rows[rows.numpy()], unit=self.unit)

    def under_view(self, view: View | None, rows: Tensor, seeds: Tensor) -> Tensor:
        """Vectors (n, D) of some rows; under any view, a random one each, by dropout and noise: see :func:`noisy`."""
        found: Tensor = self[rows.numpy()]
        return found if view is None else noisy(found, torch.Generator().manual_seed(int(seeds[0])))

    def name(self, row: int) -> str:
        """The name of a row in messages."""
        return f"row {int(self.rows[row])} of {self.matrix.name}"

    def blocks(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Blocks of the split: the place of the first row, and the rows of the matrix."""
        step = max(1, BLOCK // (4 * max(1, self.dim)))
        for start in range(0, len(self), step):
            yield start, self.rows[start : start + step]


def noisy(vectors: Tensor, generator: torch.Generator) -> Tensor:
    """A random view of vectors (n, D): some numbers are 0, the others larger to keep the mean, and noise is added.

    The standard deviation of the noise is a share of the root mean square of a vector. Images have crops and colors
    instead, for methods that learn from two views.

    >>> found = noisy(torch.ones(1, 10_000), torch.Generator().manual_seed(0))
    >>> round(float(found.mean()), 1), round(float((found < 0.6).float().mean()), 1)
    (1.0, 0.2)
    """
    left = torch.rand(vectors.shape, generator=generator) >= DROPPED
    size = vectors.square().mean(1, keepdim=True).sqrt()
    return vectors * left / (1 - DROPPED) + NOISE * size * torch.randn(vectors.shape, generator=generator)


def holds_vectors(images: Any) -> bool:
    """Whether the images of a split are vectors."""
    return isinstance(images, Vectors)
