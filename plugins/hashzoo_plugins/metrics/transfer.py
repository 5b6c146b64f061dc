"""Transfer of codes to a classification task (Sablayrolles, Douze, Usunier & Jegou, ICASSP 2017).

Cite: sablayrolles2017evaluate
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hashzoo import CodeSample

DEFAULT_IMAGES = 10_000  # training images of the classifier, unless a cut-off is given


def transfer(sample: CodeSample, cutoff: int | None) -> float:
    """Accuracy on the codes of the queries of a linear classifier that is trained on labeled codes of the database.

    The hash function is fixed. For classes that it was not trained on, as on ``NAME.unseen``, the accuracy shows
    whether the code separates more than its training classes. The classifier is a logistic regression on -1 and +1,
    L2 with C = 1, trained on ``cutoff`` or 10,000 images (see :func:`proportional_rows`). NaN if an image has several
    labels or none, or if all images have the same class.
    """
    from sklearn.linear_model import LogisticRegression

    if any((labels.sum(1) != 1).any() for labels in (sample.query_labels, sample.database_labels)):
        return math.nan
    query, database = (labels.argmax(1) for labels in (sample.query_labels, sample.database_labels))
    rows = proportional_rows(database, DEFAULT_IMAGES if cutoff is None else cutoff)
    if len(np.unique(database[rows])) < 2:
        return math.nan
    model = LogisticRegression(max_iter=1000).fit(2.0 * sample.database[rows] - 1, database[rows])
    return float((model.predict(2.0 * sample.query - 1) == query).mean())


def proportional_rows(classes: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """At most ``count`` rows, sorted: the first of each class, then classes in proportion to their size.

    >>> proportional_rows(np.array([0, 0, 0, 0, 1, 1]), 4)
    array([0, 1, 2, 4])
    """
    position = np.zeros(len(classes))  # of each row in its class, as a fraction
    for one in np.unique(classes):
        rows = np.flatnonzero(classes == one)
        position[rows] = np.arange(len(rows)) / len(rows)
    return np.sort(np.argsort(position, kind="stable")[:count])
