"""What is relevant to a query: items that share a label, or exact neighbors of vectors or of features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hashzoo.backbone import Backbone
from hashzoo.data.integrity import Inspection
from hashzoo.data.vector_checks import scan_vectors
from hashzoo.data.vectors import ArrayMatrix, Vectors, holds_vectors
from hashzoo.evaluation.metrics import ExtraMetrics, parse
from hashzoo.evaluation.truth import Truth, cached_truth, exact_neighbours
from hashzoo.run import Run
from hashzoo.types import Split, Splits

FEATURES = "cosine"  # the metric of neighbors by features


def largest_k(metrics: Sequence[str], extra: ExtraMetrics) -> int:
    """The largest k of the metrics of exact neighbors; 0 if there is none.

    >>> largest_k(["map@all", "recall@10:f2", "factor@20:0.95"], {})
    20
    """
    parsed = [parse(name, extra) for name in metrics]
    return max((metric.cut or 0 for metric in parsed if metric.by_neighbours), default=0)


def truth_for(data: Splits, inspection: Inspection, backbone: Backbone, k: int, run: Run) -> Truth | None:
    """The exact k nearest items of each query, from the cache if it has them; None if k is 0.

    Args:
        data: Splits of vectors, by their metric; or of images or stored features, by the cosine of these.
        inspection: Its digests identify vectors.
        backbone: The backbone before training.
        k: Neighbors per query.
        run: Loads images, computes features and compares on its device.
    """
    if not k:
        return None
    if holds_vectors(data.database.images):
        about = {"metric": data.metric, **{part: inspection.digests[part] for part in ("database", "query")}}
        return _truth(data.query.images, data.database.images, data.metric, about, k, run)
    query, database = (_features(backbone, split, run) for split in (data.query, data.database))
    about = {"metric": FEATURES} | {
        name: bytes(scan_vectors(side)[0]).hex() for name, side in (("query", query), ("database", database))
    }
    return _truth(query, database, FEATURES, about, k, run)


def _features(backbone: Backbone, split: Split, run: Run) -> Vectors:
    return Vectors(ArrayMatrix(run.features(backbone, split).pooled.cpu().numpy(), "features"), unit=True)


def _truth(query: Vectors, database: Vectors, metric: str, about: dict[str, Any], k: int, run: Run) -> Truth:
    return cached_truth(about, k, lambda: exact_neighbours(query, database, k, metric, run.device))


def truth_facts(truth: Truth, metrics: Sequence[str], extra: ExtraMetrics) -> dict[str, int | float]:
    """For each k, the median margin between the k-th neighbor and the next item, and the queries with a tie there."""
    found: dict[str, int | float] = {}
    for k in sorted({parse(name, extra).cut or 0 for name in metrics if parse(name, extra).by_neighbours}):
        margin = truth.margin(k)
        found |= {f"truth_margin@{k}": float(np.median(margin)), f"truth_ties@{k}": int((margin == 0).sum())}
    return found


def recorded_truth(recorded: Mapping[str, Any], neighbours: str) -> dict[str, Any]:
    """The options of a dataset as keys record them, with the truth if it is not the usual one."""
    return {**recorded, **({"truth": neighbours} if neighbours else {})}
