"""How well a method uses its bits, from the codes of the database and the relaxed codes of the queries."""

from __future__ import annotations

import math

import numpy as np

from hashzoo import CodeSample, pack

CHUNK = 1 << 16  # codes converted to floating point at once


def bit_balance(sample: CodeSample) -> float:
    """Fraction of the rarer value of a bit in the database, mean over bits: 0 if all are constant, .5 if balanced.

    >>> codes = np.array([[0, 1], [0, 1], [0, 0], [0, 0]], bool)
    >>> bit_balance(CodeSample(codes, codes, np.eye(4), np.eye(4)))
    0.25
    """
    ones = sample.database.mean(0)  # (K,)
    return float(np.minimum(ones, 1 - ones).mean())


def bit_correlation(sample: CodeSample) -> float:
    """Absolute correlation of two bits in the database, mean over pairs of bits: 0 uncorrelated, 1 all equal.

    Bits that are constant over the database are excluded; NaN with fewer than two others.

    >>> codes = np.array([[0, 1, 1], [0, 0, 1], [1, 1, 1], [1, 0, 1]], bool)
    >>> bit_correlation(CodeSample(codes, codes, np.eye(4), np.eye(4)))
    0.0
    """
    items, bits = sample.database.shape
    both = np.zeros((bits, bits))  # number of items in which both bits are 1
    for start in range(0, items, CHUNK):
        part = sample.database[start : start + CHUNK].astype(np.float64)
        both += part.T @ part
    ones = both.diagonal()
    varies = (ones > 0) & (ones < items)
    both, ones = both[varies][:, varies], ones[varies]
    if len(ones) < 2:
        return math.nan
    covariance = items * both - np.outer(ones, ones)  # times N^2, which keeps it an integer
    deviation = np.sqrt(ones * (items - ones))
    correlation = np.abs(covariance / np.outer(deviation, deviation))  # (K', K')
    return float(correlation[~np.eye(len(ones), dtype=bool)].mean())


def distinct(sample: CodeSample) -> float:
    """Number of different codes in the database divided by its size N: 1 / N if all are equal, 1 if all differ.

    >>> codes = np.array([[0, 1], [0, 1], [0, 0], [1, 0]], bool)
    >>> distinct(CodeSample(codes, codes, np.eye(4), np.eye(4)))
    0.75
    """
    return len(np.unique(pack(sample.database), axis=0)) / len(sample.database)


def quantization(sample: CodeSample) -> float:
    """Mean of (|u| - 1)^2 over all values u of the relaxed codes of the queries: 0 if all are -1 or +1.

    This is |b - u|^2 / K for the signs b of u. It is meaningful for methods whose relaxed code approaches -1 and +1,
    such as tanh; for others see ``distortion``. NaN for a method without a relaxed code.

    >>> one = np.ones((1, 1), bool)
    >>> quantization(CodeSample(one, one, one, one, np.array([[0.5, -1.0]])))
    0.125
    """
    if sample.relaxed is None:
        return math.nan
    return float(np.square(np.abs(sample.relaxed.astype(np.float64)) - 1).mean())


def distortion(sample: CodeSample) -> float:
    """Relative error of the signs b of a relaxed code u at the best scale: mean of min over s of |u - s b|^2 / |u|^2.

    This is 1 - |u|_1^2 / (K |u|_2^2), which does not depend on the scale of u. It is 0 if all values of a code have
    the same magnitude, and at most 1 - 1 / K. Mean over the queries; NaN for a method without a relaxed code.

    >>> one = np.ones((1, 1), bool)
    >>> distortion(CodeSample(one, one, one, one, np.array([[3.0, -3.0], [2.0, 0.0]])))
    0.25
    """
    if sample.relaxed is None:
        return math.nan
    size = np.abs(sample.relaxed.astype(np.float64))  # (Q, K)
    largest = size.max(1, keepdims=True)
    size = np.divide(size, largest, out=np.ones_like(size), where=largest > 0)  # a code of zeros has no error
    kept = np.square(size.mean(1)) / np.square(size).mean(1)  # (Q,)
    return float(np.maximum(1 - kept, 0).mean())
