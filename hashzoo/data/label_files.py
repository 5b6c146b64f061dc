"""Files of labels, one for each vector: .npy, .npz, or text with a class on each line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashzoo.errors import EnvironmentFailure, UsageError, first_line, printable
from hashzoo.hamming.reading import is_missing
from hashzoo.storage import npz

NAMES = ("labels", "label", "y")


def read_label_file(files: Sequence[Path], counts: Sequence[int]) -> tuple[list[Tensor], tuple[str, ...], bool]:
    """Read the labels of several parts together, so that a class has the same column in each.

    Args:
        files: A file for each part: classes (N,), integers or text, or multi-hot (N, C).
        counts: The number of items of each part.

    Returns:
        Labels (N, C) of each part, names of the classes, and whether an item can have several labels.

    Raises:
        UsageError: If there is no such file, or its labels have another number or form.
        EnvironmentFailure: If a file is damaged.
    """
    arrays = [_read(file) for file in files]
    for file, array, count in zip(files, arrays, counts, strict=True):
        if array.ndim not in (1, 2) or len(array) != count:
            raise UsageError(
                f"{printable(file)} has labels of shape {array.shape} for {count:,} vectors; give one label or one "
                "multi-hot row for each"
            )
    if len({array.ndim for array in arrays}) > 1 or len({array.shape[1:] for array in arrays}) > 1:
        raise UsageError(
            f"{printable(files[0])} and {printable(files[-1])} have labels of different forms; give one form"
        )
    if arrays[0].ndim == 2:
        for file, array in zip(files, arrays, strict=True):
            if array.dtype.kind not in "biuf" or not np.isin(array, (0, 1)).all():
                raise UsageError(f"{printable(file)} is (N, C) and not multi-hot; give classes (N,), or only 0 and 1")
        several = any((array.sum(axis=1) != 1).any() for array in arrays)
        names = tuple(str(column) for column in range(arrays[0].shape[1]))
        return [torch.from_numpy(array.astype(np.float32)) for array in arrays], names, several
    for file, array in zip(files, arrays, strict=True):
        _check_classes(file, array)
    classes, place = np.unique(np.concatenate(arrays), return_inverse=True)
    hot = torch.nn.functional.one_hot(torch.from_numpy(place.reshape(-1)).long(), len(classes)).float()
    return list(torch.split(hot, list(counts))), tuple(str(one) for one in classes.tolist()), False


def _check_classes(file: Path, array: NDArray[Any]) -> None:
    if array.dtype.kind not in "iuUS":
        raise UsageError(f"{printable(file)} holds {array.dtype}; classes are integers or text")
    if array.dtype.kind in "US":
        missing = [row for row, one in enumerate(array.tolist()) if is_missing(str(one))]
        if missing:
            raise UsageError(f"row {missing[0]} of {printable(file)} has no class; give one, or remove the vector")


def _read(file: Path) -> NDArray[Any]:
    shown, suffix = printable(file), file.suffix.lower()
    if not file.is_file():
        raise UsageError(f"there is no file {shown}")
    try:
        if suffix == ".npy":
            array: NDArray[Any] = np.load(file, allow_pickle=False)
            return array
        if suffix == ".npz":
            arrays = npz.read(file)
            name = next((name for name in (*NAMES, *arrays) if name in arrays), None)
            if name is None or (len(arrays) > 1 and name not in NAMES):
                raise UsageError(
                    f"{shown} has the arrays {', '.join(arrays) or 'none'}; name the one of labels 'labels'"
                )
            return arrays[name]
        if suffix in (".txt", ".csv", ".tsv"):
            return np.array(file.read_text(encoding="utf-8-sig").splitlines())
    except (ValueError, EOFError, OSError) as error:
        reason = "it holds Python objects, which are not read" if "allow_pickle" in str(error) else first_line(error)
        raise EnvironmentFailure(f"{shown} cannot be read: {reason}; save integers, or a class on each line") from error
    raise UsageError(f"{shown} is no file of labels that hashzoo reads; give .npy, .npz or .txt")
