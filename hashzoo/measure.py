"""One cell: build, fit, encode, index, search, score."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from hashzoo import counting, zoo
from hashzoo.bench import Job, build_backbone, load_data, picture_shape
from hashzoo.cells import Cell
from hashzoo.features import Precomputed, stored
from hashzoo.index import Index
from hashzoo.method import Backbone, Method, NonFiniteError
from hashzoo.metrics import Evaluation, needs_grades, parse, pr_curve, score, summarise
from hashzoo.run import Run, Train
from hashzoo.types import Codes, Split, Splits

NEIGHBOURS = 100  # the search that is timed
CHUNK = 64  # queries counted at a time: bounds the memory of distances that are not integers
LIBRARIES = ("hashzoo", "torch", "torchvision", "timm", "numpy", "numba", "scipy", "scikit-learn")

Report = Callable[[float, dict[str, float]], None]


def measure(job: Job, report: Report | None = None) -> tuple[Cell, dict[str, np.ndarray[Any, Any]]]:
    """The cell of a job, and its per-query arrays. Errors are the caller's to turn into a status."""
    identity = job.identity
    train = Train.model_validate(identity.budget)
    torch.set_num_threads(train.threads)
    counting.set_threads(train.threads)
    house = zoo.load(job.plugins)
    data, left_out = load_data(house, identity.dataset, identity.dataset_options, job.skip_bad_pictures)
    backbone = build_backbone(house, identity.backbone, picture_shape(data), job.backbone_options, identity.seed)
    run = Run(train, identity.seed, to=backbone.input, device=job.device, workers=job.workers, report=report)
    backbone = run.place(backbone)
    if train.backbone == "frozen":
        data, backbone = frozen(data, backbone, run, identity.backbone)
    torch.manual_seed(identity.seed)
    factory = house.method(identity.method).factory
    method: Method = factory(data.setting(identity.bits), backbone, **identity.hyperparameters)
    method.to(run.device)

    started = time.perf_counter()
    method.train()
    method.fit(data.train, run)
    fit_seconds = time.perf_counter() - started

    started = time.perf_counter()
    database = encoded(run, method, data.database, "database")
    query = encoded(run, method, data.query, "query")
    encode_seconds = time.perf_counter() - started
    index = method.index()
    index.add(database)
    started = time.perf_counter()
    index.search(query, NEIGHBOURS)
    search_seconds = time.perf_counter() - started

    extra = house.metric_functions()
    evaluation, curve = scored(index, query, data.query, data.database, data.multilabel, job.metrics, extra)
    facts: dict[str, int | float | str] = {
        "stored_bits": index.stored_bits(),
        "bytes_per_item": index.nbytes() / len(data.database),
        "queries_without_relevant": evaluation.excluded,
        "epochs": train.epochs,
        "bad_pictures": left_out,
        "train": len(data.train),
        "database": len(data.database),
        "queries": len(data.query),
    }
    if data.validation is not None:
        held = encoded(run, method, data.validation, "validation")
        found, _ = scored(index, held, data.validation, data.database, data.multilabel, job.metrics, extra)
        facts |= {f"validation {name}": value for name, value in found.means.items()}
    cell = replace(
        blank(job, "ok"),
        metrics=evaluation.means,
        facts=facts,
        timings={
            "fit_seconds": fit_seconds,
            "encode_per_second": (len(data.database) + len(data.query)) / max(encode_seconds, 1e-9),
            "search_per_second": len(data.query) / max(search_seconds, 1e-9),
        },
        provenance=provenance(run, train),
    )
    return cell, {**evaluation.per_query, **curve}


def blank(job: Job, status: str, reason: str = "") -> Cell:
    """The cell of a job that has a status and a reason, and no numbers."""
    return Cell(
        identity=job.identity,
        benchmark=job.benchmark,
        role=job.role,
        budget_kind=job.budget_kind,
        status=status,
        reason=reason,
        settings=job.settings,
        plugin=job.plugin,
        plugin_version=job.plugin_version,
        contaminated=job.contaminated,
    )


def frozen(data: Splits, backbone: Backbone, run: Run, name: str) -> tuple[Splits, Backbone]:
    """The splits with features in place of pictures, and the stand-in for the backbone; methods do not notice."""

    def features_of(split: Split) -> Split:
        return stored(
            backbone,
            split,
            lambda: (batch.images for batch in run.blank(split)),
            maps=run.train.maps,
            name=name,
            device=run.device,
            precision=run.train.precision,
        )

    parts = {part: features_of(getattr(data, part)) for part in ("train", "database", "query")}
    if data.validation is not None:
        parts["validation"] = features_of(data.validation)
    return replace(data, **parts), Precomputed(backbone)  # type: ignore[arg-type]


def encoded(run: Run, method: Method, split: Split, name: str) -> Codes:
    """The codes of a split, one finite row a picture, or an error that says which code is not."""
    codes = run.encode(method, split)
    if not codes:
        raise ValueError("encode gave no codes: return a dict such as {'code': bits}")
    for key, values in codes.items():
        if len(values) != len(split):
            raise ValueError(f"encode gave {len(values)} rows of {key!r} for the {len(split)} pictures of {name}")
        if values.is_floating_point() and not torch.isfinite(values).all():
            raise NonFiniteError(f"the code {key!r} of the {name} pictures is not finite")
    return codes


def scored(
    index: Index,
    query: Codes,
    queries: Split,
    database: Split,
    multilabel: bool,
    metrics: tuple[str, ...],
    extra: dict[str, Callable[..., Any]],
) -> tuple[Evaluation, dict[str, np.ndarray[Any, Any]]]:
    """The metrics of all queries, and, for integer distances, the mean precision and recall by radius.

    Metrics within a radius are NaN where the index has no integer distances: there is no ball to look into.
    """
    labels = [split.labels.numpy() if multilabel else split.labels.argmax(1).numpy() for split in (queries, database)]
    relevance = counting.relevance(*labels)
    graded = needs_grades(metrics, extra)
    chunks, curves = [], []
    by_radius = [name for name in metrics if parse(name, extra).radius is not None]
    for start in range(0, len(queries), CHUNK):
        rows = slice(start, start + CHUNK)
        counts = index.counts({n: v[rows] for n, v in query.items()}, relevance[rows], graded)
        asked = metrics if counts.integer else [name for name in metrics if name not in by_radius]
        refused = {name: np.full(len(counts), np.nan) for name in by_radius if not counts.integer}
        chunks.append((score(counts, asked, extra) if asked else {}) | refused)
        if counts.integer:
            curves.append(np.stack(pr_curve(counts)))  # (2, q, K + 1)
    evaluation = replace(summarise(chunks), excluded=int((relevance_free(queries, database)).sum()))
    if not curves or evaluation.excluded == len(queries):
        return evaluation, {}
    precision, recall = np.nanmean(np.concatenate(curves, axis=1), axis=1)
    return evaluation, {"pr_precision": precision, "pr_recall": recall}


def relevance_free(queries: Split, database: Split) -> torch.Tensor:
    """(Q,) bool, True for queries that share no label with any item of the database."""
    return ~((queries.labels @ (database.labels.sum(0) > 0).float()) > 0)


def provenance(run: Run, train: Train) -> dict[str, Any]:
    """Where a cell was made, as far as it is no part of its key."""
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    gpu = torch.cuda.get_device_name(run.device) if run.device.type == "cuda" else ""
    return {
        "versions": versions,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": gpu or str(run.device),
        "precision": train.precision,
        "threads": train.threads,
        "cpus": os.cpu_count(),
        "last": run.logged,
    }
