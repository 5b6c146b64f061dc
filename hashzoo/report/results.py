"""What a results folder holds, put in the order in which people look at it: dataset, bits, rows."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pandas import DataFrame

from hashzoo.errors import EnvironmentFailure, UsageError, unknown_name
from hashzoo.evaluation.metrics import ExtraMetrics, higher_is_better
from hashzoo.results import leaderboard, render, store
from hashzoo.results.board import BoardRow, StoredBoard, read_board
from hashzoo.results.cell import Cell
from hashzoo.results.leaderboard import InstalledCode, main_metric, natural
from hashzoo.results.mean_ranks import mean_ranks
from hashzoo.results.store import DamagedError

Arrays = Mapping[str, NDArray[Any]]

BEST = 5  # methods of the highest mean place that are looked at closely
BASELINES = 2
MOST = 8  # methods side by side

#: The arrays that say what some queries find.
GALLERY = ("gallery_queries", "gallery_rows", "gallery_distances")
_SHARES = ("pr_recall", "pr_precision", "distances_relevant", "distances_other", "bit_means")


@dataclass(frozen=True)
class Entry:
    """A row of the board. ``name`` tells it from others of its dataset; ``number`` is the name's on all."""

    row: BoardRow
    name: str
    number: int
    settings: str = ""  # what the name does not say of those that not all rows share

    @property
    def facts(self) -> Mapping[str, Any]:
        """The row's columns."""
        return self.row.facts

    @property
    def competes(self) -> bool:
        """Whether it may be best: no control, and nothing went wrong."""
        return bool(self.facts["status"] == "ok" and self.facts["role"] != "control")

    def score(self, metric: str) -> float | None:
        """Its mean over the seeds that went well; None where there is none."""
        value = self.facts.get(metric)
        return None if value is None else float(value)

    @property
    def ok(self) -> list[Cell]:
        """The cells of the seeds that went well."""
        return [cell for cell in self.row.cells if cell.status == "ok"]


@dataclass(frozen=True)
class DatasetBoard:
    """The rows of one benchmark and dataset; ``metric`` is what they are ranked by, ``shared`` what all settings say.

    ``metric`` is empty where no row has a score. ``title`` names the benchmark, too, where the results have several.
    """

    number: int
    benchmark: str
    dataset: str
    title: str
    metric: str
    scores: Sequence[str]
    praised: Sequence[str]  # the scores that are better when higher
    shared: str
    entries: Sequence[Entry]

    @property
    def bits(self) -> list[int]:
        """The code lengths that were asked for."""
        return sorted({entry.facts["bits"] for entry in self.entries if entry.facts["bits"] is not None})

    def at(self, bits: int) -> list[Entry]:
        """The rows of one code length, the best first, those without a score last."""
        rows = [entry for entry in self.entries if entry.facts["bits"] == bits]
        score = {id(entry): entry.score(self.metric) for entry in rows}
        return sorted(rows, key=lambda e: (score[id(e)] is None, -(score[id(e)] or 0.0), e.name))

    def best(self, bits: int) -> Entry | None:
        """The row that no other of its bits surpasses; None where none competes."""
        rows = [entry for entry in self.at(bits) if entry.competes and entry.score(self.metric) is not None]
        return rows[0] if rows and self.metric in self.praised else None


