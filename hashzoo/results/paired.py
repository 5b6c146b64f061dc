"""Two rows of results at a time: whether both measured the same thing, and whether their difference is one."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pandas import DataFrame
from rich import box
from rich.table import Table
from rich.text import Text

from hashzoo.errors import EnvironmentFailure, UsageError, unknown_name
from hashzoo.results import leaderboard, render
from hashzoo.results import store as store
from hashzoo.results.cell import Cell
from hashzoo.results.significance import FEWEST_SEEDS, LEVEL, Floats, holm, resampled, sign_flip, trained_again
from hashzoo.results.store import DamagedError

#: Why two rows are not compared that did not measure the same thing.
UNLIKE = "not the same protocol"

# What two rows must agree on before their scores are of the same thing, by column, and as people call it.
_SAME = {
    "protocol": "protocol version",
    "split": "split",
    "data": "fingerprint of the data",
    "source": "source",
    "queries": "number of queries",
    "queries_without_relevant": "number of queries without a relevant item",
    "unlabelled_queries": "number of unlabelled queries",
    "database_size": "size of the database",
    "train": "number of training images",
    "train_in_database": "number of training images in the database",
}


@dataclass(frozen=True)
class Row:
    """A row of a leaderboard, and, where it was read from a results folder, the cells of its seeds."""

    facts: Mapping[str, Any]
    cells: Sequence[Cell] = ()
    folder: Path = Path()

    def by_query(self, metric: str) -> dict[int, Floats]:
        """(Q,) scores by seed, of the seeds that went well and have such values. DamagedError for a damaged file."""
        found = {}
        for cell in self.cells:
            if cell.status != "ok":
                continue
            try:
                arrays = store.arrays(store.path(self.folder, cell.identity, cell.benchmark))
            except DamagedError:
                raise
            except EnvironmentFailure:  # results may be passed on without arrays
                continue
            if metric in arrays and arrays[metric].ndim == 1 and arrays[metric].dtype.kind in "iuf":
                found[cell.identity.seed] = arrays[metric].astype(float)
        return found


@dataclass(frozen=True)
class Board:
    """What a results folder or a CSV holds; cells only where it is a folder that has some."""

    path: Path
    frame: DataFrame
    groups: Sequence[Sequence[Cell]] = ()

    @cached_property
    def rows(self) -> dict[tuple[Any, ...], Row]:
        """The rows by what names them to people."""
        rows = [Row(one) for one in leaderboard.records(self.frame)]
        if self.groups:
            rows = [replace(row, cells=g, folder=self.path) for row, g in zip(rows, self.groups, strict=True)]
        return render.placed(rows, lambda row: row.facts)


def read(path: Path) -> Board:
    """A folder's cells, else its CSV. EnvironmentFailure where there is neither, or one is damaged."""
    files = sorted((path / "cells").glob("*.json"))
    if not files:
        return Board(path, leaderboard.read_csv(path))
    found = [store.read(file) for file in files]
    return Board(path, leaderboard.board_frame(found), leaderboard.groups(found))


@dataclass(frozen=True)
class Pair:
    """Two rows, what became of their difference, and, in ``reason``, why it was not tested.

    Scores are means over the ``seeds`` that both have, over all seeds where nothing was tested. ``of_models`` is p of
    the models as they were trained, ``of_training`` p of training them again, both corrected for all pairs.
    """

    first: Row
    second: Row
    before: float
    after: float
    seeds: int = 0
    queries: int = 0
    interval: tuple[float, float] | None = None
    of_models: float | None = None
    of_training: float | None = None
    reason: str = ""
    differences: Floats | None = field(default=None, repr=False)  # (S, Q)


def across(first: Board, second: Board) -> list[tuple[Row, Row]]:
    """The rows that both boards have. UsageError where they share none."""
    found = [(row, second.rows[place]) for place, row in sorted(first.rows.items()) if place in second.rows]
    if first.rows and second.rows and not found:
        raise UsageError(
            f"{first.path} and {second.path} have no row in common: {_apart(first, second)}; "
            "name two boards of one benchmark, or put both into one folder and compare with --between"
        )
    return found


def _apart(first: Board, second: Board) -> str:
    """In what the two most similar rows of two boards differ."""
    places = itertools.product(*([row.facts for row in board.rows.values()] for board in (first, second)))
    nearest, other = min(places, key=lambda two: sum(two[0][name] != two[1][name] for name in leaderboard.PLACE))
    told = [name for name in leaderboard.PLACE if nearest[name] != other[name]]
    return "; ".join(f"{name} {nearest[name] or 'none'} and {other[name] or 'none'}" for name in told)


