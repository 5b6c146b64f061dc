"""The results of a folder by dataset and code length, each row with a unique name, as report and figures show them."""

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
from hashzoo.evaluation.metrics import ExtraMetrics, higher_is_better, not_measured
from hashzoo.results import leaderboard, render, store
from hashzoo.results.board import BoardRow, Filter, StoredBoard
from hashzoo.results.cell import Cell
from hashzoo.results.leaderboard import InstalledCode, main_metric, natural
from hashzoo.results.mean_ranks import mean_ranks
from hashzoo.results.merge import read_boards
from hashzoo.results.ranking import competes, dataset_of, is_chosen_by_queries, ranked, ranking_column
from hashzoo.results.store import DamagedError

Arrays = Mapping[str, NDArray[Any]]

# How many methods are highlighted by default, and at most
BEST_COUNT = 5
BASELINE_COUNT = 2
MAX_HIGHLIGHTED = 8

#: The arrays of a cell with the nearest images of some queries.
GALLERY_ARRAYS = ("gallery_queries", "gallery_rows", "gallery_distances")
_SHARE_ARRAYS = ("pr_recall", "pr_precision", "distances_relevant", "distances_other", "bit_means")


@dataclass(frozen=True)
class BoardEntry:
    """A row of a dataset's board.

    Attributes:
        row: The row with its cells.
        name: A name that is unique for the dataset and code length.
        number: A number that the name has in all datasets and code lengths.
        settings: Settings of the method that are neither in the name nor shared by all rows.
    """

    row: BoardRow
    name: str
    number: int
    settings: str = ""

    @property
    def facts(self) -> Mapping[str, Any]:
        """The columns of the row."""
        return self.row.facts

    @property
    def competes(self) -> bool:
        """Whether it can be the best: it is ok and not a control."""
        return competes(self.facts)

    def score(self, metric: str) -> float | None:
        """The mean over the seeds that are ok, if there is one."""
        value = self.facts.get(metric)
        return None if value is None else float(value)

    @property
    def ok_cells(self) -> list[Cell]:
        """The cells of the seeds that are ok."""
        return [cell for cell in self.row.cells if cell.status == "ok"]