@dataclass(frozen=True)
class Results:
    """All boards of a folder. ``faults`` are lines on files that could not be read."""

    path: Path
    boards: Sequence[DatasetBoard]
    names: Sequence[str]
    frame: DataFrame
    faults: Sequence[str] = ()
    superseded: int = 0
    _arrays: dict[str, Arrays] = field(default_factory=dict, repr=False)

    @property
    def benchmarks(self) -> list[str]:
        """The names of all benchmarks."""
        return list(dict.fromkeys(board.benchmark for board in self.boards))

    @property
    def bits(self) -> list[int]:
        """The code lengths of all boards."""
        return sorted({bits for board in self.boards for bits in board.bits})

    @cached_property
    def cells(self) -> list[Cell]:
        """The cells of all rows."""
        return [cell for board in self.boards for entry in board.entries for cell in entry.row.cells]

    def file(self, cell: Cell) -> Path:
        """Where a cell lies."""
        return store.path(self.path, cell.identity, cell.benchmark)

    def arrays(self, cell: Cell) -> Arrays:
        """The arrays of a cell that are what their names say; none where they were not passed on with it."""
        key = f"{cell.benchmark} {cell.identity.key}"
        if key not in self._arrays:
            try:
                self._arrays[key] = sound(store.arrays(self.file(cell)))
            except DamagedError:
                raise
            except EnvironmentFailure:
                self._arrays[key] = {}
        return self._arrays[key]

    def mean(self, entry: Entry, *names: str) -> list[NDArray[np.float64]] | None:
        """Means over the seeds of arrays by name; None where a seed lacks one, or their lengths differ."""
        held = [self.arrays(cell) for cell in entry.ok]
        if not held or any(name not in arrays for arrays in held for name in names):
            return None
        if len({arrays[name].shape for arrays in held for name in names}) > 1:
            return None
        return [np.mean([arrays[name] for arrays in held], axis=0, dtype=np.float64) for name in names]


def sound(arrays: Arrays) -> Arrays:
    """The arrays that the page draws, but for those of odd shapes, kinds or values: strangers may have written them.

    Shares (K + 1,) by distance and (K,) by bit are 0..1; of a gallery (see `hashzoo.bench.examples`) all or nothing.
    """
    kept = {name: array for name in _SHARES if (array := arrays.get(name)) is not None and _shares(array)}
    queries, rows, distances = (arrays.get(name, np.zeros(())) for name in GALLERY)
    if (
        all(one.dtype.kind in "iu" for one in (queries, rows))
        and distances.dtype.kind in "iuf"
        and (queries.ndim, rows.ndim) == (1, 2)
        and distances.shape == rows.shape == (len(queries), rows.shape[1])
        and min(queries.min(initial=0), rows.min(initial=0)) >= 0
        and np.isfinite(distances).all()
    ):
        kept |= {name: arrays[name] for name in GALLERY}
    return kept


def _shares(array: NDArray[Any]) -> bool:
    numbers = array.ndim == 1 and array.dtype.kind in "iuf" and len(array) > 0
    return numbers and bool(((array >= 0) & (array <= 1 + 1e-6)).all())


def read(
    path: Path,
    metric: str | None = None,
    extra: ExtraMetrics | None = None,
    installed: InstalledCode | None = None,
) -> Results:
    """Read the results of a folder, or the means in a CSV file. A damaged cell is left in place and reported.

    Args:
        path: The folder or file.
        metric: The metric to rank by; datasets that do not have it are ranked by their main one.
        extra: Metrics of plugins.
        installed: The digests of the installed code, which decide which rows are stale.

    Raises:
        EnvironmentFailure: If there are no results.
        UsageError: If no dataset has the metric.
    """
    if path.suffix == ".json":
        raise UsageError(f"{path} is one cell; name the results folder it lies in")
    stored = read_board(path, installed, skip_damaged=True)
    if not len(stored.frame):
        raise EnvironmentFailure(next(iter(stored.faults), f"{path} has no readable results; run hashzoo bench first"))
    known = leaderboard.metrics(stored.frame)
    if metric and metric not in known:
        raise UsageError(f"{path}: {unknown_name('metric', metric, known)}")
    return _arranged(stored, metric, extra)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _arranged(stored: StoredBoard, metric: str | None, extra: ExtraMetrics | None) -> Results:
    known = leaderboard.metrics(stored.frame)
    blank = dict.fromkeys((*leaderboard.HEAD, *leaderboard.TAIL, "stale"))  # a CSV file can lack columns
    facts = [blank | {name: _finite(v) for name, v in row.items()} for row in leaderboard.records(stored.frame)]
    parts: dict[tuple[str, str], list[BoardRow]] = {}
    for row in stored.rows(facts):
        parts.setdefault((row.facts["benchmark"], row.facts["dataset"]), []).append(row)
    named = {place: _named([dict(row.facts) for row in part]) for place, part in parts.items()}
    numbers = {name: i for i, name in enumerate(sorted({name for *_, names in named.values() for name in names}))}
    boards, several = [], len({benchmark for benchmark, _ in parts}) > 1
    for number, (place, part) in enumerate(sorted(parts.items(), key=lambda item: [natural(name) for name in item[0]])):
        there = [name for name in known if any(row.facts.get(name) is not None for row in part)]
        praised = [name for name in there if higher_is_better(name, extra)]
        asked = metric if metric in there else None
        main = asked or main_metric(there, extra) or ""
        shared, left, names = named[place]
        entries = [
            Entry(row, name, numbers[name], "" if one["settings"] in name else one["settings"])
            for row, one, name in zip(part, left, names, strict=True)
        ]
        title = f"{place[1]} ({place[0]})" if several else place[1]
        boards.append(DatasetBoard(number, *place, title, main, there, praised, shared, entries))
    return Results(stored.path, boards, sorted(numbers), stored.frame, stored.faults, stored.superseded)


