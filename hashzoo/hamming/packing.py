"""Bit codes as bytes and words, and the compiled loops over them.

Codes are stored eight bits to a byte and compared 64 bits at a time. Without numba, or with ``HASHZOO_NUMBA=off`` in
the environment, NumPy computes the same integers about a hundred times slower.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashzoo.hamming.values import bit_values, code_cure, few_values
from hashzoo.storage.library_caches import provide_numba_cache

Words = NDArray[np.uint64]
Ints = NDArray[np.int64]

#: The order of bits in packed codes, as files and manifests state it.
BIT_ORDER = "bit 0 is the highest of byte 0, and the last byte ends in zeros"
ONES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1)  # number of ones of each byte


def compiled_loops() -> ModuleType | None:
    """The module of compiled loops; None if numba is missing or switched off."""
    if os.environ.get("HASHZOO_NUMBA", "").lower() == "off":
        return None
    if "hashzoo.hamming.kernels" not in sys.modules:
        provide_numba_cache()
    try:
        from hashzoo.hamming import kernels
    except ImportError:
        return None
    return kernels


def compiled() -> bool:
    """Whether compiled loops are used rather than NumPy."""
    return compiled_loops() is not None


def set_threads(count: int) -> int:
    """Set the number of threads of compiled loops called from this thread.

    Args:
        count: Threads, at least 1.

    Returns:
        The number that will be used, at most that of the machine, and 1 without numba.

    Raises:
        ValueError: If ``count`` is below 1.
    """
    if count < 1:
        raise ValueError(f"threads must be at least 1, not {count}")
    loops = compiled_loops()
    return 1 if loops is None else int(loops.set_threads(count))


def get_threads() -> int:
    """The number of threads of compiled loops called from this thread; 1 without numba."""
    loops = compiled_loops()
    return 1 if loops is None else int(loops.threads())


def pack(bits: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Pack bit codes eight bits to a byte.

    Args:
        bits: (N, K) bool.

    Returns:
        (N, ceil(K / 8)) uint8. Bit 0 is the highest of byte 0, and the last byte is padded with zeros.

    Raises:
        ValueError: If the codes are not bool; NumPy would read any number except 0, -1 too, as a one.

    >>> pack(np.array([[True, False, False, False, False, False, False, True, True]]))
    array([[129, 128]], dtype=uint8)
    """
    if bits.dtype != np.bool_:
        if bit_values(few_values([bits])):
            raise ValueError(f"pack takes bool bits, not {bits.dtype} {bits.shape}; pass `bits > 0`")
        raise ValueError(f"pack takes bool bits, not {bits.dtype} {bits.shape}; {code_cure([bits], 'bits')}")
    if bits.ndim == 2 and bits.shape[1] % 8 == 0:
        return np.packbits(bits).reshape(len(bits), -1)  # without rows, several times as fast
    return np.packbits(bits, axis=1)


def unpack(packed: NDArray[np.uint8], bits: int) -> NDArray[np.bool_]:
    """Unpack bit codes; the inverse of :func:`pack`.

    Args:
        packed: (N, ceil(bits / 8)) uint8.
        bits: Code length K.

    Returns:
        (N, K) bool.

    >>> unpack(np.array([[129, 128]], dtype=np.uint8), 9).astype(int)
    array([[1, 0, 0, 0, 0, 0, 0, 1, 1]])
    """
    return np.unpackbits(packed, axis=1, count=bits).astype(bool)


def words(packed: NDArray[np.uint8]) -> Words:
    """(N, B) bytes to (N, ceil(B / 8)) words, padded with zeros, which add nothing to a distance.

    Codes of whole words are not copied.
    """
    if packed.shape[1] % 8 == 0:
        return np.ascontiguousarray(packed).view(np.uint64)
    padded = np.zeros((len(packed), -(-packed.shape[1] // 8) * 8), np.uint8)
    padded[:, : packed.shape[1]] = packed
    return padded.view(np.uint64)


def words_by_column(packed: NDArray[np.uint8]) -> Words:
    """(N, B) bytes to (W, N) words; not copied if one word is the whole code."""
    return np.ascontiguousarray(words(packed).T)


def ones(words: Words) -> Ints:
    """(W, N) words to (N,) numbers of ones."""
    octets = words.view(np.uint8).reshape(*words.shape, 8)
    return np.asarray(ONES[octets].sum(axis=(0, 2)), dtype=np.int64)


def check_codes(query_packed: NDArray[Any], database_packed: NDArray[Any]) -> None:
    """ValueError unless both sides are packed codes of one length, with at least one row each."""
    for name, packed in (("query_packed", query_packed), ("database_packed", database_packed)):
        if packed.dtype != np.uint8 or packed.ndim != 2 or packed.size == 0:
            raise ValueError(f"{name} must be uint8 (N, B) with at least one row, not {packed.dtype} {packed.shape}")
    if query_packed.shape[1] != database_packed.shape[1]:
        raise ValueError(f"query codes have {query_packed.shape[1]} bytes, database codes {database_packed.shape[1]}")
