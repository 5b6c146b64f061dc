"""One cell: build, fit, encode, index, search, score."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashzoo import counting, provenance, trained, zoo
from hashzoo.bench import Job, build_backbone, data_of, picture_shape, stores
from hashzoo.cells import Cell
from hashzoo.checkpoints import Checkpoints
from hashzoo.diagnostics import Coded, diagnose, of_codes
from hashzoo.errors import TroubleError
from hashzoo.features import Standing, digest_of_state
from hashzoo.freezing import Freezer, about
from hashzoo.index import Index
from hashzoo.method import Method, NonFiniteError
from hashzoo.metrics import GROUPS, Evaluation, needs_grades, parse, pr_curve, score, summarise
from hashzoo.ranks import Ranks
from hashzoo.run import Run, Train
from hashzoo.samples import samples
from hashzoo.splits import split_digest
from hashzoo.surroundings import deterministic, limit_threads, untouched
from hashzoo.types import Codes, Split, Splits

NEIGHBOURS = 100  # of each query in the search that is timed
TIMED = 100  # queries of that search
CHUNK = 64  # queries counted at a time: bounds the memory of distances that are not integers
IDS = 1 << 18  # ids looked up at a time

Report = Callable[[float, dict[str, float]], None]


def measure(
    job: Job,
    report: Report | None = None,
    keep: Path | None = None,
    *,
    checkpoints: Checkpoints | None = None,
    ranks: Ranks | None = None,
) -> tuple[Cell, dict[str, np.ndarray[Any, Any]]]:
    """The cell of a job, and its per-query arrays. Errors are the caller's to turn into a status.

    With ``keep``, the trained method is written there (see :mod:`hashzoo.trained`). Of several processes that train
    together, ``ranks``, the first alone encodes and scores; what the others return says nothing.
    The process is left as it was found: see :func:`hashzoo.surroundings.untouched`.
    """
    with untouched(), deterministic(job.deterministic):
        return _measured(job, report, keep, checkpoints, ranks or Ranks())


def _measured(
    job: Job, report: Report | None, keep: Path | None, checkpoints: Checkpoints | None, together: Ranks
) -> tuple[Cell, dict[str, np.ndarray[Any, Any]]]:
    begun = time.perf_counter()
    identity = job.identity
    train = Train.model_validate(identity.budget)
    limit_threads(train.threads)
    house = zoo.load(job.plugins)
    data, inspection = data_of(job, house)
    shape = picture_shape(data)
    backbone = build_backbone(house, identity.backbone, shape, job.backbone_options, identity.seed)
    run = Run(
        train,
        identity.seed,
        to=backbone.input,
        device=job.device,
        workers=job.workers,
        report=report,
        ranks=together,
        checkpoints=checkpoints,
    )
    if run.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(run.device)
    entry, freezer = house.method(identity.method), None
    if zoo.code_digest(entry.factory, house.backbone(identity.backbone).factory) != identity.code:
        raise TroubleError(
            f"the code of {identity.method} or of its backbone is not what the sweep was planned with; run the command "
            "again, with the same hashzoo and plugins on every machine"
        )
    if stores(train, entry):
        freezer = Freezer(run, backbone, about(job, house))
        weights = freezer.weights
        data, backbone = freezer.frozen(data, inspection)
    else:
        weights = digest_of_state(backbone)
        backbone = run.place(backbone)
        backbone = backbone if train.backbone == "full" else Standing(backbone, train.maps)
    for seed in (torch.manual_seed, np.random.seed, random.seed):  # a stranger may draw from any of them
        seed(identity.seed % 2**32)
    method: Method = entry.factory(data.setting(identity.bits), backbone, **identity.hyperparameters)
    method.to(run.device)

    extra = house.metric_functions()
    selects = bool(train.select) and together.rank == 0
    chosen = Chosen(method, run, data, data.validation, extra) if selects and data.validation else None
    started = time.perf_counter()
    method.train()
    with together.norms():
        method.fit(data.train, run)
    together.leave(method)
    if together.rank:
        return blank(job, "ok"), {}
    fit_seconds = time.perf_counter() - started + (checkpoints.seconds if checkpoints else 0.0)
    fit_seconds -= (freezer.seconds if freezer else 0.0) + (chosen.seconds if chosen else 0.0)
    if keep is not None:
        trained.write(keep, method, job, data, shape)

    started = time.perf_counter()
    index, query = met(run, method, data, entry.card.saw_database)
    encode_seconds = time.perf_counter() - started
    asked = askings(method, query, data)
    index.search({name: value[:1] for name, value in asked[""].items()}, NEIGHBOURS)  # loads what is compiled
    few = {name: value[:TIMED] for name, value in asked[""].items()}
    started = time.perf_counter()
    index.search(few, NEIGHBOURS)
    search_seconds = time.perf_counter() - started

    evaluation, curve = scored(index, asked, data, job.metrics, extra)
    curve |= samples(index, asked[""], len(data.database))
    of = of_codes(job.metrics, extra)
    evaluation.means.update(diagnose(coded(method, index, query, run, data) if of else None, of))
    facts: dict[str, int | float | str] = {
        "stored_bits": index.stored_bits(),
        "bytes_per_item": index.nbytes() / len(data.database),
        "queries_without_relevant": evaluation.excluded,
        "epochs": train.epochs,
        "bad_pictures": inspection.left_out,
        **protocol(data),
        "marks": marks(method, entry.card.saw_database, data),
    }
    if data.validation is not None and data.pairs is None:
        held = {"": joined(encoded(run, method, data.validation, "validation"))}
        found, _ = scored(index, held, replace(data, query=data.validation), job.metrics, extra)
        facts |= {f"validation {name}": value for name, value in found.means.items()}
    if chosen is not None and chosen.epoch:
        chosen.put_back()
        index, query = met(run, method, data, entry.card.saw_database)
        found, _ = scored(index, askings(method, query, data), data, job.metrics, extra)
        evaluation.means.update({f"{name}/selected": value for name, value in found.means.items()})
        evaluation.per_query.update({f"{name}/selected": values for name, values in found.per_query.items()})
        again = diagnose(coded(method, index, query, run, data) if of else None, of)
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
            "trained": digest_of_state(method)[:16],
            "last": run.logged,
            **provenance.spent(time.perf_counter() - begun, run.device),
            "resumed_after_epoch": checkpoints.epoch if checkpoints else 0,
        },
    )
    return cell, {**evaluation.per_query, **curve}


def blank(job: Job, status: str, reason: str = "", cost: dict[str, Any] | None = None) -> Cell:
    """The cell of a job that has a status and a reason, and no numbers; ``cost`` is what is known of its time."""
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
        provenance=provenance.planned(job) | (cost or {}),
    )


def protocol(data: Splits) -> dict[str, int | str]:
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
    """What the row of a method must say: its own mark, and whether labels of database pictures made their codes."""
    learned = saw_database and bool(among(data.train.ids.numpy(), data.database.ids.numpy()).any())
    return ", ".join(filter(None, [method.mark, "learned database codes" if learned else ""]))


def met(run: Run, method: Method, data: Splits, saw_database: bool) -> tuple[Index, Codes]:
    """The database's codes in the method's index, as they are made, and the queries' codes."""
    index = method.index()
    for codes in encoded(run, method, data.database, "database", ids=saw_database):
        index.add(codes)
    return index, joined(encoded(run, method, data.query, "query"))


