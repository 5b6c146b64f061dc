"""Encode splits, search, and score every query."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hashzoo.errors import NonFiniteError
from hashzoo.evaluation.code_metrics import CodeSample, code_metrics
from hashzoo.evaluation.metrics import GROUPS, Evaluation, needs_grades, parse, pr_curve, score, summarise
from hashzoo.hamming import counting
from hashzoo.index import Index
from hashzoo.method import Method
from hashzoo.run import Run
from hashzoo.types import Codes, Split, Splits

CHUNK = 64  # queries counted at a time: bounds the memory of distances that are not integers


def encode(run: Run, method: Method, split: Split, size: int | None = None, *, ids: bool = False) -> Codes:
    """Codes of a whole split, in its order.

    The method runs in eval mode, without gradient, on batches whose labels are blank.

    Args:
        run: The run that loads images; its device is used.
        method: The fitted method.
        split: N images. Their labels are not passed on.
        size: Images a batch; by default at least 256.
        ids: Whether the method receives the ids of the images: for a database, and a method that learns the codes
            of single training images.

    Returns:
        Codes by name, each (N, ...) on the CPU. Tensors of dtype bool are bits.
    """
    return concatenate(codes for _, codes in encoding(run, method, split, size, ids=ids))


def encoding(
    run: Run, method: Method, split: Split, size: int | None = None, *, ids: bool = False
) -> Iterator[tuple[int, Codes]]:
    """Like :func:`encode`, batch by batch: the number of images and their codes, for splits that do not fit in memory.

    Progress is reported every ``OFTEN`` seconds: images encoded, of how many, and how many a second.
    """
    method.eval()
    done, started = 0, time.monotonic()
    last = started
    for batch in run.blank(split, size, ids=ids):
        with torch.no_grad():
            codes = {name: value.detach().cpu() for name, value in method.encode(batch).items()}
        yield len(batch), codes
        done, now = done + len(batch), time.monotonic()
        if now - last > OFTEN:
            last = now
            rate = done / (now - started)
            run.report(run.progress, {"encoded": done, "of": len(split), "images/s": rate})


def relaxed_codes(run: Run, method: Method, split: Split) -> Tensor | None:
    """Relaxed codes (N, K) of a whole split, before they become bits; None for a method that has none."""
    method.eval()
    parts = []
    for batch in run.blank(split):
        with torch.no_grad():
            relaxed = method.relaxed(batch)
        if relaxed is None:
            return None
        parts.append(relaxed.detach().cpu())
    return torch.cat(parts)


def encode_and_index(run: Run, method: Method, data: Splits, saw_database: bool) -> tuple[Index, Codes]:
    """The database's codes in the method's index, as they are made, and the queries' codes."""
    index = method.index()
    for codes in encode_batches(run, method, data.database, "database", ids=saw_database):
        index.add(codes)
    return index, concatenate(encode_batches(run, method, data.query, "query"))


def code_sample(method: Method, index: Index, query: Codes, run: Run, data: Splits) -> CodeSample | None:
    """What a metric of codes looks at; None where the index stores no bits."""
    asking = method.index()
    asking.add(query)
    bits, stored = asking.bits(), index.bits()
    if bits is None or stored is None:
        return None
    labels = data.query.labels.numpy(), data.database.labels.numpy()
    relaxed = relaxed_codes(run, method, data.query)
    return CodeSample(bits, stored, *labels, None if relaxed is None else relaxed.numpy())


def encode_batches(run: Run, method: Method, split: Split, name: str, *, ids: bool = False) -> Iterator[Codes]:
    """The codes of a split, batch by batch, one finite row an image, or an error that says which code is not."""
    for size, codes in encoding(run, method, split, ids=ids):
        if not codes:
            raise ValueError("encode gave no codes: return a dict such as {'code': bits}")
        for key, values in codes.items():
            if len(values) != size:
                raise ValueError(f"encode gave {len(values)} rows of {key!r} for {size} images of {name}")
            if values.is_floating_point() and not torch.isfinite(values).all():
                raise NonFiniteError(f"the code {key!r} of the {name} images is not finite")
        yield codes


def concatenate(parts: Iterable[Codes]) -> Codes:
    """Codes of successive batches as one."""
    listed = list(parts)
    return {name: torch.cat([part[name] for part in listed]) for name in listed[0]}


