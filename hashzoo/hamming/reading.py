"""Codes and labels as users have them, read by type and values. What can be read in two ways is refused.

Shapes: Q queries, N database items, K bits, B bytes, C classes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hashzoo.hamming.packing import pack
from hashzoo.hamming.values import Array, as_array, bit_values, code_cure, few_values

#: Texts that stand for a missing value; compared in lower case, without blanks at the ends.
MISSING = ("", "nan", "none", "null", "na", "n/a", "<na>", "nat", "#n/a", "#na", "#value!", "#ref!", "#name?", "nil")

FORMS = "bool (N, K), packed uint8 (N, B), or numbers (N, K) that are 0 and 1 or -1 and +1"


class PackedPair(NamedTuple):
    """Packed codes (Q, B) and (N, B) of ``bits`` bits, and sentences about how they were read."""

    query: NDArray[np.uint8]
    database: NDArray[np.uint8]
    bits: int
    notes: tuple[str, ...]


def is_missing(text: str) -> bool:
    """Whether a text stands for a missing value.

    >>> is_missing(" NaN "), is_missing("cat")
    (True, False)
    """
    return text.strip().casefold() in MISSING


def read_codes(query: Any, database: Any, bits: int | None = None) -> PackedPair:
    """Read the codes of queries and database.

    Bool (N, K) are bits. Other numbers (N, K) are bits if all of both sides are 0 and 1 or -1 and +1.

    uint8 (N, B) is packed; if both sides have two values at most, it could be one bit in each column as well. Then
    ``bits`` decides, which is the number of columns or of packed bits.

    Raises:
        ValueError: For any other codes, with what to pass instead.

    >>> read_codes([[1, -1]], [[-1, -1], [1, 1]]).database
    array([[  0],
           [192]], dtype=uint8)
    """
    sides = {"query_codes": as_array(query, "query_codes"), "database_codes": as_array(database, "database_codes")}
    for name, codes in sides.items():
        if codes.ndim != 2 or codes.dtype.kind not in "biuf":
            raise ValueError(f"{name} must be {FORMS}, not {codes.dtype} {codes.shape}")
        if codes.size == 0:
            raise ValueError(f"{name} is empty, {codes.shape}; it needs at least one row and one bit")
    numbers = {n: c for n, c in sides.items() if c.dtype not in (np.bool_, np.uint8)}
    octets = {n: c for n, c in sides.items() if c.dtype == np.uint8}
    _refuse_other_numbers(numbers)
    unpacked = _unpacked(octets, bits)
    packed, notes = {}, []
    for name, codes in sides.items():
        if name in octets and not unpacked:
            packed[name] = _check_packed(codes, bits, name)
            continue
        if name in numbers or name in octets:
            ones = codes > 0
            values = " and ".join(str(value) for value in few_values([codes]) or ())
            notes.append(f"{name}: {codes.dtype} of {values} read as {codes.shape[1]} bits")
        else:
            ones = codes
        if bits not in (None, codes.shape[1]):
            raise ValueError(f"{name} has {codes.shape[1]} bits, but bits says {bits}")
        packed[name] = pack(ones), codes.shape[1]
    (queries, width), (stored, other) = packed.values()
    if width != other:
        raise ValueError(f"query_codes have {width} bits and database_codes {other}; both must have the same length")
    if (queries == queries[0]).all() and (stored == queries[0]).all() and len(queries) + len(stored) > 2:
        notes.append("all codes are equal, so every ranking is one tie")
    return PackedPair(queries, stored, width, tuple(notes))


def _refuse_other_numbers(numbers: dict[str, Array]) -> None:
    """ValueError if numbers, of both sides together, are not those of bits."""
    arrays = list(numbers.values())
    if not arrays or bit_values(few_values(arrays)):
        return
    name = next((n for n, codes in numbers.items() if not bit_values(few_values([codes]))), next(iter(numbers)))
    given = numbers[name]
    raise ValueError(f"{name} must be {FORMS}, not {given.dtype} {given.shape}; {code_cure(arrays)}")


def _unpacked(octets: dict[str, Array], bits: int | None) -> bool:
    """Whether uint8 codes hold one bit in each column. Raises ValueError if they could be packed as well."""
    sides = [few_values([codes], 3) for codes in octets.values()]
    # more than two values, other than those of signs, are packed: both sides have one form
    single = all(v is not None and (len(v) < 3 or set(v) <= {0, 1, 255}) for v in sides)
    values = sorted(set[int]().union(*(v or () for v in sides)))
    if not octets or (bits is None and (not single or len(values) == 1)):
        return False
    name, codes = next(iter(octets.items()))
    columns = codes.shape[1]
    if bits is not None:
        if columns != bits or (columns == 1 and 128 in values):
            return False
        if not single or (len(values) > 1 and values not in ([0, 1], [0, 255])) or values[-1] not in (0, 1, 255):
            raise ValueError(f"{name} has {columns} columns, as many as bits says, and values other than 0 and 1")
        return True
    cure = "turn them into bool"
    if len(values) == 2 or (values == [0, 1, 255] and all(v is not None and len(v) < 3 for v in sides)):
        cure = f"pass `codes > {values[0]}`"
    raise ValueError(
        f"{name} is uint8 {codes.shape} with only the values {', '.join(map(str, values))}, which can be one bit in "
        f"each column or packed bytes; for one bit in each column, {cure}; for packed bytes, say how many bits they "
        f"hold: bits={8 * columns} (--bits {8 * columns})"
    )


def _check_packed(codes: NDArray[np.uint8], bits: int | None, name: str) -> tuple[NDArray[np.uint8], int]:
    """Packed codes and their number of bits. Raises ValueError if ``bits`` does not fit."""
    width = 8 * codes.shape[1] if bits is None else bits
    if -(-width // 8) != codes.shape[1]:
        raise ValueError(f"{name} has {codes.shape[1]} bytes per row; {width} bits take {-(-width // 8)}")
    if (codes[:, -1] & (0xFF >> (width - 1) % 8 + 1)).any():
        raise ValueError(f"{name} has ones after bit {width} of {8 * codes.shape[1]}; padding bits must be zero")
    return codes, width


def read_labels(query: Any, database: Any, *, multi_hot: bool = False) -> tuple[Array, Array, tuple[str, ...]]:
    """Read the labels of queries and database: both integers (N,), or both numbers (N, C) for a multi-hot reader.

    Integers (N, 1) are (N,), and so are whole numbers of a float type, with a sentence about it. One column of 0 and 1
    can be two classes, or whether an item has the one label: refused, unless it is bool, which is the latter, or with
    ``multi_hot``, which says the latter.

    Returns:
        The labels of both sides, and what was converted, one sentence each.

    Raises:
        ValueError: For missing values, texts, fractions and whatever else is not a label; the message names the side.
    """
    names = ("query_labels", "database_labels")
    q, d = (_numbers(as_array(given, name), name) for given, name in zip((query, database), names, strict=True))
    columns = [side.ndim == 2 and side.shape[1] == 1 for side in (q, d)]
    if all(columns) and q.dtype == d.dtype == np.bool_:
        return q, d, ()
    if all(columns) and (values := few_values([q, d])) is not None and set(values) <= {0, 1} and values != [1]:
        if multi_hot:
            return q, d, ()
        raise ValueError(
            f"query_labels {q.shape} and database_labels {d.shape} are one column of 0 and 1, which can be two classes "
            "or a single label; pass `labels[:, 0]` for two classes, or `labels.astype(bool)` for a single label"
        )
    q, d = (side[:, 0] if one else side for side, one in zip((q, d), columns, strict=True))
    notes = list[str]()
    sides = []
    for name, side in zip(names, (q, d), strict=True):
        if side.ndim == 1 and side.dtype.kind == "f":
            sides.append(_whole(side, name))
            notes.append(f"{name}: whole numbers of type {side.dtype} read as integers")
        else:
            sides.append(side)
    return sides[0], sides[1], tuple(notes)


def _numbers(labels: Array, name: str) -> Array:
    """Labels as an array of numbers. Raises ValueError for missing values, texts and other shapes."""
    if labels.ndim not in (1, 2):
        raise ValueError(f"{name} must be integers (N,) or multi-hot (N, C), not {labels.dtype} {labels.shape}")
    if labels.dtype.kind == "O":
        labels = _plain_objects(labels, name)
    if labels.dtype.kind in "US":
        words = [w.decode("latin-1") if isinstance(w, bytes) else str(w) for w in labels.ravel().tolist()]
        if (row := next((i for i, word in enumerate(words) if is_missing(word)), None)) is not None:
            raise ValueError(f"{name} has no class in row {row}, but {words[row]!r}; remove the row or give its class")
        raise ValueError(
            f"{name} must be integers (N,) or multi-hot (N, C), not texts; number the classes of both sides together: "
            "`np.unique(np.concatenate([query_labels, database_labels]), return_inverse=True)[1]`"
        )
    if labels.dtype.kind == "f" and np.isnan(labels).any():
        raise ValueError(f"{name} holds NaN; every item needs a class")
    if labels.dtype.kind == "b" and labels.ndim == 1:
        raise ValueError(f"{name} must be integers (N,) or multi-hot (N, C), not bool; pass `labels.astype(int)`")
    if labels.dtype.kind == "u" and labels.size and labels.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{name} has a class number above {np.iinfo(np.int64).max}; number the classes from 0")
    return labels


def _plain_objects(labels: Array, name: str) -> Array:
    """Python objects as an array of integers or texts."""
    cells = labels.ravel().tolist()
    for row, cell in enumerate(cells):
        if cell is None or cell != cell or type(cell).__name__ in ("NAType", "NaTType"):
            raise ValueError(f"{name} holds {cell} in row {row}; every item needs a class")
    for kind in (int, str):
        if all(isinstance(cell, kind) and not isinstance(cell, bool) for cell in cells):
            return np.array(cells).reshape(labels.shape)
    found = ", ".join(sorted({type(cell).__name__ for cell in cells}))
    raise ValueError(f"{name} must be integers (N,) or multi-hot (N, C), not Python objects ({found})")


def _whole(labels: Array, name: str) -> Array:
    """Whole numbers (N,) of a float type as integers."""
    exact = 2.0 ** (np.finfo(labels.dtype).nmant + 1)  # above it, neighboring integers are one number
    if not (np.isfinite(labels).all() and (labels == np.rint(labels)).all()):
        raise ValueError(f"{name} must be integers (N,) or multi-hot (N, C); it holds fractions or infinite values")
    if labels.size and np.abs(labels).max() > exact:
        raise ValueError(f"{name} has class numbers above {exact:.0f}, which {labels.dtype} cannot tell apart")
    return labels.astype(np.int64)