def coded(method: Method, index: Index, query: Codes, run: Run, data: Splits) -> Coded | None:
    """What a metric of codes looks at; None where the index stores no bits."""
    asking = method.index()
    asking.add(query)
    bits, stored = asking.bits(), index.bits()
    if bits is None or stored is None:
        return None
    labels = data.query.labels.numpy(), data.database.labels.numpy()
    relaxed = run.relaxed(method, data.query)
    return Coded(bits, stored, *labels, None if relaxed is None else relaxed.numpy())


def encoded(run: Run, method: Method, split: Split, name: str, *, ids: bool = False) -> Iterator[Codes]:
    """The codes of a split, batch by batch, one finite row a picture, or an error that says which code is not."""
    for size, codes in run.encoding(method, split, ids=ids):
        if not codes:
            raise ValueError("encode gave no codes: return a dict such as {'code': bits}")
        for key, values in codes.items():
            if len(values) != size:
                raise ValueError(f"encode gave {len(values)} rows of {key!r} for {size} pictures of {name}")
            if values.is_floating_point() and not torch.isfinite(values).all():
                raise NonFiniteError(f"the code {key!r} of the {name} pictures is not finite")
        yield codes


def joined(parts: Iterable[Codes]) -> Codes:
    """Codes of successive batches as one."""
    listed = list(parts)
    return {name: torch.cat([part[name] for part in listed]) for name in listed[0]}


