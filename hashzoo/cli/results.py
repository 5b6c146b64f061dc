"""`hashzoo show`, `hashzoo compare` and `hashzoo merge`. Imports pandas only when a command runs."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hashzoo.cli.options import file_path, filter_options, plugin_option, row_filter, split_list
from hashzoo.cli.output import chosen_format, format_option, json_option, print_tables
from hashzoo.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandas import DataFrame

    from hashzoo.results.board import BoardRow, StoredBoard
    from hashzoo.results.leaderboard import InstalledCode
    from hashzoo.results.paired import Pair
    from hashzoo.results.regressions import Rule
    from hashzoo.results.table import TextTable


@click.command()
@click.argument("results", type=file_path, nargs=-1, required=True, metavar="DIR|CSV|CELL.json|TUNED.toml...")
@click.option("--sort", metavar="COLUMN", help="Sort by this column.")
@click.option("--columns", metavar="A,B", help="Only the method and these columns.")
@click.option(
    "--by", type=click.Choice(["bits", "stored"]), default="bits", show_default=True, help="How rows are grouped."
)
@click.option(
    "--rank", is_flag=True, help="Show mean ranks over datasets and bits, and which differences are not significant."
)
@filter_options
@click.option("--metric", metavar="M", help="With --rank: the score to rank by [default: the main one of the boards].")
@format_option
@json_option
@plugin_option
def show(results: tuple[Path, ...], plugins: tuple[str, ...], **options: Any) -> None:
    """Show leaderboards, with the best value of each column marked, a study, or everything recorded about single cells.

    `--by stored` groups methods that store the same number of bits. `--rank` can combine several results folders.
    Columns that do not fit into the terminal are left out and named. `--format latex` and `markdown` also mark the rows
    that do not differ significantly from the best one. A study of `hashzoo tune` (its folder or TUNED.toml) is shown
    with the test scores of the results folders that follow it.
    """
    from hashzoo.registry.installed import installed_code

    chosen = _ShowOptions(**options)
    chosen.check()
    installed = installed_code(plugins)
    if any(path.suffix == ".json" for path in results):
        return _show_cells(results, chosen, installed)
    if is_study(results[0]):
        return _show_study(results[0], results[1:], chosen)
    from hashzoo.results.board import read_board, with_origin

    wanted = row_filter(chosen.methods, chosen.bits, chosen.dataset)
    boards = with_origin([wanted.apply(read_board(path, installed)) for path in results])
    extra = _extra_metrics([board.frame for board in boards], plugins)
    if chosen.rank:
        return _show_ranks(boards, chosen, extra)
    arguments = chosen.sort, split_list("--columns", chosen.columns) or None
    by = "stored_bits" if chosen.by == "stored" else "bits"
    print_tables(
        chosen.format,
        lambda: [table for one in boards for table in _tables(one, arguments, by, extra, chosen.format)],
        lambda: [record for one in boards for record in _records(one, arguments, by, extra, chosen.format)],
    )


def is_study(path: Path) -> bool:
    """Whether a path is the result of a study, or a folder with one."""
    return path.suffix == ".toml" or (path / "tuned.toml").is_file()


def _show_study(path: Path, boards: Sequence[Path], chosen: _ShowOptions) -> None:
    """The tables of a study; with the test scores of results folders, if some are given."""
    from hashzoo.results import study_tables, tuned

    for option, value in (("--sort", chosen.sort), ("--columns", chosen.columns), ("--rank", chosen.rank)):
        if value:
            raise UsageError(f"{option} shows boards, and {path} is a study; leave it out")
    wanted = row_filter(chosen.methods, chosen.bits, chosen.dataset)
    study = study_tables.selected(tuned.read(path), wanted)
    rows = study_tables.rows(study, boards)
    print_tables(chosen.format, lambda: study_tables.tables(study, rows), lambda: study_tables.records(rows))


@dataclass(frozen=True)
class _ShowOptions:
    sort: str | None
    columns: str | None
    by: str
    rank: bool
    methods: str | None
    bits: str | None
    dataset: str | None
    metric: str | None
    form: str | None
    as_json: bool

    @property
    def format(self) -> str:
        """The format of the output."""
        return chosen_format(self.form, self.as_json)

    def check(self) -> None:
        """Raise UsageError for an option that does not apply."""
        chosen_format(self.form, self.as_json)
        for option, value in (("--sort", self.sort), ("--columns", self.columns)) if self.rank else ():
            if value is not None:
                raise UsageError(f"{option} cannot be combined with --rank")
        if self.metric is not None and not self.rank:
            raise UsageError("--metric requires --rank")


def _show_cells(paths: Sequence[Path], chosen: _ShowOptions, installed: InstalledCode) -> None:
    from hashzoo.results import cell_text

    if chosen.format not in ("table", "json"):
        raise UsageError(f"--format {chosen.format} shows boards, and {paths[0]} is one cell; use --format json")
    print_tables(
        chosen.format,
        lambda: [table for path in paths for table in cell_text.tables(path, installed)],
        lambda: [cell_text.record(path, installed) for path in paths],
    )


def _show_ranks(boards: Sequence[StoredBoard], chosen: _ShowOptions, extra: dict[str, Any]) -> None:
    from hashzoo.results import mean_ranks  # here, since it imports scipy.stats

    ranking = mean_ranks.rank([board.frame for board in boards], chosen.metric, None, extra)
    print_tables(
        chosen.format,
        lambda: [mean_ranks.render(ranking)],
        lambda: mean_ranks.ranking_records(ranking),
        mean_ranks.notes(ranking),
    )


def _tables(
    board: StoredBoard, arguments: tuple[Any, Any], by: str, extra: dict[str, Any], form: str
) -> list[TextTable]:
    """The tables of a board; those for papers mark what does not differ significantly from the best."""
    from hashzoo.results import render

    alike, tests = frozenset[int](), ""
    if form != "table" and by == "bits":
        from hashzoo.results.by_dataset import build_results
        from hashzoo.results.gaps import rows_like_best

        alike, tests = rows_like_best(build_results(board, None, extra))
    return [one.table() for one in render.views(board.frame, *arguments, by=by, extra=extra, alike=alike, tests=tests)]


def _records(
    board: StoredBoard, arguments: tuple[Any, Any], by: str, extra: dict[str, Any], form: str
) -> list[dict[str, Any]]:
    """The rows of a board with all digits; as JSON also the revisions and commands that measured them."""
    from hashzoo.results import leaderboard, provenance, render

    chosen = render.select(board.frame, *arguments, by=by, extra=extra)
    records = leaderboard.records(chosen)
    if form != "json":
        return records
    groups = [board.groups[number] if board.groups else [] for number in chosen.index]
    return [
        record | provenance.origins(cell.provenance for cell in cells)
        for record, cells in zip(records, groups, strict=True)
    ]


def _extra_metrics(frames: Sequence[DataFrame], plugins: tuple[str, ...]) -> dict[str, Any]:
    """The metrics of plugins, loaded only if a board has one: only its plugin knows whether higher is better."""
    from hashzoo.evaluation.metrics import built_in
    from hashzoo.results import leaderboard

    if not plugins and all(built_in(name) for frame in frames for name in leaderboard.metrics(frame)):
        return {}
    from hashzoo.registry.zoo import load_plugins

    return load_plugins(plugins).metric_functions()


@click.command()
@click.argument("before", type=file_path, metavar="DIR|CSV")
@click.argument("after", type=file_path, metavar="[DIR|CSV]", required=False)
@click.option("--between", metavar="M,M,...", help="Compare these methods of one board with each other.")
@click.option(
    "--against", metavar="METHOD", help="Compare every method of one board with this one, by the tests of the report."
)
@filter_options
@click.option("--metric", metavar="M", help="The score to test [default: the main one of the boards].")
@click.option(
    "--fail-on", multiple=True, metavar="RULE", help="Exit with 1 if a score falls further, such as 'map@all:-0.5%'."
)
@click.option("--force", is_flag=True, help="Compare means even if the protocols differ.")
@format_option
@json_option
@plugin_option
def compare(before: Path, after: Path | None, plugins: tuple[str, ...], **options: Any) -> None:
    """Compare two boards, or methods of one board, and test whether differences are significant.

    Boards are results folders or CSV files. Tests require the scores of single queries, which the folders that
    `hashzoo bench` writes contain. Timings are not compared. `--methods`, `--bits` and `--dataset` select rows before
    anything is tested, so p values are corrected for fewer tests.
    """
    from hashzoo.registry.installed import installed_code
    from hashzoo.results import regressions
    from hashzoo.results.board import read_board

    chosen = _CompareOptions(**options)
    form = chosen_format(chosen.form, chosen.as_json)
    rules = [regressions.parse_fail_on(text) for text in chosen.fail_on]
    chosen.check(after)
    installed = installed_code(plugins)
    wanted = row_filter(chosen.methods, chosen.bits, chosen.dataset)
    first = wanted.apply(read_board(before, installed))
    if chosen.against is not None:
        return _compare_against(first, chosen.against, chosen.metric, form, plugins)
    if after is None:
        return _compare_methods(first, chosen, form)
    broken = _compare_boards(first, wanted.apply(read_board(after, installed)), chosen, form, rules)
    for line in broken:
        click.echo(line, err=True)
    if broken:
        sys.exit(1)


@dataclass(frozen=True)
class _CompareOptions:
    between: str | None
    against: str | None
    methods: str | None
    bits: str | None
    dataset: str | None
    metric: str | None
    fail_on: tuple[str, ...]
    force: bool
    form: str | None
    as_json: bool

    def check(self, after: Path | None) -> None:
        """Raise UsageError unless there are two boards, or one board and the methods to compare."""
        if [after, self.between, self.against].count(None) != 2:
            raise UsageError(
                "name two boards, or one board and the methods to compare: --between first,second, or --against method"
            )
        if after is None and self.fail_on:
            option = "--between" if self.against is None else "--against"
            raise UsageError(f"--fail-on requires two boards; leave out {option} and name the second")


def _compare_against(board: StoredBoard, method: str, metric: str | None, form: str, plugins: tuple[str, ...]) -> None:
    """Compare every method of one board with one of them."""
    from hashzoo.results import against

    extra = _extra_metrics([board.frame], plugins)
    name = against.reference_metric(board, metric, extra)
    blocks = against.blocks_against(board, method, name, extra)
    print_tables(
        form,
        lambda: against.render_against(blocks, name),
        lambda: against.gap_records(blocks, name),
        against.notes_against(blocks),
    )


def _compare_methods(board: StoredBoard, chosen: _CompareOptions, form: str) -> None:
    """Compare methods of one board."""
    from hashzoo.results import paired

    pairs = paired.pair_methods(board, split_list("--between", chosen.between))
    name = _common_metric(pairs, [board], chosen.metric, chosen.force)
    found = paired.compare_pairs(pairs, name) if name else []
    print_tables(
        form,
        lambda: paired.render_paired(found, str(name)),
        lambda: [paired.pair_record(pair, str(name)) for pair in found],
        [*paired.notes(found), *paired.other_test(found, board)],
    )


def _compare_boards(
    first: StoredBoard, second: StoredBoard, chosen: _CompareOptions, form: str, rules: Sequence[Rule]
) -> list[str]:
    """Compare two boards, and return a line for each broken rule."""
    from hashzoo.results import paired, regressions

    pairs = paired.pair_boards(first, second)
    name = _common_metric(pairs, [first, second], chosen.metric, chosen.force)
    comparison = regressions.compare(first.frame, second.frame)
    found = paired.compare_pairs(pairs, name) if name else []
    tested = [pair for pair in found if pair.of_models is not None]  # the first table has the means of the others
    print_tables(
        form,
        lambda: [*regressions.render_compare(comparison), *paired.render_paired(tested, str(name))],
        lambda: _comparison_records(comparison, found, name),
        paired.notes(found),
    )
    return regressions.violations(comparison, rules) if rules else []


def _comparison_records(comparison: DataFrame, pairs: Sequence[Pair], metric: str | None) -> list[dict[str, Any]]:
    """The rows of a comparison; those of the tested metric have the interval and the p values."""
    from hashzoo.results import paired
    from hashzoo.results.board import index_by_place
    from hashzoo.results.leaderboard import PLACE, records

    tests = index_by_place(pairs, lambda pair: pair.first.facts)
    nothing = dict.fromkeys(("low", "high", "p models", "p training", "seeds", "queries", "reason"))
    found, counts = list[dict[str, Any]](), dict[tuple[Any, ...], int]()
    for row in records(comparison):
        place = tuple(row[name] for name in PLACE)
        nth = counts[*place, row["metric"]] = counts.get((*place, row["metric"]), -1) + 1
        pair = tests.get((*place, nth)) if row["metric"] == metric else None
        found.append(row | (paired.pair_tests(pair) if pair else nothing))
    return found


def _common_metric(
    pairs: list[tuple[BoardRow, BoardRow]], boards: list[StoredBoard], metric: str | None, force: bool
) -> str | None:
    """The score to test. Raises UsageError, or warns with ``force``, if the protocols of a pair differ."""
    from hashzoo.results import paired

    lines = paired.protocol_mismatches(pairs)
    if lines and not force:
        more = f" (and {len(lines) - 1} more rows)" if len(lines) > 1 else ""
        raise UsageError(f"{lines[0]}{more}; measure both on the same data, or compare the means alone with --force")
    for line in lines:
        click.echo(f"warning: {line}", err=True)
    return paired.select_metric(boards, metric)


@click.command()
@click.argument("results", type=file_path, nargs=-1, required=True, metavar="DIR...")
@click.option("-o", "--output", required=True, type=file_path, metavar="DIR", help="The new results folder.")
@click.option("--pack", is_flag=True, help="Write all cells to one file, cells.jsonl; one folder is enough.")
@click.option("--float16", "half", is_flag=True, help="With --pack: round the scores of single queries to float16.")
@plugin_option
def merge(results: tuple[Path, ...], output: Path, pack: bool, half: bool, plugins: tuple[str, ...]) -> None:
    """Write one results folder with the cells of several, such as those of `hashzoo bench --shard`.

    The folders must be of one benchmark, with the same protocol and splits. A cell that several have with the same
    results is written once; with different results, nothing is written. With --pack, DIR can be one of the folders:
    new cells beside its packed file are moved into it. Saved methods and output of processes are not packed.
    """
    from hashzoo.registry.installed import installed_code
    from hashzoo.results.merge import Packing, merge_folders

    if half and not pack:
        raise UsageError("--float16 requires --pack")
    if len(results) < 2 and not pack:
        raise UsageError("name two results folders or more, or write one as a packed file with --pack")
    cells, rows = merge_folders(results, output, installed_code(plugins), Packing(half) if pack else None)
    click.echo(f"{cells} cells in {rows} rows; written to {output}")