def between(board: Board, methods: Sequence[str]) -> list[tuple[Row, Row]]:
    """All pairs of rows of the named methods at the same benchmark, dataset and bits, on whatever backbones.

    A method that was measured with several settings has several rows. UsageError for a method that the board does not
    have, and where no two rows meet.
    """
    known = {row.facts["method"] for row in board.rows.values()}
    for name in methods:
        if name not in known:
            raise UsageError(f"{board.path}: {unknown_name('method', name, known)}")
    meeting: dict[tuple[Any, ...], list[Row]] = {}
    for row in board.rows.values():
        if row.facts["method"] in methods:
            meeting.setdefault(tuple(row.facts[n] for n in ("benchmark", "dataset", "bits")), []).append(row)
    pairs = list[tuple[Row, Row]]()
    for _, rows in sorted(meeting.items()):
        rows.sort(key=lambda row: list(methods).index(row.facts["method"]))
        pairs += itertools.combinations(rows, 2)
    if not pairs:
        raise UsageError("--between takes two methods or more that were measured on the same data at the same bits")
    return pairs


def unequal(first: Row, second: Row) -> list[str]:
    """In what the protocols of two rows differ, as far as both say; empty where they are the same."""
    ours, theirs = _protocol(first), _protocol(second)
    known = [name for name in _SAME if ours.get(name) not in (None, "") and theirs.get(name) not in (None, "")]
    return [f"{_SAME[name]} {ours[name]} and {theirs[name]}" for name in known if ours[name] != theirs[name]]


def _protocol(row: Row) -> dict[str, Any]:
    inside = {"protocol": row.cells[0].identity.protocol, "data": row.cells[0].identity.data} if row.cells else {}
    return {**row.facts, **inside}


def disagreements(pairs: Iterable[tuple[Row, Row]]) -> list[str]:
    """A line for each pair of rows that did not measure the same thing, that names in what they differ."""
    said = [(first, second, unequal(first, second)) for first, second in pairs]
    return [f"{_where(a, b)}: {UNLIKE}: {'; '.join(what)}" for a, b, what in said if what]


def _where(first: Row, second: Row) -> str:
    row = first.facts
    return f"{named(row, second.facts)} at {row['bits']} bits on {row['dataset']} ({row['benchmark']})"