def _named(rows: list[dict[str, Any]]) -> tuple[str, list[dict[str, Any]], list[str]]:
    """What all settings share, the rows with what is left of theirs, and a name for each.

    The name is the method, and what else it takes to tell the rows of that method with as many bits apart.
    """
    shared, rows = render.without_shared(rows)
    several = {
        word: {a["method"] for a in rows for b in rows if a["method"] == b["method"] and a[word] != b[word]}
        for word in ("settings", "backbone", "budget")
    }
    names, seen = [], dict[tuple[str, Any], int]()
    for row in rows:
        told = [row[word] for word, methods in several.items() if row["method"] in methods]
        name = " ".join(filter(None, (row["method"], *told)))
        nth = seen[name, row["bits"]] = seen.get((name, row["bits"]), 0) + 1
        names.append(name + (f" ({nth})" if nth > 1 else ""))
    return shared, rows, names


def looked_at(results: Results, asked: Sequence[str] = ()) -> list[str]:
    """The names of the rows to look at closely: those of the methods ``asked`` for, or chosen by a rule.

    The rule: the five of the best mean place over all datasets and bits, the first two baselines, and the control of
    the highest score. UsageError for a method that the results do not have, and for more than eight.
    """
    if asked:
        found = named(results, asked)
        if len(found) > MOST:
            raise UsageError(f"--methods stands for {len(found)} rows ({', '.join(found)}); {MOST} fit side by side")
        return found
    place = places(results)
    roles = {e.name: e.facts["role"] for b in results.boards for e in b.entries if e.score(b.metric) is not None}
    order = sorted(roles, key=lambda name: (place.get(name, math.inf), name))
    best = [name for name in order if roles[name] != "control"][:BEST]
    baselines = [name for name in order if roles[name] == "baseline" and name not in best][:BASELINES]
    control = [name for name in order if roles[name] == "control"][:1]
    return [*best, *baselines, *control]


def named(results: Results, asked: Collection[str]) -> list[str]:
    """The names of all rows of the methods, or the rows, that a person names. UsageError for one that is not there."""
    entries = [entry for board in results.boards for entry in board.entries]
    known = {entry.facts["method"] for entry in entries} | set(results.names)
    for method in asked:
        if method not in known:
            raise UsageError(f"{results.path}: {unknown_name('method', method, known)}")
    return list(dict.fromkeys(e.name for m in asked for e in entries if m in (e.name, e.facts["method"])))


def places(results: Results) -> dict[str, float]:
    """The mean place of each name in the blocks (dataset, bits) that measured it, as a share of the block's rows."""
    shares: dict[str, list[float]] = {}
    for board in results.boards:
        for bits in board.bits:
            rows = [e for e in board.at(bits) if e.facts["status"] == "ok" and e.score(board.metric) is not None]
            if not rows or board.metric not in board.praised:
                continue
            ranks = mean_ranks([[e.score(board.metric) or 0.0 for e in rows]])
            for entry, rank in zip(rows, ranks, strict=True):
                shares.setdefault(entry.name, []).append(float(rank) / len(rows))
    return {name: sum(found) / len(found) for name, found in shares.items()}
