"""How well a method uses its bits: of the database's codes, and of the queries' codes before they became bits."""

from __future__ import annotations

import math

import numpy as np

from hashzoo import CodeSample, pack

ROWS = 1 << 16  # codes looked at in one go where they are needed as numbers


def bit_balance(coded: CodeSample) -> float:
    """Share of the rarer value of a bit, mean over the bits of the database: 0 all constant, .5 all balanced.

    >>> codes = np.array([[0, 1], [0, 1], [0, 0], [0, 0]], bool)
    >>> bit_balance(CodeSample(codes, codes, np.eye(4), np.eye(4)))
    0.25
    """
    ones = coded.database.mean(0)  # (K,)
    return float(np.minimum(ones, 1 - ones).mean())


def bit_correlation(coded: CodeSample) -> float:
    """Absolute correlation of two bits of the database, mean over all pairs of bits: 0 uncorrelated, 1 all the same.

    Bits that are constant over the database say nothing and are left out; NaN with fewer than two others.

    >>> codes = np.array([[0, 1, 1], [0, 0, 1], [1, 1, 1], [1, 0, 1]], bool)
    >>> bit_correlation(CodeSample(codes, codes, np.eye(4), np.eye(4)))
    0.0
    """
    items, bits = coded.database.shape
    both = np.zeros((bits, bits))  # of how many items two bits are 1
    for start in range(0, items, ROWS):
        part = coded.database[start : start + ROWS].astype(np.float64)
        both += part.T @ part
    ones = both.diagonal()
    varies = (ones > 0) & (ones < items)
    both, ones = both[varies][:, varies], ones[varies]
    if len(ones) < 2:
        return math.nan
    covariance = items * both - np.outer(ones, ones)  # times N^2: whole numbers
    deviation = np.sqrt(ones * (items - ones))
    correlation = np.abs(covariance / np.outer(deviation, deviation))  # (K', K')
    return float(correlation[~np.eye(len(ones), dtype=bool)].mean())


def distinct(coded: CodeSample) -> float:
    """Different codes in the database, as a share of its items: 1 / N one code for all, 1 each its own.

    >>> codes = np.array([[0, 1], [0, 1], [0, 0], [1, 0]], bool)
    >>> distinct(CodeSample(codes, codes, np.eye(4), np.eye(4)))
    0.75
    """
    return len(np.unique(pack(coded.database), axis=0)) / len(coded.database)


def quantization(coded: CodeSample) -> float:
    """Mean of (|u| - 1)^2 over all values u of the queries' relaxed codes: 0 where each is -1 or +1.

    That is |b - u|^2 / K with b the signs of u. It has a meaning for methods whose relaxed code is meant to reach -1
    and +1, such as tanh; of others see ``distortion``. NaN for a method without a relaxed code.

    >>> one = np.ones((1, 1), bool)
    >>> quantization(CodeSample(one, one, one, one, np.array([[0.5, -1.0]])))
    0.125
    """
    if coded.relaxed is None:
        return math.nan
    return float(np.square(np.abs(coded.relaxed.astype(np.float64)) - 1).mean())


def distortion(coded: CodeSample) -> float:
    """Share of a relaxed code u that its signs b lose at the best scale: mean of min over s of |u - s b|^2 / |u|^2.

    It is 1 - |u|_1^2 / (K |u|_2^2), the same for u and any multiple of it, and 0 where all values of a code are
    equally large; at most 1 - 1 / K. Of the queries; NaN for a method without a relaxed code.

    >>> one = np.ones((1, 1), bool)
    >>> distortion(CodeSample(one, one, one, one, np.array([[3.0, -3.0], [2.0, 0.0]])))
    0.25
    """
    if coded.relaxed is None:
        return math.nan
    size = np.abs(coded.relaxed.astype(np.float64))  # (Q, K)
    largest = size.max(1, keepdims=True)
    size = np.divide(size, largest, out=np.ones_like(size), where=largest > 0)  # of a code of zeros nothing is lost
    kept = np.square(size.mean(1)) / np.square(size).mean(1)  # (Q,)
    return float(np.maximum(1 - kept, 0).mean())