@dataclass(frozen=True)
class DatasetBoard:
    """The rows of one benchmark and dataset.

    Attributes:
        number: Its number on the page.
        benchmark: The benchmark.
        dataset: The dataset.
        title: The dataset, and also the benchmark and the folder of images if the results have several.
        metric: The metric that rows are ranked by; empty if no row has a score.
        metrics: All metrics of the rows.
        higher_better: The metrics that are better when higher.
        shared_settings: The settings that all rows share.
        entries: The rows.
        validation: The columns of validation scores that rows have.
    """

    number: int
    benchmark: str
    dataset: str
    title: str
    metric: str
    metrics: Sequence[str]
    higher_better: Sequence[str]
    shared_settings: str
    entries: Sequence[BoardEntry]
    validation: Sequence[str] = ()

    @property
    def bits(self) -> list[int]:
        """The code lengths, ascending."""
        return sorted({entry.facts["bits"] for entry in self.entries if entry.facts["bits"] is not None})

    @property
    def middle_bits(self) -> int:
        """The middle one of the code lengths."""
        return self.bits[len(self.bits) // 2]

    def entries_at(self, bits: int) -> list[BoardEntry]:
        """The rows of one code length, best first, rows without a score last."""
        entries = [entry for entry in self.entries if entry.facts["bits"] == bits]
        return ranked(sorted(entries, key=lambda entry: entry.name), self.metric, lambda entry: entry.facts)

    def ranked_by(self, bits: int) -> str:
        """The column by which the rows of one code length are ranked: the metric, or its validation scores."""
        return ranking_column([entry.facts for entry in self.entries if entry.facts["bits"] == bits], self.metric)

    @property
    def bits_chosen_by_queries(self) -> list[int]:
        """The code lengths at which settings of one method are ranked by the queries."""
        return [
            bits
            for bits in self.bits
            if is_chosen_by_queries([e.facts for e in self.entries if e.facts["bits"] == bits], self.metric)
        ]

    def best(self, bits: int) -> BoardEntry | None:
        """The first competing row of one code length with a score, if there is one."""
        entries = [entry for entry in self.entries_at(bits) if entry.competes and entry.score(self.metric) is not None]
        return entries[0] if entries and self.metric in self.higher_better else None


@dataclass(frozen=True)
class Results:
    """The boards of a results folder or CSV file.

    Attributes:
        path: The folder or file.
        boards: One board for each benchmark and dataset.
        names: The names of rows; the place of a name is its number.
        frame: The rows as a data frame.
        faults: One line for each file that could not be read.
        superseded: Number of cells that newer ones replace.
        rows: The rows in the order of the frame.
    """

    path: Path
    boards: Sequence[DatasetBoard]
    names: Sequence[str]
    frame: DataFrame
    faults: Sequence[str] = ()
    superseded: int = 0
    rows: Sequence[BoardRow] = ()
    _arrays: dict[str, Arrays] = field(default_factory=dict, repr=False)

    @property
    def benchmarks(self) -> list[str]:
        """The names of the benchmarks."""
        return list(dict.fromkeys(board.benchmark for board in self.boards))

    @property
    def bits(self) -> list[int]:
        """The code lengths of all boards."""
        return sorted({bits for board in self.boards for bits in board.bits})

    @cached_property
    def cells(self) -> list[Cell]:
        """The cells of all rows."""
        return [cell for board in self.boards for entry in board.entries for cell in entry.row.cells]

    @cached_property
    def _files(self) -> dict[tuple[str, str], Path]:
        return {store.place(cell): row.file(cell) for row in self.rows for cell in row.cells}

    def file(self, cell: Cell) -> Path:
        """The file of a cell."""
        return self._files[store.place(cell)]

    def arrays(self, cell: Cell) -> Arrays:
        """The valid arrays of a cell; empty if their file is missing."""
        key = f"{cell.benchmark} {cell.identity.key}"
        if key not in self._arrays:
            try:
                self._arrays[key] = valid_arrays(store.arrays(self.file(cell)))
            except DamagedError:
                raise
            except EnvironmentFailure:
                self._arrays[key] = {}
        return self._arrays[key]

    def mean_arrays(self, entry: BoardEntry, *names: str) -> list[NDArray[np.float64]] | None:
        """Means over the seeds of arrays by name; None if a seed lacks one, or their shapes differ."""
        by_seed = [self.arrays(cell) for cell in entry.ok_cells]
        if not by_seed or any(name not in arrays for arrays in by_seed for name in names):
            return None
        if len({arrays[name].shape for arrays in by_seed for name in names}) > 1:
            return None
        return [np.mean([arrays[name] for arrays in by_seed], axis=0, dtype=np.float64) for name in names]


def valid_arrays(arrays: Arrays) -> Arrays:
    """The arrays that the page draws, without those of a wrong shape, type or range: they can come from anywhere.

    Shares by distance (K + 1,) and by bit (K,) range from 0 to 1. The gallery arrays (see
    :mod:`hashzoo.bench.examples`) are kept if all of them are valid.
    """
    valid = {name: array for name in _SHARE_ARRAYS if (array := arrays.get(name)) is not None and _are_shares(array)}
    queries, rows, distances = (arrays.get(name, np.zeros(())) for name in GALLERY_ARRAYS)
    if (
        all(one.dtype.kind in "iu" for one in (queries, rows))
        and distances.dtype.kind in "iuf"
        and (queries.ndim, rows.ndim) == (1, 2)
        and distances.shape == rows.shape == (len(queries), rows.shape[1])
        and min(queries.min(initial=0), rows.min(initial=0)) >= 0
        and np.isfinite(distances).all()
    ):
        valid |= {name: arrays[name] for name in GALLERY_ARRAYS}
    return valid


def _are_shares(array: NDArray[Any]) -> bool:
    numbers = array.ndim == 1 and array.dtype.kind in "iuf" and len(array) > 0
    return numbers and bool(((array >= 0) & (array <= 1 + 1e-6)).all())


def read(
    path: Path | Sequence[Path],
    metric: str | None = None,
    extra: ExtraMetrics | None = None,
    installed: InstalledCode | None = None,
    wanted: Filter = Filter(),  # noqa: B008 - it is immutable
) -> Results:
    """Read the results of a folder, or the means in a CSV file. A damaged cell is left in place and reported.

    Args:
        path: The folder or file, or several folders of one benchmark.
        metric: The metric to rank by; datasets that do not have it are ranked by their main one.
        extra: Metrics of plugins.
        installed: The digests of the installed code, which decide which rows are stale.
        wanted: The rows to read.

    Raises:
        EnvironmentFailure: If there are no results.
        UsageError: If no dataset has the metric, the results lack a row that is wanted, or the folders are not of one
            benchmark.
    """
    paths = [path] if isinstance(path, Path) else list(path)
    if cell := next((one for one in paths if one.suffix == ".json"), None):
        raise UsageError(f"{cell} is one cell; name the results folder it lies in")
    stored = read_boards(paths, installed, skip_damaged=True)
    path = stored.path
    if not len(stored.frame):
        raise EnvironmentFailure(next(iter(stored.faults), f"{path} has no readable results; run hashzoo bench first"))
    stored = wanted.apply(stored)
    known = leaderboard.metrics(stored.frame)
    if metric and metric not in known:
        raise UsageError(f"{path}: {not_measured('metric', metric, known, extra)}")
    return build_results(stored, metric, extra)


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def build_results(stored: StoredBoard, metric: str | None, extra: ExtraMetrics | None) -> Results:
    """The results of a board; arguments as for :func:`read`."""
    all_metrics = leaderboard.metrics(stored.frame)
    missing = dict.fromkeys((*leaderboard.HEAD, *leaderboard.TAIL, "stale", "warnings"))  # a CSV file can lack columns
    facts = [
        missing | {name: _finite_or_none(v) for name, v in row.items()} for row in leaderboard.records(stored.frame)
    ]
    parts: dict[tuple[str, str, str], list[BoardRow]] = {}
    rows = stored.rows(facts)
    for row in rows:
        parts.setdefault(dataset_of(row.facts), []).append(row)
    named = {place: _name_rows([dict(row.facts) for row in part]) for place, part in parts.items()}
    numbers = {name: i for i, name in enumerate(sorted({name for *_, names in named.values() for name in names}))}
    boards, several = [], len({benchmark for benchmark, *_ in parts}) > 1
    for number, (place, part) in enumerate(sorted(parts.items(), key=lambda item: [natural(name) for name in item[0]])):
        metrics = [name for name in all_metrics if any(row.facts.get(name) is not None for row in part)]
        higher_better = [name for name in metrics if higher_is_better(name, extra)]
        main = (metric if metric in metrics else None) or main_metric(metrics, extra) or ""
        shared, rest, names = named[place]
        entries = [
            BoardEntry(row, name, numbers[name], "" if one["settings"] in name else one["settings"])
            for row, one, name in zip(part, rest, names, strict=True)
        ]
        title = f"{place[1]} ({place[0]})" if several else place[1]
        if [one[:2] for one in parts].count(place[:2]) > 1:  # images of several folders
            title += f" {place[2]}"
        held = [
            name
            for name in leaderboard.validation_columns(stored.frame)
            if any(row.facts.get(name) is not None for row in part)
        ]
        boards.append(DatasetBoard(number, *place[:2], title, main, metrics, higher_better, shared, entries, held))
    return Results(stored.path, boards, sorted(numbers), stored.frame, stored.faults, stored.superseded, rows)


def _name_rows(rows: list[dict[str, Any]]) -> tuple[str, list[dict[str, Any]], list[str]]:
    """The settings that all rows share, the rows with the rest of their settings, and a name for each row.

    The name is the method and, if several rows of the method have the same code length, what distinguishes them.
    """
    shared, rows = render.without_shared(rows)
    ambiguous = {
        column: {a["method"] for a in rows for b in rows if a["method"] == b["method"] and a[column] != b[column]}
        for column in ("settings", "backbone", "budget")
    }
    names, counts = [], dict[tuple[str, Any], int]()
    for row in rows:
        details = [row[column] for column, methods in ambiguous.items() if row["method"] in methods]
        name = " ".join(filter(None, (row["method"], *details)))
        nth = counts[name, row["bits"]] = counts.get((name, row["bits"]), 0) + 1
        names.append(name + (f" ({nth})" if nth > 1 else ""))
    return shared, rows, names


def highlighted_names(results: Results, highlight: Sequence[str] = (), *, few: bool = False) -> list[str]:
    """The names of the rows to highlight.

    Args:
        results: The results.
        highlight: Methods or rows to highlight. By default these are the five rows of the best mean place over all
            datasets and code lengths, the first two baselines, and the control with the highest score.
        few: Whether methods were selected, so that all rows are highlighted by default if they are few enough.

    Raises:
        UsageError: If the results do not have a method, or these are more than eight rows.
    """
    if highlight:
        names = resolve_names(results, highlight)
        if len(names) > MAX_HIGHLIGHTED:
            raise UsageError(
                f"--highlight matches {len(names)} rows ({', '.join(names)}); name at most {MAX_HIGHLIGHTED} of them"
            )
        return names
    if few and len(results.names) <= MAX_HIGHLIGHTED:
        return list(results.names)
    place = mean_places(results)
    roles = {e.name: e.facts["role"] for b in results.boards for e in b.entries if e.score(b.metric) is not None}
    order = sorted(roles, key=lambda name: (place.get(name, math.inf), name))
    best = [name for name in order if roles[name] != "control"][:BEST_COUNT]
    baselines = [name for name in order if roles[name] == "baseline" and name not in best][:BASELINE_COUNT]
    control = [name for name in order if roles[name] == "control"][:1]
    return [*best, *baselines, *control]


def resolve_names(results: Results, methods: Collection[str]) -> list[str]:
    """The names of the rows with these names or of these methods. UsageError for a name that the results lack."""
    entries = [entry for board in results.boards for entry in board.entries]
    known = {entry.facts["method"] for entry in entries} | set(results.names)
    for method in methods:
        if method not in known:
            raise UsageError(f"{results.path}: {unknown_name('method', method, known)}")
    return list(dict.fromkeys(e.name for m in methods for e in entries if m in (e.name, e.facts["method"])))


def mean_places(results: Results) -> dict[str, float]:
    """The mean place of each name over the blocks (dataset, code length) that have it, as a share of their rows."""
    shares: dict[str, list[float]] = {}
    for board in results.boards:
        for bits in board.bits:
            entries = [
                e for e in board.entries_at(bits) if e.facts["status"] == "ok" and e.score(board.metric) is not None
            ]
            if not entries or board.metric not in board.higher_better:
                continue
            column = board.ranked_by(bits)
            ranks = mean_ranks([[e.score(column) or 0.0 for e in entries]])
            for entry, rank in zip(entries, ranks, strict=True):
                shares.setdefault(entry.name, []).append(float(rank) / len(entries))
    return {name: sum(places) / len(places) for name, places in shares.items()}