class Chosen:
    """The state of a method that scored best on validation pictures, looked at after each epoch.

    They ask, and the pictures that are learned from are searched: neither queries nor database have a say.
    """

    def __init__(
        self, method: Method, run: Run, data: Splits, validation: Split, extra: dict[str, Callable[..., Any]]
    ) -> None:
        self.method, self.run, self.extra = method, run, extra
        self.data = replace(data, query=validation, database=data.train, pairs=None)
        self.seconds = 0.0  # that looking took
        self.best, self.epoch, self.state = -np.inf, 0, dict[str, Tensor]()
        run.after_epoch, run.beside = self.look, self

    def look(self) -> None:
        """Keep the state if it is better than any before; training goes on as if nothing had been."""
        started = time.perf_counter()
        modes = [(module, module.training) for module in self.method.modules()]
        with torch.random.fork_rng(devices=[]):
            self._look()
        for module, training in modes:
            module.training = training
        self.seconds += time.perf_counter() - started

    def _look(self) -> None:
        index, query = met(self.run, self.method, self.data, False)
        name = self.run.train.select
        found, _ = scored(index, {"": query}, self.data, (name,), self.extra)
        if found.means[name] > self.best:
            self.best, self.epoch = found.means[name], self.run.epochs
            self.state = {key: value.detach().clone() for key, value in self.method.state_dict().items()}

    def put_back(self) -> None:
        """The method as it was after the best epoch."""
        self.method.load_state_dict(self.state)

    def kept(self) -> dict[str, Tensor]:
        """All of this as tensors, for a checkpoint."""
        numbers = torch.tensor([self.best, self.epoch, self.seconds], dtype=torch.float64)
        return {"numbers": numbers, **{f"state.{name}": value for name, value in self.state.items()}}

    def put(self, kept: dict[str, Tensor]) -> None:
        """Be as it was when this was kept."""
        self.best, epoch, self.seconds = kept["numbers"].tolist()
        self.epoch = int(epoch)
        self.state = {name.removeprefix("state."): v for name, v in kept.items() if name.startswith("state.")}


def askings(method: Method, query: Codes, data: Splits) -> dict[str, Codes]:
    """The codes that are asked with, by the part of a metric's name that stands for them; "" is the method's own."""
    if data.pairs is None:
        return {"": query}
    first, second = ({n: v[rows] for n, v in query.items()} for rows in (data.pairs.first, data.pairs.second))
    operation = data.pairs.operation
    composed = method.compose(operation, first, second)
    return {"": composed, "first": first, "second": second, "bitwise": method.bitwise(operation, first, second)}


def groups(data: Splits) -> dict[str, np.ndarray[Any, Any]]:
    """(Q,) bool by name: which queries are of the classes with most, middling and fewest training pictures.

    Each group is a third of the classes, the earlier groups one more where they do not divide.
    """
    order = np.argsort(-data.setting(1).class_counts.numpy(), kind="stable")
    classes = data.query.labels.argmax(1).numpy()
    return {name: np.isin(classes, third) for name, third in zip(GROUPS, np.array_split(order, 3), strict=True)}


def scored(
    index: Index,
    asked: dict[str, Codes],
    data: Splits,
    metrics: tuple[str, ...],
    extra: dict[str, Callable[..., Any]],
) -> tuple[Evaluation, dict[str, np.ndarray[Any, Any]]]:
    """The metrics of all queries but for those of codes, and what :func:`ask` finds by distance."""
    ranking = [name for name in metrics if name not in of_codes(metrics, extra)]
    read = {name: parse(name, extra) for name in ranking}
    found: dict[str, Evaluation] = {}
    curve: dict[str, np.ndarray[Any, Any]] = {}
    for part, codes in asked.items():
        mine = [m.base for m in read.values() if (m.part if m.part not in GROUPS else "") == part]
        if mine or not part:
            found[part], drawn = ask(index, codes, data, tuple(dict.fromkeys(mine or ["map@all"])), extra)
            curve = curve or drawn
    members = groups(data) if any(m.part in GROUPS for m in read.values()) else {}
    per_query = {}
    for name, metric in read.items():
        if metric.part in GROUPS:
            per_query[name] = np.where(members[metric.part], found[""].per_query[metric.base], np.nan)
        else:
            per_query[name] = found[metric.part].per_query[metric.base]
    return replace(summarise([per_query]), excluded=found[""].excluded), curve


def ask(
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
