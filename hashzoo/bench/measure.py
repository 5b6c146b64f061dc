"""One cell: build, fit, encode, index, search, score."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hashzoo.bench.examples import samples
from hashzoo.bench.frozen_features import Freezer, about
from hashzoo.bench.job import Job, blank, load_job_data, uses_stored_features
from hashzoo.bench.selection import BestState
from hashzoo.data.split_file import split_digest
from hashzoo.errors import EnvironmentFailure
from hashzoo.evaluation.code_metrics import code_metrics, evaluate_codes
from hashzoo.evaluation.scoring import (
    code_sample,
    concatenate,
    encode_and_index,
    encode_batches,
    query_codes,
    score_queries,
)
from hashzoo.method import Method
from hashzoo.registry import saved_method, zoo
from hashzoo.registry.build import build_backbone, image_shape
from hashzoo.registry.saved_method import Recipe
from hashzoo.registry.source import code_digest
from hashzoo.results import provenance
from hashzoo.results.cell import Cell
from hashzoo.run import Run
from hashzoo.training.budget import Budget
from hashzoo.training.checkpoints import Checkpoints
from hashzoo.training.distributed import ProcessGroup
from hashzoo.training.feature_store import FrozenBackbone, state_digest
from hashzoo.training.process_state import deterministic, limit_threads, preserve_process_state
from hashzoo.types import Report, Splits

NEIGHBOURS = 100  # of each query in the search that is timed
TIMED = 100  # queries of that search
IDS = 1 << 18  # ids looked up at a time


def measure(
    job: Job,
    report: Report | None = None,
    keep: Path | None = None,
    *,
    checkpoints: Checkpoints | None = None,
    process_group: ProcessGroup | None = None,
) -> tuple[Cell, dict[str, np.ndarray[Any, Any]]]:
    """The cell of a job, and its per-query arrays. Errors are the caller's to turn into a status.

    With ``keep``, the trained method is written there (see :mod:`hashzoo.registry.saved_method`). Of several processes
    that train together, ``process_group``, the first alone encodes and scores; what the others return says nothing.
    The process is left as it was found: see :func:`hashzoo.training.process_state.preserve_process_state`.
    """
    with preserve_process_state(), deterministic(job.deterministic):
        return _measured(job, report, keep, checkpoints, process_group or ProcessGroup())


def _measured(
    job: Job, report: Report | None, keep: Path | None, checkpoints: Checkpoints | None, together: ProcessGroup
) -> tuple[Cell, dict[str, np.ndarray[Any, Any]]]:
    begun = time.perf_counter()
    identity = job.identity
    train = Budget.model_validate(identity.budget)
    limit_threads(train.threads)
    house = zoo.load_plugins(job.plugins)
    data, inspection = load_job_data(job, house)
    shape = image_shape(data)
    backbone = build_backbone(house, identity.backbone, shape, job.backbone_options, identity.seed)
    run = Run(
        train,
        identity.seed,
        to=backbone.input,
        device=job.device,
        workers=job.workers,
        report=report,
        process_group=together,
        checkpoints=checkpoints,
    )
    if run.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(run.device)
    entry, freezer = house.method(identity.method), None
    if code_digest(entry.factory, house.backbone(identity.backbone).factory) != identity.code:
        raise EnvironmentFailure(
            f"the code of {identity.method} or of its backbone is not what the sweep was planned with; run the command "
            "again, with the same hashzoo and plugins on every machine"
        )
    if uses_stored_features(train, entry):
        freezer = Freezer(run, backbone, about(job, house))
        weights = freezer.weights
        data, backbone = freezer.frozen(data, inspection)
    else:
        weights = state_digest(backbone)
        backbone = run.place(backbone)
        backbone = backbone if train.backbone == "full" else FrozenBackbone(backbone, train.maps)
    for seed in (torch.manual_seed, np.random.seed, random.seed):  # a stranger may draw from any of them
        seed(identity.seed % 2**32)
    method: Method = entry.factory(data.setting(identity.bits), backbone, **identity.hyperparameters)
    method.to(run.device)

    extra = house.metric_functions()
    selects = bool(train.select) and together.rank == 0
    chosen = BestState(method, run, data, data.validation, extra) if selects and data.validation else None
    started = time.perf_counter()
    method.train()
    with together.sync_batch_norm():
        method.fit(data.train, run)
    together.finish(method)
    if together.rank:
        return blank(job, "ok"), {}
    fit_seconds = time.perf_counter() - started + (checkpoints.seconds if checkpoints else 0.0)
    fit_seconds -= (freezer.seconds if freezer else 0.0) + (chosen.seconds if chosen else 0.0)
    if keep is not None:
        setting = data.setting(identity.bits)
        recipe = Recipe(identity.key, setting, data.class_names, shape, job.backbone_options, job.plugins)
        saved_method.write(keep, method, recipe)

    started = time.perf_counter()
    index, query = encode_and_index(run, method, data, entry.card.saw_database)
    encode_seconds = time.perf_counter() - started
    asked = query_codes(method, query, data)
    index.search({name: value[:1] for name, value in asked[""].items()}, NEIGHBOURS)  # loads what is compiled
    few = {name: value[:TIMED] for name, value in asked[""].items()}
    started = time.perf_counter()
    index.search(few, NEIGHBOURS)
    search_seconds = time.perf_counter() - started

    evaluation, curve = score_queries(index, asked, data, job.metrics, extra)
    curve |= samples(index, asked[""], len(data.database))
    of = code_metrics(job.metrics, extra)
    evaluation.means.update(evaluate_codes(code_sample(method, index, query, run, data) if of else None, of))
    facts: dict[str, int | float | str] = {
        "stored_bits": index.stored_bits(),
        "bytes_per_item": index.nbytes() / len(data.database),
        "queries_without_relevant": evaluation.excluded,
        "epochs": train.epochs,
        "bad_pictures": inspection.left_out,
        **split_facts(data),
        "marks": marks(method, entry.card.saw_database, data),
    }
    if data.validation is not None and data.pairs is None:
        held = {"": concatenate(encode_batches(run, method, data.validation, "validation"))}
        found, _ = score_queries(index, held, replace(data, query=data.validation), job.metrics, extra)
        facts |= {f"validation {name}": value for name, value in found.means.items()}
    if chosen is not None and chosen.epoch:
        chosen.load_best()
        index, query = encode_and_index(run, method, data, entry.card.saw_database)
        found, _ = score_queries(index, query_codes(method, query, data), data, job.metrics, extra)
        evaluation.means.update({f"{name}/selected": value for name, value in found.means.items()})
        evaluation.per_query.update({f"{name}/selected": values for name, values in found.per_query.items()})
        again = evaluate_codes(code_sample(method, index, query, run, data) if of else None, of)
        evaluation.means.update({f"{name}/selected": value for name, value in again.items()})
        facts |= {"selected_epoch": chosen.epoch, f"selected validation {train.select}": chosen.best}
    plain = blank(job, "ok")
    cell = replace(
        plain,
        metrics=evaluation.means,
        facts=facts,
        timings={
            "fit_seconds": fit_seconds,
            "encode_per_second": (len(data.database) + len(data.query)) / max(encode_seconds, 1e-9),
            "search_per_second": len(next(iter(few.values()))) / max(search_seconds, 1e-9),
        },
        provenance={
            **plain.provenance,
            **provenance.machine(run.device),
            "batch": min(train.batch, len(data.train)),
            "weights": weights[:16],
            "trained": state_digest(method)[:16],
            "last": run.logged,
            **provenance.spent(time.perf_counter() - begun, run.device),
            "resumed_after_epoch": checkpoints.epoch if checkpoints else 0,
        },
    )
    return cell, {**evaluation.per_query, **curve}


def split_facts(data: Splits) -> dict[str, int | str]:
    """What a row says of its data: sizes, what lies in what, and the digest of who is in which part."""
    found: dict[str, int | str] = {part: len(split) for part, split in data.parts().items()}
    found["queries"] = found.pop("query") if data.pairs is None else len(data.pairs)
    unlabelled = int((data.query.labels.sum(1) == 0).sum())
    inside = int(among(data.train.ids.numpy(), data.database.ids.numpy()).sum())
    return {
        **found,
        "train_in_database": inside,
        "unlabelled_queries": unlabelled,
        "split": split_digest(data),
        "source": data.source,
    }


def among(few: NDArray[np.int64], many: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(n,) which of a few ids are among many, of which no copy is made.

    >>> among(np.array([3, 1, 3]), np.array([5, 3, 2])).tolist()
    [True, False, True]
    """
    known, which = np.unique(few, return_inverse=True)
    found = np.zeros(len(known), bool)
    for start in range(0, len(many) if len(known) else 0, IDS):
        ids = many[start : start + IDS]
        at = np.searchsorted(known, ids).clip(max=len(known) - 1)
        found[at[known[at] == ids]] = True
    return found[which]


def marks(method: Method, saw_database: bool, data: Splits) -> str:
    """What the row of a method must say: its own mark, and whether labels of database images made their codes."""
    learned = saw_database and bool(among(data.train.ids.numpy(), data.database.ids.numpy()).any())
    return ", ".join(filter(None, [method.mark, "learned database codes" if learned else ""]))
