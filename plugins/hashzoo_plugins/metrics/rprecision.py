"""Precision at the number of relevant items."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hashzoo import Counts


def rprecision(counts: Counts, cutoff: int | None) -> NDArray[np.float64]:
    """Precision among the first N+ items, N+ being the relevant ones of the query; ties in expectation.

    ``cutoff`` is not used: the cut-off is each query's own. (Q,), NaN for a query without a relevant item.

    >>> counts = Counts(np.array([[1, 2, 2]]), np.array([[1, 1, 0]]), None, True)
    >>> rprecision(counts, None)
    array([0.75])
    """
    positives = counts.positives  # (Q,)
    before = counts.items.cumsum(1) - counts.items  # (Q, G) items nearer than the group
    taken = np.clip(positives[:, None] - before, 0, counts.items)  # (Q, G) of the group inside the cut
    share = np.divide(counts.relevant, counts.items, out=np.zeros(taken.shape), where=counts.items > 0)
    with np.errstate(invalid="ignore"):
        return np.asarray((taken * share).sum(1) / positives)