def named(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    """What two rows are called, by what they differ in; once where they differ in nothing."""
    told = [name for name in ("settings", "backbone", "budget") if first[name] != second[name]]
    if first["method"] == second["method"] and not told:
        return " ".join(filter(None, [first["method"], first["settings"]]))
    names = [" ".join(filter(None, (row[name] for name in ("method", *told)))) for row in (first, second)]
    return " -> ".join(names)


def metric_of(boards: Sequence[Board], asked: str | None) -> str | None:
    """The score to test: the one that was asked for, else the main one of those that all boards have, if any.

    UsageError for one that a board does not have, and for boards with scores of which they share none.
    """
    names = [leaderboard.metrics(board.frame) for board in boards]
    for board, known in zip(boards, names, strict=True):
        if asked and asked not in known:
            raise UsageError(f"{board.path}: {unknown_name('metric', asked, known)}")
    shared = [name for name in names[0] if all(name in known for known in names)]
    if not shared and all(names):
        told = " and ".join(", ".join(known) for known in names)
        raise UsageError(f"the boards share no metric: {told}; measure both with the same --metrics")
    return asked or render.main_metric(boards[0].frame[shared]) if shared else None


def judged(pairs: Iterable[tuple[Row, Row]], metric: str) -> list[Pair]:
    """The pairs of which both rows have the metric, each with its tests, or the reason why there are none.

    Pairs whose queries have the same score on both sides have nothing to test, and do not count in the correction.
    """
    pairs = [(a, b) for a, b in pairs if None not in (a.facts.get(metric), b.facts.get(metric))]
    values = {id(row): row.by_query(metric) for row in {id(row): row for pair in pairs for row in pair}.values()}
    found = [_paired(a, b, metric, values[id(a)], values[id(b)]) for a, b in pairs]
    at = [i for i, pair in enumerate(found) if pair.differences is not None]
    p, interval = np.ones(len(found)), np.zeros((len(found), 2))
    by_size: dict[int, list[int]] = {}
    for i in at:
        by_size.setdefault(found[i].queries, []).append(i)
    for which in by_size.values():
        means = np.stack([_differences(found[i]).mean(0) for i in which])  # (T, Q)
        p[which], interval[which] = sign_flip(means), resampled(means)
    again = [i for i in at if found[i].seeds >= FEWEST_SEEDS]
    trained = [trained_again(_differences(found[i])) for i in again]
    for i, corrected in zip(at, holm(p[at]), strict=True):
        found[i] = replace(found[i], of_models=float(corrected), interval=(interval[i, 0], interval[i, 1]))
    for i, (_, low, high), corrected in zip(again, trained, holm([one[0] for one in trained]), strict=True):
        found[i] = replace(found[i], of_training=float(corrected), interval=(low, high))
    return found


def _differences(pair: Pair) -> Floats:
    assert pair.differences is not None  # noqa: S101 # nosec B101 # those without were left out
    return pair.differences


def _paired(first: Row, second: Row, metric: str, ours: Mapping[int, Floats], theirs: Mapping[int, Floats]) -> Pair:
    pair = Pair(first, second, first.facts[metric], second.facts[metric])
    if unequal(first, second):
        return replace(pair, reason=UNLIKE)
    for row, known in ((first, ours), (second, theirs)):
        if not known:
            return replace(pair, reason=f"no scores of single queries {_lacking(row, metric)}")
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return replace(pair, reason="no seed in common")
    if len({known[seed].shape for known in (ours, theirs) for seed in seeds}) > 1:
        return replace(pair, reason=UNLIKE)
    a, b = (np.stack([known[seed] for seed in seeds]) for known in (ours, theirs))  # (S, Q)
    usable = np.isfinite(a).all(0) & np.isfinite(b).all(0)  # NaN: nothing relevant, or another part of the queries
    a, b = a[:, usable], b[:, usable]
    if a.shape[1] < 2:
        return replace(pair, reason="fewer than two queries have a value")
    pair = replace(pair, before=float(a.mean()), after=float(b.mean()), seeds=len(seeds), queries=a.shape[1])
    if (a == b).all():
        return replace(pair, reason="the same score of each query")
    return replace(pair, differences=b - a)


def _lacking(row: Row, metric: str) -> str:
    if not row.cells:
        return "in a CSV"
    return f"beside the cells of {row.folder} (cells/*.npz), or none of {metric}"


def render_paired(pairs: Sequence[Pair], metric: str) -> list[Table]:
    """A table for each benchmark and dataset: differences, second less first, intervals, and p after correction."""
    made = []
    for key, some in itertools.groupby(
        pairs, lambda pair: (pair.first.facts["benchmark"], pair.first.facts["dataset"])
    ):
        group = list(some)
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
        table.title, table.title_justify = Text(f"{key[0]}: {key[1]}, {metric}"), "left"
        table.add_column("method", overflow="fold", max_width=44)
        heads = ("bits", "seeds", "first", "second", "difference", "95 % interval", "p models", "p training")
        for name in heads:
            table.add_column(name, justify="right", no_wrap=True)
        _, sides = render.without_shared([dict(row.facts) for pair in group for row in (pair.first, pair.second)])
        for pair, first, second in zip(group, sides[::2], sides[1::2], strict=True):
            ends = f"{pair.interval[0]:+.4f} {pair.interval[1]:+.4f}" if pair.interval else ""
            table.add_row(
                Text(named(first, second)),
                str(first["bits"]),
                str(pair.seeds or ""),
                *(f"{pair.before:.4f}", f"{pair.after:.4f}", f"{pair.after - pair.before:+.4f}", ends),
                *(_p(pair.of_models), _p(pair.of_training)),
            )
        made.append(table)
    return made


def _p(p: float | None) -> str:
    """A p for people, starred where it is below the level.

    >>> [_p(x) for x in (None, 1.0, 0.0123, 0.00001)]
    ['', '1.000', '0.012*', '<0.001*']
    """
    if p is None:
        return ""
    return (f"{p:.3f}" if p >= 0.001 else "<0.001") + ("*" if p < LEVEL else "")


def _tests(count: int) -> str:
    return "1 test" if count == 1 else f"{count} tests"


def notes(pairs: Sequence[Pair]) -> list[str]:
    """What the reader of the tables must know: what was tested and what was not."""
    done = [pair for pair in pairs if pair.of_models is not None]
    lines = []
    if done:
        again = sum(pair.of_training is not None for pair in done)
        of_models = f"corrected for {_tests(len(done))} (Holm)"
        lines.append(f"p models: these trained models on other queries of the same kind, {of_models}.")
        if again:
            lines.append(f"p training: trained with other seeds as well, corrected for {_tests(again)} (Holm).")
        if again < len(done):
            lines.append(
                f"{len(done) - again} of {len(done)} pairs have fewer than {FEWEST_SEEDS} seeds in common: what "
                "training varies by is not covered, and a small p may be luck of the seed."
            )
    reasons = [pair.reason for pair in pairs if pair.reason]
    lines += [f"not tested: {reason} ({reasons.count(reason)} of {len(pairs)} pairs)" for reason in sorted({*reasons})]
    return lines
