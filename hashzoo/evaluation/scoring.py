"""Encoding of splits, search, and scores of every query."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hashzoo.distance import on_cpu
from hashzoo.errors import NonFiniteError
from hashzoo.evaluation.code_metrics import CodeSample, code_metrics
from hashzoo.evaluation.metrics import GAINS, GROUPS, Evaluation, needs_grades, parse, pr_curve, score, summarize
from hashzoo.hamming.relevance import Relevance, relevance
from hashzoo.hamming.relevance import graded as graded_relevance
from hashzoo.index import Index
from hashzoo.method import Method
from hashzoo.run import Run
from hashzoo.types import Batch, Codes, Split, Splits

CHUNK = 64  # queries counted at a time, which bounds the memory of distances that are not integers
REPORT_SECONDS = 1.0  # between progress reports of an encoding


def encode(run: Run, method: Method, split: Split, size: int | None = None, *, ids: bool = False) -> Codes:
    """Encode a whole split, in its order.

    The method runs in eval mode and without gradients, on batches whose labels are blank.

    Args:
        run: The run that loads images; its device is used.
        method: The fitted method.
        split: N images. Their labels are not passed to the method.
        size: Number of images in a batch; by default at least 256.
        ids: Whether the method receives the ids of the images: only for a database, and for a method that learns the
            codes of single training images.

    Returns:
        Codes by name, each (N, ...) on the CPU. Tensors of dtype bool are bits.
    """
    return concatenate(codes for _, codes in encoding(run, method, split, size, ids=ids))


def encoding(
    run: Run, method: Method, split: Split, size: int | None = None, *, ids: bool = False
) -> Iterator[tuple[int, Codes]]:
    """Like :func:`encode`, batch by batch, for splits that do not fit into memory: number of images, and their codes.

    Every ``REPORT_SECONDS``, the number of encoded images and the rate are reported.
    """
    method.eval()
    done, started = 0, time.monotonic()
    last = started
    for batch in run.blank(split, size, ids=ids):
        with torch.no_grad():
            codes = {name: value.detach().cpu() for name, value in method.encode(batch).items()}
        yield len(batch), codes
        done, now = done + len(batch), time.monotonic()
        if now - last > REPORT_SECONDS:
            last = now
            rate = done / (now - started)
            run.report(run.progress, {"encoded": done, "of": len(split), "images/s": rate})


def relaxed_codes(
    run: Run, method: Method, split: Split, values: Callable[[Method, Batch], Tensor | None] | None = None
) -> Tensor | None:
    """The codes (N, K) of a whole split before binarization; None if the method has none.

    ``values`` gives those of a batch, by default :meth:`hashzoo.Method.relaxed`.
    """
    method.eval()
    parts = []
    for batch in run.blank(split):
        with torch.no_grad():
            relaxed = method.relaxed(batch) if values is None else values(method, batch)
        if relaxed is None:
            return None
        parts.append(relaxed.detach().cpu())
    return torch.cat(parts)


def encode_and_index(run: Run, method: Method, data: Splits, saw_database: bool) -> tuple[Index, Codes]:
    """The index of the method with the codes of the database, and the codes of the queries."""
    index = method.index()
    for codes in encode_batches(run, method, data.database, "database", ids=saw_database):
        index.add(codes)
    return index, concatenate(encode_batches(run, method, data.query, "query"))


def code_sample(method: Method, index: Index, query: Codes, run: Run, data: Splits) -> CodeSample | None:
    """The codes for metrics of codes; None if the index does not store bits."""
    queries = method.index()
    queries.add(query)
    bits, stored = queries.bits(), index.bits()
    if bits is None or stored is None:
        return None
    labels = data.query.labels.numpy(), data.database.labels.numpy()
    relaxed = relaxed_codes(run, method, data.query)
    return CodeSample(bits, stored, *labels, None if relaxed is None else relaxed.numpy())


def encode_batches(run: Run, method: Method, split: Split, name: str, *, ids: bool = False) -> Iterator[Codes]:
    """The codes of a split, batch by batch.

    Raises ValueError or NonFiniteError if they are not one finite row for each image; ``name`` is that of the split.
    """
    for size, codes in encoding(run, method, split, ids=ids):
        if not codes:
            raise ValueError("encode returned no codes; return a dict such as {'code': bits}")
        for key, values in codes.items():
            if len(values) != size:
                raise ValueError(f"encode returned {len(values)} rows of {key!r} for {size} {name} images")
            if values.is_floating_point() and not torch.isfinite(values).all():
                raise NonFiniteError(f"the code {key!r} of the {name} images is not finite")
        yield codes


def concatenate(parts: Iterable[Codes]) -> Codes:
    """The codes of successive batches as one."""
    batches = list(parts)
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def query_codes(method: Method, query: Codes, data: Splits, device: torch.device | str = "cpu") -> dict[str, Codes]:
    """The codes (Q, ...) of the queries on the CPU, by the part of a metric's name that selects them.

    The part "" is that of the method, which composes codes on its ``device``.
    """
    if data.pairs is None:
        return {"": query}
    first, second = ({n: v[rows] for n, v in query.items()} for rows in (data.pairs.first, data.pairs.second))
    sides = [{name: values.to(device) for name, values in side.items()} for side in (first, second)]
    composed, bitwise = method.compose(data.pairs.operation, *sides), method.bitwise(data.pairs.operation, *sides)
    return {"": on_cpu(composed), "first": first, "second": second, "bitwise": on_cpu(bitwise)}


def class_groups(data: Splits) -> dict[str, np.ndarray[Any, Any]]:
    """Masks (Q,) of the queries of the classes with the most, a medium number, and the fewest training images.

    Each group is a third of the classes; earlier groups have one more if the number is not a multiple of three.
    """
    order = np.argsort(-data.setting(1).class_counts.numpy(), kind="stable")
    classes = data.query.labels.argmax(1).numpy()
    return {name: np.isin(classes, third) for name, third in zip(GROUPS, np.array_split(order, 3), strict=True)}


def score_queries(
    index: Index,
    queries: dict[str, Codes],
    data: Splits,
    metrics: tuple[str, ...],
    extra: dict[str, Callable[..., Any]],
) -> tuple[Evaluation, dict[str, np.ndarray[Any, Any]]]:
    """The metrics of all queries by labels, and the arrays by distance of :func:`evaluate_index`.

    Metrics of codes and of exact neighbors are left out; data without labels has neither scores nor arrays here.
    """
    ranking = [name for name in metrics if name not in code_metrics(metrics, extra)]
    parsed = {name: metric for name in ranking if not (metric := parse(name, extra)).by_neighbours}
    if not data.labelled:
        return Evaluation({}, {}, 0), {}
    found: dict[tuple[str, str], Evaluation] = {}
    curve: dict[str, np.ndarray[Any, Any]] = {}
    for part, gain in [(part, gain) for gain in ("", *GAINS) for part in queries]:
        kind = part, gain
        names = [m.base for m in parsed.values() if (m.part if m.part not in GROUPS else "", m.gain) == kind]
        if names or kind == ("", ""):
            distinct = tuple(dict.fromkeys(names or ["map@all"]))
            found[kind], by_distance = evaluate_index(index, queries[part], data, distinct, extra, gain)
            curve = curve or by_distance
    members = class_groups(data) if any(m.part in GROUPS for m in parsed.values()) else {}
    per_query = {}
    for name, metric in parsed.items():
        if metric.part in GROUPS:
            per_query[name] = np.where(members[metric.part], found["", ""].per_query[metric.base], np.nan)
        else:
            per_query[name] = found[metric.part, metric.gain].per_query[metric.base]
    return replace(summarize([per_query]), excluded=found["", ""].excluded), curve


def split_relevance(data: Splits) -> Relevance:
    """The labels of the queries, composed ones if there are any, and of the database."""
    target = data.query.labels if data.pairs is None else data.pairs.labels
    labels = [side if data.multilabel else side.argmax(1) for side in (target, data.database.labels)]
    return relevance(*(side.numpy() for side in labels), multi_hot=data.multilabel)


def composed_relevance(data: Splits, gain: str, rows: slice) -> tuple[Relevance, np.ndarray[Any, Any] | None]:
    """The grades of the database for some composed queries by a gain of ``GAINS``, and the gains of these grades.

    For "strict", the grade is the number of shared labels, or 0 for an item with a label that the difference removes:
    one of the second image that the query does not have. For "jaccard", the grades number the different indices.
    """
    target = (data.query.labels if data.pairs is None else data.pairs.labels)[rows]
    database = data.database.labels
    shared = (target @ database.T).numpy().astype(np.int64)  # (Q, N)
    if gain == "strict":
        if data.pairs is not None and data.pairs.operation == "difference":
            removed = (data.query.labels[data.pairs.second[rows]] > target).to(target)
            shared[(removed @ database.T).numpy() > 0] = 0
        return graded_relevance(shared, max(1, int(shared.max()))), None
    either = target.sum(1)[:, None].numpy() + database.sum(1)[None].numpy() - shared
    gains, levels = np.unique(np.round(shared / np.maximum(either, 1), 12), return_inverse=True)
    if gains[0] > 0:  # grade 0 is that of items that share nothing
        gains, levels = np.concatenate([[0.0], gains]), levels + 1
    return graded_relevance(levels.reshape(shared.shape), max(1, len(gains) - 1)), gains


def evaluate_index(
    index: Index,
    query: Codes,
    data: Splits,
    metrics: tuple[str, ...],
    extra: dict[str, Callable[..., Any]],
    gain: str = "",
) -> tuple[Evaluation, dict[str, np.ndarray[Any, Any]]]:
    """The metrics of one kind of query with one kind of grade, and, for integer distances, arrays (K + 1,) by distance.

    ``pr_precision`` and ``pr_recall`` are means within each radius; ``distances_relevant`` and ``distances_other`` are
    the distributions of the distance between a query and an item that share a label, or do not. Metrics within a radius
    are NaN if the index does not have integer distances.
    """
    prepared = split_relevance(data)
    graded = needs_grades(metrics, extra)
    by_radius = [name for name in metrics if parse(name, extra).radius is not None]
    chunks, curves, excluded, pairs = [], [], 0, np.zeros(())  # (2, K + 1)
    for start in range(0, len(prepared), CHUNK):
        rows = slice(start, start + CHUNK)
        asked, gains = composed_relevance(data, gain, rows) if gain else (prepared[rows], None)
        counts = index.counts({n: v[rows] for n, v in query.items()}, asked, graded)
        counts = replace(counts, gains=gains)
        usable = metrics if counts.hamming else [name for name in metrics if name not in by_radius]
        refused = {name: np.full(len(counts), np.nan) for name in by_radius if not counts.hamming}
        chunks.append((score(counts, usable, extra) if usable else {}) | refused)
        excluded += int((counts.positives == 0).sum())
        if counts.hamming:
            curves.append(np.stack(pr_curve(counts)))  # (2, q, K + 1)
            pairs = pairs + np.stack([counts.relevant, counts.items - counts.relevant]).sum(1)
    evaluation = replace(summarize(chunks), excluded=excluded)
    if not curves or excluded == len(prepared):
        return evaluation, {}
    precision, recall = np.nanmean(np.concatenate(curves, axis=1), axis=1)
    relevant, other = pairs / np.maximum(pairs.sum(1, keepdims=True), 1)
    curves_by_radius = {"pr_precision": precision, "pr_recall": recall}
    return evaluation, curves_by_radius | {"distances_relevant": relevant, "distances_other": other}
