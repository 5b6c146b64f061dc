"""What the values of an array say about its meaning: which numbers are bits, and how other numbers become bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 1 << 20  # values looked at at a time
BYTE, SIGNED_BYTE = (0, 255), (-128, 127)  # the smallest and the largest value

Array = NDArray[Any]


def as_array(given: Any, name: str) -> Array:
    """An array of a list, a tensor on any device, or anything else that NumPy reads.

    Raises ValueError for rows of different lengths and for masked values, which NumPy would unmask.
    """
    if isinstance(given, np.ma.MaskedArray) and np.ma.getmaskarray(given).any():
        raise ValueError(f"{name} has masked values; remove their rows")
    if hasattr(given, "detach"):
        given = given.detach().cpu()
    try:
        return np.asarray(given)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name} is not an array of numbers: {' '.join(str(error).split())}") from error


def few_values(arrays: Sequence[Array], most: int = 2) -> list[Any] | None:
    """The distinct values of all arrays together, sorted; None if there are more than ``most``.

    >>> few_values([np.array([[1, 0]]), np.array([1])]), few_values([np.arange(5)])
    ([0, 1], None)
    """
    found = set[Any]()
    for array in arrays:
        flat = array.reshape(-1)
        for start in range(0, len(flat), BLOCK):
            found |= set(np.unique(flat[start : start + BLOCK])[: most + 1].tolist())
            if len(found) > most:
                return None
    return sorted(found)


def bit_values(values: Sequence[Any] | None) -> bool:
    """Whether distinct values are those of bits: of 0 and 1, or of -1 and +1.

    >>> [bit_values(v) for v in ([0, 1], [-1.0, 1.0], [1], [-1, 0], None)]
    [True, True, True, False, False]
    """
    return values is not None and (set(values) <= {0, 1} or set(values) <= {-1, 1})


def code_cure(arrays: Sequence[Array], variable: str = "codes") -> str:
    """How to make bits of numbers that are neither 0 and 1 nor -1 and +1, as the end of an error message.

    An expression is given only if the type and the values allow no second reading; ``variable`` stands for the array.
    The arrays are judged together, so that queries and database are read alike.
    """
    if any(a.dtype.kind not in "biuf" for a in arrays):
        return "codes are numbers"
    if any(not np.isfinite(a).all() for a in arrays):
        return "it holds NaN or infinite values; remove these rows"
    values = few_values(arrays, 3)
    if values is not None and len(values) < 3:
        return f"for these two values, pass `{variable} > {values[0]}`" if len(values) == 2 else "all values are equal"
    if values == [-1, 0, 1]:
        return "0 is neither -1 nor +1; decide which bit it stands for, and pass bool"
    low, high = min(a.min().item() for a in arrays), max(a.max().item() for a in arrays)
    if all(a.dtype.kind in "iu" for a in arrays):
        return _integer_cure(arrays, low, high, variable)
    if low < 0 < high and not all(bool((a == np.rint(a)).all()) for a in arrays):
        return f"for real codes, pass `{variable} >= 0`"
    what = "whole numbers" if low < 0 else "never negative, so that 0 is not their threshold"
    return f"they are {what}; make bits of them as their method does, and pass bool"


def _integer_cure(arrays: Sequence[Array], low: int, high: int, variable: str) -> str:
    """The cure for integers of more than two values."""
    binarize = "make bits of any others as their method does, and pass bool"
    if all(a.dtype == np.int8 for a in arrays) or (low < 0 and low >= SIGNED_BYTE[0] and high <= SIGNED_BYTE[1]):
        return (
            'for packed bytes minus 128, the precision "binary" of sentence-transformers, pass '
            f"`({variable}.astype(np.int16) + 128).astype(np.uint8)`; {binarize}"
        )
    if low >= BYTE[0] and high <= BYTE[1]:
        return f"for packed bytes, pass `{variable}.astype(np.uint8)`; {binarize}"
    largest = max(abs(low), abs(high))
    if all(a.dtype.kind == "u" or largest >= 2 ** (8 * a.dtype.itemsize - 8) for a in arrays):
        return f"for words of packed bits, pass `np.ascontiguousarray({variable}).view(np.uint8)`; {binarize}"
    return "make bits of them as their method does, and pass bool"