def query_codes(method: Method, query: Codes, data: Splits) -> dict[str, Codes]:
    """The codes that are asked with, by the part of a metric's name that stands for them; "" is the method's own."""
    if data.pairs is None:
        return {"": query}
    first, second = ({n: v[rows] for n, v in query.items()} for rows in (data.pairs.first, data.pairs.second))
    operation = data.pairs.operation
    composed = method.compose(operation, first, second)
    return {"": composed, "first": first, "second": second, "bitwise": method.bitwise(operation, first, second)}


def class_groups(data: Splits) -> dict[str, np.ndarray[Any, Any]]:
    """(Q,) bool by name: which queries are of the classes with most, middling and fewest training images.

    Each group is a third of the classes, the earlier groups one more where they do not divide.
    """
    order = np.argsort(-data.setting(1).class_counts.numpy(), kind="stable")
    classes = data.query.labels.argmax(1).numpy()
    return {name: np.isin(classes, third) for name, third in zip(GROUPS, np.array_split(order, 3), strict=True)}


def score_queries(
    index: Index,
    asked: dict[str, Codes],
    data: Splits,
    metrics: tuple[str, ...],
    extra: dict[str, Callable[..., Any]],
) -> tuple[Evaluation, dict[str, np.ndarray[Any, Any]]]:
    """The metrics of all queries but for those of codes, and what :func:`query_codes` finds by distance."""
    ranking = [name for name in metrics if name not in code_metrics(metrics, extra)]
    read = {name: parse(name, extra) for name in ranking}
    found: dict[str, Evaluation] = {}
    curve: dict[str, np.ndarray[Any, Any]] = {}
    for part, codes in asked.items():
        mine = [m.base for m in read.values() if (m.part if m.part not in GROUPS else "") == part]
        if mine or not part:
            found[part], drawn = evaluate_index(index, codes, data, tuple(dict.fromkeys(mine or ["map@all"])), extra)
            curve = curve or drawn
    members = class_groups(data) if any(m.part in GROUPS for m in read.values()) else {}
    per_query = {}
    for name, metric in read.items():
        if metric.part in GROUPS:
            per_query[name] = np.where(members[metric.part], found[""].per_query[metric.base], np.nan)
        else:
            per_query[name] = found[metric.part].per_query[metric.base]
    return replace(summarise([per_query]), excluded=found[""].excluded), curve


def evaluate_index(
    index: Index, query: Codes, data: Splits, metrics: tuple[str, ...], extra: dict[str, Callable[..., Any]]
) -> tuple[Evaluation, dict[str, np.ndarray[Any, Any]]]:
    """The metrics of one way to ask, and, for integer distances, arrays (K + 1,) by distance.

    ``pr_precision`` and ``pr_recall`` are means within each radius; ``distances_relevant`` and ``distances_other`` the
    shares, among all pairs of a query and an item that share a label or do not, of those at each distance.
    Metrics within a radius are NaN where the index has no integer distances: there is no ball to look into.
    """
    wanted = data.query.labels if data.pairs is None else data.pairs.labels
    labels = [side if data.multilabel else side.argmax(1) for side in (wanted, data.database.labels)]
    relevance = counting.relevance(*(side.numpy() for side in labels))
    graded = needs_grades(metrics, extra)
    by_radius = [name for name in metrics if parse(name, extra).radius is not None]
    chunks, curves, excluded, pairs = [], [], 0, np.zeros(())  # (2, K + 1)
    for start in range(0, len(wanted), CHUNK):
        rows = slice(start, start + CHUNK)
        counts = index.counts({n: v[rows] for n, v in query.items()}, relevance[rows], graded)
        usable = metrics if counts.integer else [name for name in metrics if name not in by_radius]
        refused = {name: np.full(len(counts), np.nan) for name in by_radius if not counts.integer}
        chunks.append((score(counts, usable, extra) if usable else {}) | refused)
        excluded += int((counts.positives == 0).sum())
        if counts.integer:
            curves.append(np.stack(pr_curve(counts)))  # (2, q, K + 1)
            pairs = pairs + np.stack([counts.relevant, counts.items - counts.relevant]).sum(1)
    evaluation = replace(summarise(chunks), excluded=excluded)
    if not curves or excluded == len(wanted):
        return evaluation, {}
    precision, recall = np.nanmean(np.concatenate(curves, axis=1), axis=1)
    relevant, other = pairs / np.maximum(pairs.sum(1, keepdims=True), 1)
    drawn = {"pr_precision": precision, "pr_recall": recall}
    return evaluation, drawn | {"distances_relevant": relevant, "distances_other": other}


OFTEN = 1.0  # seconds between reports on images that are being encoded
