"""Recall of the exact neighbors: curves over the number of candidates, and scores of a board.

If the first F k items by code are compared again exactly, every true neighbor among them ends up in the top k, so that
recall@k is then the share of the k neighbors among the first F k items. Counts by distance give its expected value over
all orders of ties for every F at once.

Shapes: Q queries, N database items, K bits, G groups of equal distance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hashzoo.distance import PAIRS, SignedProduct
from hashzoo.evaluation.metrics import ASYMMETRIC, Evaluation, Metric, parse, score
from hashzoo.evaluation.truth import Truth
from hashzoo.hamming.counting import Counts
from hashzoo.hamming.ties import Floats
from hashzoo.index import Index, Scan
from hashzoo.types import Codes

CHUNK = 64  # queries counted at a time at least
WHOLE = 100  # factors 1..WHOLE are stored one by one, larger ones in steps of a constant ratio
STEPS = 200  # of larger factors
ROUNDING = 1e-9  # of a sum over all queries

Arrays = dict[str, NDArray[Any]]


class RecallCurve:
    """The mean over queries of the expected share of listed items among the first R, for every R.

    Args:
        items: Number N of database items.
    """

    def __init__(self, items: int) -> None:
        self._steps, self._queries = np.zeros(items + 1), 0

    def add(self, counts: Counts) -> None:
        """Add the counts of some queries: each place of a group adds the same to the expected share."""
        query, group = np.nonzero(counts.relevant)
        start = (np.cumsum(counts.items, axis=1) - counts.items)[query, group]
        size, listed = counts.items[query, group], counts.relevant[query, group]
        share = listed / (size * counts.positives[query])
        np.add.at(self._steps, start, share)
        np.add.at(self._steps, start + size, -share)
        self._queries += len(counts)

    def values(self) -> Floats:
        """(N,) the mean share among the first R = 1..N items."""
        return np.asarray(np.cumsum(np.cumsum(self._steps[:-1])) / max(1, self._queries))

    def factor(self, k: int, target: float) -> float:
        """The smallest F, a multiple of 1 / k from 1 on, at which the mean share among the first F k is ``target``.

        >>> curve = RecallCurve(4)
        >>> curve.add(Counts(np.array([[1, 3]]), np.array([[1, 1]]), None, hamming=True))
        >>> curve.values().round(3).tolist(), curve.factor(2, 0.8)
        ([0.5, 0.667, 0.833, 1.0], 1.5)
        """
        return max(k, int(np.argmax(self.values() >= target - ROUNDING)) + 1) / k

    def arrays(self, k: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Factors F (G,), from 1 to all items, and the mean share among the first F k."""
        values = self.values()
        largest = max(1, len(values) // k)
        whole, grown = np.arange(1, min(WHOLE, largest) + 1), np.geomspace(min(WHOLE, largest), largest, STEPS)
        factors = np.union1d(whole, grown.round().astype(np.int64))
        return factors.astype(np.float64), values[factors * k - 1]


def score_neighbours(
    index: Index,
    query: Codes,
    relaxed: Callable[[], torch.Tensor | None],
    truth: Truth,
    metrics: Sequence[str],
    extra: Mapping[str, Any],
) -> tuple[Evaluation, Arrays]:
    """The metrics of exact neighbors: values of single queries, means, and the curve of every k.

    Args:
        index: The index of the database.
        query: Codes of the queries.
        relaxed: Computes the relaxed codes (Q, K) of the queries; called if a metric compares these with the bits.
        truth: The exact neighbors.
        metrics: Names of metrics, of which others are left out.
        extra: The metrics of plugins.

    Returns:
        The scores; and ``recall_factors@k`` and ``recall_curve@k`` (G,), with ``/asym`` for relaxed codes, and the
        margins ``truth_margin@k`` (Q,).
    """
    parsed = [metric for name in metrics if (metric := parse(name, extra)).by_neighbours]
    per_query, means, arrays = dict[str, Floats](), dict[str, float](), Arrays()
    for part in dict.fromkeys(metric.part for metric in parsed):
        own = [metric for metric in parsed if metric.part == part]
        searched, codes = (index, query) if not part else _asymmetric(index, relaxed())
        for k in sorted({int(metric.cut or 0) for metric in own}):
            named = [metric for metric in own if metric.cut == k]
            found, scores, curve = _scores(searched, codes, truth, k, named) if searched else ({}, {}, {})
            per_query |= found
            means |= {metric.name: scores.get(metric.name, float("nan")) for metric in named}
            arrays |= {f"{name}{part and f'/{part}'}": values for name, values in curve.items()}
            arrays[f"truth_margin@{k}"] = truth.margin(k)
    return Evaluation({name: means[name] for name in metrics if name in means}, per_query, 0), arrays


def _scores(
    index: Index, query: Codes, truth: Truth, k: int, metrics: Sequence[Metric]
) -> tuple[dict[str, Floats], dict[str, float], Arrays]:
    """The scores of single queries, their means with the factors, and the curve of one k, from one pass of counts."""
    prepared, curve = truth.nearest(k), RecallCurve(truth.items)
    base = {metric.base: metric.name for metric in metrics if metric.target is None}
    parts = list[dict[str, Floats]]()
    step = max(CHUNK, PAIRS // max(1, truth.items))  # a distance can prepare all items for each part of the queries
    for start in range(0, len(prepared), step):
        rows = slice(start, start + step)
        counts = index.counts({name: values[rows] for name, values in query.items()}, prepared[rows])
        curve.add(counts)
        parts.append(score(counts, list(base)) if base else {})
    found = {name: np.concatenate([part[given] for part in parts]) for given, name in base.items()}
    means = {name: float(values.mean()) for name, values in found.items()}
    means |= {metric.name: curve.factor(k, metric.target) for metric in metrics if metric.target is not None}
    factors, values = curve.arrays(k)
    return found, means, {f"recall_factors@{k}": factors, f"recall_curve@{k}": values}


def _asymmetric(index: Index, relaxed: torch.Tensor | None) -> tuple[Index | None, Codes]:
    """An index that compares relaxed codes of queries with the stored bits as -1 and +1; None if there are none."""
    stored = index.bits()
    if relaxed is None or stored is None or stored.shape[1] != relaxed.shape[1]:
        return None, {}
    made = Scan(SignedProduct(ASYMMETRIC))
    made.add({ASYMMETRIC: torch.from_numpy(stored)})
    return made, {ASYMMETRIC: relaxed}


def merged(first: Evaluation, second: Evaluation) -> Evaluation:
    """The scores of two evaluations of the same queries; those of queries without a relevant item are of the first."""
    return replace(first, means=first.means | second.means, per_query=first.per_query | second.per_query)
