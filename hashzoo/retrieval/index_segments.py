"""Immutable files of codes: ``.npy`` arrays named by the SHA-256 of their bytes, so that a name says what a file holds.

A file is written completely before anything refers to it, and never changes.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from hashzoo.errors import EnvironmentFailure
from hashzoo.storage.files import disk_errors, file_sha256, replace_file

Array = np.ndarray[Any, Any]
#: Gives the rows of an array in blocks, from the first to the last, as often as it is called.
Blocks = Callable[[], Iterator[Array]]


def file_of(folder: Path, digest: str) -> Path:
    """The file of an array."""
    return folder / f"{digest}.npy"


def write(folder: Path, shape: Sequence[int], dtype: np.dtype[Any], blocks: Blocks) -> str:
    """Write an array, and make sure that it is on the disk.

    Args:
        folder: The folder of segments.
        shape: The shape of the whole array.
        dtype: Its type.
        blocks: Its rows; they are read twice.

    Returns:
        The digest that names the file.

    Raises:
        DiskError: If the disk refuses the file.
    """
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": tuple(shape)}
    )
    total = hashlib.sha256(header.getvalue())
    for block in blocks():
        total.update(np.ascontiguousarray(block, dtype).data)
    file = file_of(folder, total.hexdigest())
    if not file.exists():
        with replace_file(file) as target:
            target.write(header.getvalue())
            for block in blocks():
                target.write(np.ascontiguousarray(block, dtype).data)
    return total.hexdigest()


def read(folder: Path, digest: str, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
    """The array of a digest, mapped into memory. Changes of it stay in memory.

    The header is not parsed: NumPy uses a function of Python for it that fails in threads of Python 3.11, and the
    digest of the file says that it is what was written.

    Raises:
        FileNotFoundError: If there is no such file: a writer has deleted it since.
        EnvironmentFailure: If the file is damaged, or does not have this shape and type.
    """
    file = file_of(folder, digest)
    check(folder, digest)
    with file.open("rb") as stream:
        start = stream.read(10)
    offset = 10 + int.from_bytes(start[8:10], "little")
    if file.stat().st_size != offset + dtype.itemsize * math.prod(shape):
        raise EnvironmentFailure(f"{file} does not have the shape {tuple(shape)} of its index; build the index again")
    return np.memmap(file, dtype, "c", offset, tuple(shape))


def check(folder: Path, digest: str) -> None:
    """Raise EnvironmentFailure if the bytes of a file are not those of its name, and FileNotFoundError for none."""
    file = file_of(folder, digest)
    try:
        found = file_sha256(file)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise EnvironmentFailure(f"cannot read {file}: {error.strerror or error}; check the disk") from error
    if found != digest:
        raise EnvironmentFailure(
            f"{file} is damaged (its digest does not match its name); restore it from a copy, or build the index again"
        )


def delete_others(folder: Path, kept: set[str]) -> None:
    """Delete the files of a folder that are not those of digests: of former states, and of writers that ended."""
    names = {file_of(folder, digest).name for digest in kept}
    with disk_errors("read", folder):
        files = sorted(folder.iterdir())
    for file in files:
        if file.name not in names:
            with suppress(OSError):  # on Windows, a reader can still hold it: the next writer deletes it
                file.unlink()
