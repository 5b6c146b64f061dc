"""`hashzoo show` and `hashzoo compare`. Imports pandas only when a command runs."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hashzoo.cli.options import file_path, plugin_option, split_list
from hashzoo.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandas import DataFrame

    from hashzoo.results.board import BoardRow, StoredBoard


def _print(tables: list[Any], lines: Sequence[str] = ()) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console()
    for one in (*tables, *map(Text, lines)):
        console.print(one)


@click.command()
@click.argument("results", type=file_path, nargs=-1, required=True, metavar="DIR|CSV|CELL.json...")
@click.option("--sort", metavar="COLUMN", help="Sort by this column.")
@click.option("--columns", metavar="A,B", help="Only these columns.")
@click.option(
    "--by", type=click.Choice(["bits", "stored"]), default="bits", show_default=True, help="How rows are grouped."
)
@click.option(
    "--rank", is_flag=True, help="Show mean ranks over datasets and bits, and which differences are not significant."
)
@click.option("--methods", metavar="A,B", help="With --rank: only these methods.")
@click.option("--metric", metavar="M", help="With --rank: the score to rank by [default: the main one of the boards].")
@plugin_option
def show(results: tuple[Path, ...], plugins: tuple[str, ...], **options: Any) -> None:
    """Show leaderboards, with the best value of each column marked, or everything recorded about single cells.

    `--by stored` groups methods that store the same number of bits. `--rank` can combine several results folders.
    """
    from hashzoo.registry.installed import installed_code

    if any(path.suffix == ".json" for path in results):
        from hashzoo.results import cell_text

        return _print([table for path in results for table in cell_text.tables(path, installed_code(plugins))])
    from rich.console import Console

    from hashzoo.results import render
    from hashzoo.results.board import read_board

    chosen = _ShowOptions(**options)
    chosen.check()
    frames = [read_board(path, installed_code(plugins)).frame for path in results]
    extra = _extra_metrics(frames, plugins)
    if chosen.rank:
        from hashzoo.results import mean_ranks  # here, since it imports scipy.stats

        ranking = mean_ranks.rank(frames, chosen.metric, split_list("--methods", chosen.methods) or None, extra)
        return _print([mean_ranks.render(ranking)], mean_ranks.notes(ranking))
    group, columns = "stored_bits" if chosen.by == "stored" else "bits", split_list("--columns", chosen.columns) or None
    for frame in frames:
        _print(render.render(frame, chosen.sort, columns, Console().width, by=group, extra=extra))


@dataclass(frozen=True)
class _ShowOptions:
    sort: str | None
    columns: str | None
    by: str
    rank: bool
    methods: str | None
    metric: str | None

    def check(self) -> None:
        """Raise UsageError for an option that does not apply."""
        for option, value in (("--sort", self.sort), ("--columns", self.columns)) if self.rank else ():
            if value is not None:
                raise UsageError(f"{option} cannot be combined with --rank")
        for option, value in (("--methods", self.methods), ("--metric", self.metric)) if not self.rank else ():
            if value is not None:
                raise UsageError(f"{option} requires --rank")


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
@click.option("--metric", metavar="M", help="The score to test [default: the main one of the boards].")
@click.option(
    "--fail-on", multiple=True, metavar="RULE", help="Exit with 1 if a score falls further, such as 'map@all:-0.5%'."
)
@click.option("--force", is_flag=True, help="Compare means even if the protocols differ.")
@plugin_option
def compare(
    before: Path,
    after: Path | None,
    between: str | None,
    metric: str | None,
    fail_on: tuple[str, ...],
    force: bool,
    plugins: tuple[str, ...],
) -> None:
    """Compare two boards, or methods of one board, and test whether differences are significant.

    Boards are results folders or CSV files. Tests require the scores of single queries, which the folders that
    `hashzoo bench` writes contain. Timings are not compared.
    """
    from hashzoo.registry.installed import installed_code
    from hashzoo.results import paired, regressions
    from hashzoo.results.board import read_board

    rules = [regressions.parse_fail_on(text) for text in fail_on]
    if (after is None) == (between is None):
        raise UsageError("name two boards, or one board and the methods to compare: --between first,second")
    if after is None and rules:
        raise UsageError("--fail-on requires two boards; leave out --between and name the second")
    installed = installed_code(plugins)
    first = read_board(before, installed)
    if after is None:
        pairs = paired.pair_methods(first, split_list("--between", between))
        name = _common_metric(pairs, [first], metric, force)
        found = paired.compare_pairs(pairs, name) if name else []
        _print(paired.render_paired(found, str(name)), paired.notes(found))
        return
    second = read_board(after, installed)
    pairs = paired.pair_boards(first, second)
    name = _common_metric(pairs, [first, second], metric, force)
    comparison = regressions.compare(first.frame, second.frame)
    found = paired.compare_pairs(pairs, name) if name else []
    tested = [pair for pair in found if pair.of_models is not None]  # the first table has the means of the others
    _print([*regressions.render_compare(comparison), *paired.render_paired(tested, str(name))], paired.notes(found))
    broken = regressions.violations(comparison, rules) if rules else []
    for line in broken:
        click.echo(line, err=True)
    if broken:
        sys.exit(1)


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
