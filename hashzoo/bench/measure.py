"""One cell: build, fit, encode, index, search, score."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hashzoo.backbone import Backbone
from hashzoo.bench.dropout import add_dropout
from hashzoo.bench.examples import samples
from hashzoo.bench.facts import marks, split_facts
from hashzoo.bench.frozen_features import Freezer, about
from hashzoo.bench.job import Job, blank, load_job_data, load_zoo, uses_stored_features
from hashzoo.bench.quantization import add_quantization
from hashzoo.bench.selection import BestState
from hashzoo.bench.truth import largest_k, truth_facts, truth_for
from hashzoo.data.integrity import Inspection
from hashzoo.data.vectors import holds_vectors
from hashzoo.errors import EnvironmentFailure
from hashzoo.evaluation.chance import expected_scores, has_chance, largest_error, standard_error
from hashzoo.evaluation.code_metrics import code_metrics, code_use, evaluate_codes
from hashzoo.evaluation.metrics import Evaluation, higher_is_better, parse
from hashzoo.evaluation.recall import merged, score_neighbours
from hashzoo.evaluation.scoring import (
    code_sample,
    concatenate,
    encode_and_index,
    encode_batches,
    query_codes,
    relaxed_codes,
    score_queries,
    split_relevance,
)
from hashzoo.evaluation.truth import Truth
from hashzoo.hamming.relevance import Relevance
from hashzoo.index import Index
from hashzoo.method import Method, values_of_bits
from hashzoo.registry import saved_method
from hashzoo.registry.build import build_backbone, image_shape
from hashzoo.registry.nested import build_method, keep_prefix
from hashzoo.registry.saved_method import Recipe
from hashzoo.registry.source import code_digest
from hashzoo.registry.zoo import Entry, Zoo
from hashzoo.results import provenance
from hashzoo.results.cell import Cell
from hashzoo.results.warnings import CLASSES, COMMONEST, DISTINCT, MARGIN, chance_facts
from hashzoo.run import Run
from hashzoo.training.averaging import WeightAverage
from hashzoo.training.budget import Budget
from hashzoo.training.checkpoints import Checkpoints
from hashzoo.training.cpu_fallback import cpu_fallback
from hashzoo.training.distributed import ProcessGroup
from hashzoo.training.feature_store import FrozenBackbone, state_digest
from hashzoo.training.freezing import freeze_stages
from hashzoo.training.process_state import deterministic, limit_threads, preserve_process_state
from hashzoo.types import Codes, Report, Splits

NEIGHBOURS = 100  # of each query in the search that is timed
TIMED = 100  # queries of that search

Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Setup:
    """Everything that a fit needs: data, backbone, run and the method's entry in the catalog.

    ``freezer`` is set if features of a frozen backbone replace the images; ``weights`` is the digest of the backbone.
    ``truth`` holds the exact neighbors if a metric needs them.
    """

    job: Job
    budget: Budget
    entry: Entry
    data: Splits
    shape: tuple[int, int, int]  # of the images as they are stored
    inspection: Inspection
    backbone: Backbone
    weights: str
    run: Run
    freezer: Freezer | None
    zoo: Zoo
    truth: Truth | None = None

    @property
    def extra(self) -> dict[str, Callable[..., Any]]:
        """The metrics of plugins."""
        return self.zoo.metric_functions()


@dataclass(frozen=True)
class Fitted:
    """A trained method, the best state by validation if there is one, and the seconds of training."""

    method: Method
    best: BestState | None
    seconds: float


def measure(
    job: Job,
    report: Report | None = None,
    keep: Path | None = None,
    *,
    checkpoints: Checkpoints | None = None,
    process_group: ProcessGroup | None = None,
) -> tuple[Cell, Arrays]:
    """Measure one cell in this process.

    The process is restored afterwards: see :func:`hashzoo.training.process_state.preserve_process_state`.

    Args:
        job: The cell.
        report: Receives the progress, 0..1, and the latest logged values.
        keep: Where to write the trained method; None does not write it.
        checkpoints: Where a fit that was interrupted resumes from.
        process_group: The processes that train together. Only the first one encodes and scores; the cells of the
            others have no scores.

    Returns:
        The cell, and its per-query arrays.

    Raises:
        Exception: Whatever the method raises; the caller turns it into a status.
    """
    fallback = cpu_fallback(torch.device(job.execution.device))
    with preserve_process_state(), deterministic(job.execution.deterministic), fallback:
        return _measure(job, report, keep, checkpoints, process_group or ProcessGroup())


def _measure(
    job: Job, report: Report | None, keep: Path | None, checkpoints: Checkpoints | None, group: ProcessGroup
) -> tuple[Cell, Arrays]:
    begun = time.perf_counter()
    setup = _set_up(job, report, checkpoints, group)
    fitted = _fit(setup, checkpoints, group)
    if group.rank:
        return blank(job, "ok"), {}
    if keep is not None:
        setting, data = setup.data.setting(job.identity.bits), setup.data
        options, plugins = job.inputs.backbone_options, job.inputs.plugins
        recipe = Recipe(job.identity.key, setting, data.class_names, setup.shape, options, plugins, data.metric)
        saved_method.write(keep, fitted.method, recipe)
    cell, arrays = _score(setup, fitted)
    cost = provenance.resource_usage(time.perf_counter() - begun, setup.run.device)
    origin = {**cell.provenance, **cost, "resumed_after_epoch": checkpoints.epoch if checkpoints else 0}
    return replace(cell, provenance=origin), arrays


def _set_up(job: Job, report: Report | None, checkpoints: Checkpoints | None, group: ProcessGroup) -> Setup:
    """Load plugins and data, build the backbone and the run, and freeze the backbone if the budget says so."""
    identity = job.identity
    budget = Budget.model_validate(identity.budget)
    limit_threads(budget.threads)
    zoo = load_zoo(job.inputs)
    data, inspection = load_job_data(job, zoo)
    shape = image_shape(data)
    backbone = build_backbone(zoo, identity.backbone, shape, job.inputs.backbone_options, identity.seed)
    run = Run(
        budget,
        identity.seed,
        to=backbone.input,
        device=job.execution.device,
        workers=job.execution.workers,
        process_group=group,
        checkpoints=checkpoints,
    )
    if report is not None:
        run.report = report
    if run.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(run.device)
    entry, freezer = _entry(job, zoo), None
    if uses_stored_features(budget, entry) and not holds_vectors(data.train.images):  # which are features already
        freezer = Freezer(run, backbone, about(job, zoo))
        weights = freezer.weights
        data, backbone = freezer.frozen(data, inspection)
    else:
        weights = state_digest(backbone)
        if budget.freeze:
            to = backbone.input
            side = to.size or shape[1]
            image = torch.zeros(1, to.channels or shape[0], side, side if to.size else shape[2])
            freeze_stages(backbone, int(budget.freeze.partition(":")[2]), image)
        if budget.compile and budget.backbone == "full":  # cached features must not depend on it
            backbone.compile()
        backbone = run.place(backbone)
        backbone = backbone if budget.backbone == "full" else FrozenBackbone(backbone, budget.maps)
    setup = Setup(job, budget, entry, data, shape, inspection, backbone, weights, run, freezer, zoo)
    k = 0 if group.rank else largest_k(job.metrics, setup.extra)
    return replace(setup, truth=truth_for(data, inspection, backbone, k, run))


def _entry(job: Job, zoo: Zoo) -> Entry:
    """The entry of the method. EnvironmentFailure if its code is not the code that the job was planned with."""
    identity = job.identity
    entry = zoo.method(identity.method)
    given = identity.method in job.inputs.definitions  # it travelled with the job
    if not given and code_digest(entry.factory, zoo.backbone(identity.backbone).factory) != identity.code:
        raise EnvironmentFailure(
            f"the code of {identity.method} or of its backbone changed after the sweep was planned; run the command "
            "again, with the same hashzoo and plugins on every machine"
        )
    return entry


def _fit(setup: Setup, checkpoints: Checkpoints | None, group: ProcessGroup) -> Fitted:
    """Build the method and train it; ``seconds`` leaves out validation and the extraction of features."""
    identity, run, data = setup.job.identity, setup.run, setup.data
    for seed in (torch.manual_seed, np.random.seed, random.seed):  # a plugin can draw from any of them
        seed(identity.seed % 2**32)
    setting = data.setting(identity.bits)
    method = build_method(setup.entry, setting, setup.backbone, identity.hyperparameters, setup.budget)
    method.to(run.device)
    quantization = add_quantization(method, identity.method, setup.budget, setup.zoo, setting)
    dropout = add_dropout(method, identity.method, setup.budget)
    selects = bool(setup.budget.select) and group.rank == 0 and data.validation is not None
    best = BestState(method, run, data, setup.extra) if selects else None
    shared = checkpoints if setup.budget.nested else None  # with the cells of the other lengths
    if shared and shared.restore_finished(run, method):
        keep_prefix(method, identity.bits)
        return Fitted(method, best, shared.seconds)
    run.average = WeightAverage(method, setup.budget.ema) if setup.budget.ema else None
    started = time.perf_counter()
    method.train()
    with group.sync_batch_norm():
        method.fit(data.train, run)
    if run.average is not None:
        run.average.load()
    group.finish(method)
    if quantization:
        quantization.require_use()
    if dropout:
        dropout.require_use()
    seconds = time.perf_counter() - started + (checkpoints.seconds if checkpoints else 0.0)
    seconds -= (setup.freezer.seconds if setup.freezer else 0.0) + (best.seconds if best else 0.0)
    if shared and group.rank == 0:
        shared.save_finished(run, method, seconds)
    keep_prefix(method, identity.bits)
    return Fitted(method, best, seconds)


def _score(setup: Setup, fitted: Fitted) -> tuple[Cell, Arrays]:
    """Encode database and queries, search, and compute every metric: of the last state and of the selected one."""
    job, run, data, method = setup.job, setup.run, setup.data, fitted.method
    started = time.perf_counter()
    index, query = encode_and_index(run, method, data, setup.entry.card.saw_database)
    encode_seconds = time.perf_counter() - started
    queries = query_codes(method, query, data, run.device)
    search_rate = _search_rate(index, queries[""])
    evaluation, arrays = score_queries(index, queries, data, job.metrics, setup.extra)
    if setup.truth is not None:
        exact, curves = _neighbour_scores(setup, method, index, queries[""], setup.truth)
        evaluation, arrays = merged(evaluation, exact), arrays | curves
    arrays |= samples(index, queries[""], len(data.database))
    evaluation.means.update(_code_scores(setup, method, index, query))
    facts = _facts(setup, method, index, evaluation) | _collapse_facts(setup, index, evaluation)
    if data.validation is not None and data.pairs is None and data.labelled:
        held = {"": concatenate(encode_batches(run, method, data.validation, "validation"))}
        validation, _ = score_queries(index, held, replace(data, query=data.validation), job.metrics, setup.extra)
        facts |= {f"validation {name}": value for name, value in validation.means.items()}
    if fitted.best is not None and fitted.best.epoch:
        facts |= _add_selected(setup, fitted.method, fitted.best, evaluation)
    plain = blank(job, "ok")
    cell = replace(
        plain,
        metrics=evaluation.means,
        facts=facts,
        timings={
            "fit_seconds": fitted.seconds,
            "encode_per_second": (len(data.database) + len(data.query)) / max(encode_seconds, 1e-9),
            "search_per_second": search_rate,
        },
        provenance={
            **plain.provenance,
            **provenance.machine(run.device),
            "batch": min(setup.budget.batch, len(data.train)),
            "weights": setup.weights[:16],
            "trained": state_digest(method)[:16],
            "last": run.logged,
            "curve": run.curve.epochs,
        },
    )
    return cell, {**evaluation.per_query, **arrays}


def _neighbour_scores(
    setup: Setup, method: Method, index: Index, query: Codes, truth: Truth
) -> tuple[Evaluation, Arrays]:
    """The metrics of exact neighbors, and their curves."""
    relaxed = partial(relaxed_codes, setup.run, method, setup.data.query, values_of_bits)
    return score_neighbours(index, query, relaxed, truth, setup.job.metrics, setup.extra)


def _search_rate(index: Index, query: Codes) -> float:
    """Queries per second of a search for the nearest ``NEIGHBOURS``, after a first one that compiles the kernels."""
    index.search({name: value[:1] for name, value in query.items()}, NEIGHBOURS)
    few = {name: value[:TIMED] for name, value in query.items()}
    started = time.perf_counter()
    index.search(few, NEIGHBOURS)
    return len(next(iter(few.values()))) / max(time.perf_counter() - started, 1e-9)


def _code_scores(setup: Setup, method: Method, index: Index, query: Codes) -> dict[str, float]:
    """The metrics of codes that the job asks for."""
    wanted = code_metrics(setup.job.metrics, setup.extra)
    sample = code_sample(method, index, query, setup.run, setup.data) if wanted else None
    return evaluate_codes(sample, wanted)


def _add_selected(setup: Setup, method: Method, best: BestState, evaluation: Evaluation) -> dict[str, int | float]:
    """Score the state of the best epoch too, as ``METRIC/selected``; returns the facts about the selection."""
    best.load_best()
    data, run = setup.data, setup.run
    index, query = encode_and_index(run, method, data, setup.entry.card.saw_database)
    selected, _ = score_queries(
        index, query_codes(method, query, data, run.device), data, setup.job.metrics, setup.extra
    )
    if setup.truth is not None:
        selected = merged(selected, _neighbour_scores(setup, method, index, query, setup.truth)[0])
    means = {**selected.means, **_code_scores(setup, method, index, query)}
    evaluation.means.update({f"{name}/selected": value for name, value in means.items()})
    evaluation.per_query.update({f"{name}/selected": values for name, values in selected.per_query.items()})
    stopped = {"stopped_epoch": run.epochs} if run.stopped else {}
    return {"selected_epoch": best.epoch, f"selected validation {setup.budget.select}": best.best, **stopped}


def _facts(setup: Setup, method: Method, index: Index, evaluation: Evaluation) -> dict[str, int | float | str]:
    """What a cell counts beside its scores."""
    return {
        "stored_bits": index.stored_bits(),
        "bytes_per_item": index.nbytes() / len(setup.data.database),
        "queries_without_relevant": evaluation.excluded,
        "epochs": setup.budget.epochs,
        "bad_pictures": setup.inspection.left_out,
        **split_facts(setup.data),
        **(truth_facts(setup.truth, setup.job.metrics, setup.extra) if setup.truth is not None else {}),
        "marks": marks(method, setup.entry.card.saw_database, setup.data),
    }


def _collapse_facts(setup: Setup, index: Index, evaluation: Evaluation) -> dict[str, float]:
    """What the warnings of a row are made of: the main score of a random order, and how many codes there are."""
    from hashzoo.results.leaderboard import main_metric, natural  # here, since it imports pandas

    found: dict[str, float] = {}
    if (stored := index.bits()) is not None:
        found[DISTINCT], found[COMMONEST] = code_use(stored)
        found[CLASSES] = int((setup.data.database.labels > 0).any(0).sum())
    names = [name for name in sorted(evaluation.per_query, key=natural) if has_chance(name, setup.extra)]
    main = main_metric(names, setup.extra)
    if main is not None and higher_is_better(main, setup.extra):
        queries = np.flatnonzero(np.isfinite(evaluation.per_query[main])).tolist()
        found |= _chance(setup, main, queries, evaluation.means[main]) if queries else {}
    return found


def _chance(setup: Setup, name: str, queries: list[int], score: float) -> dict[str, float]:
    """The expected score of random orders; its standard error, which takes time, only if the score can be at chance."""
    relevance = _relevance(setup, name)
    expected = expected_scores(name, relevance, queries, setup.extra)
    mean, error = float(expected.mean()), None
    if score <= mean + MARGIN * largest_error(name, expected):
        error = standard_error(name, relevance, queries, expected, setup.extra)
    return chance_facts(name, mean, error)


def _relevance(setup: Setup, name: str) -> Relevance:
    """What is relevant for a metric."""
    metric = parse(name, setup.extra)
    if metric.by_neighbours and setup.truth is not None:
        return setup.truth.nearest(metric.cut or 1)
    return split_relevance(setup.data)
