"""`hashzoo show` and `compare`: what people do with results. Nothing here imports pandas before it is needed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hashzoo.cli.options import parted, plugin_option
from hashzoo.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hashzoo.results.board import BoardRow, StoredBoard


def _print(tables: list[Any], lines: Sequence[str] = ()) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console()
    for one in (*tables, *map(Text, lines)):
        console.print(one)


@click.command()
@click.argument("results", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="DIR|CSV|CELL.json...")
@click.option("--sort", metavar="COLUMN", help="Sort by this column.")
@click.option("--columns", metavar="A,B", help="Only these columns.")
@click.option("--by", type=click.Choice(["bits", "stored"]), default="bits", show_default=True, help="Rows grouped by.")
@click.option("--rank", is_flag=True, help="Mean ranks over datasets and bits, and who cannot be told apart.")
@click.option("--methods", metavar="A,B", help="With --rank: only these methods.")
@click.option("--metric", metavar="M", help="With --rank: by this score; default: the main one of the boards.")
@plugin_option
def show(
    results: tuple[Path, ...],
    sort: str | None,
    columns: str | None,
    by: str,
    rank: bool,
    methods: str | None,
    metric: str | None,
    plugins: tuple[str, ...],
) -> None:
    """The leaderboard in the terminal, the best of each column marked; or all that is known of one cell.

    `--by stored` compares methods that store as many bits, whatever number was asked for. `--rank` takes several
    results folders.
    """
    from hashzoo.registry.installed import installed_code

    if any(path.suffix == ".json" for path in results):
        from hashzoo.results import cell_text

        return _print([table for path in results for table in cell_text.tables(path, installed_code(plugins))])
    from rich.console import Console

    from hashzoo.evaluation.metrics import built_in
    from hashzoo.results import leaderboard, render
    from hashzoo.results.board import read_board

    for option, value in (("--sort", sort), ("--columns", columns)) if rank else ():
        if value is not None:
            raise UsageError(f"{option} says nothing of ranks; leave out it or --rank")
    for option, value in (("--methods", methods), ("--metric", metric)) if not rank else ():
        if value is not None:
            raise UsageError(f"{option} goes with --rank; add that, or leave it out")
    frames = [read_board(path, installed_code(plugins)).frame for path in results]
    extra = {}
    if plugins or not all(built_in(name) for frame in frames for name in leaderboard.metrics(frame)):
        from hashzoo.registry import zoo  # only plugins know whether more is better

        extra = zoo.load_plugins(plugins).metric_functions()
    if rank:
        from hashzoo.results import mean_ranks

        ranked = mean_ranks.rank(frames, metric, parted(methods) or None, extra)
        _print([mean_ranks.render(ranked)], mean_ranks.notes(ranked))
        return
    group = "stored_bits" if by == "stored" else "bits"
    for frame in frames:
        _print(render.render(frame, sort, parted(columns) or None, Console().width, by=group, extra=extra))


@click.command()
@click.argument("before", type=click.Path(path_type=Path), metavar="DIR|CSV")
@click.argument("after", type=click.Path(path_type=Path), metavar="[DIR|CSV]", required=False)
@click.option("--between", metavar="M,M,...", help="Compare these methods of one board with each other.")
@click.option("--metric", metavar="M", help="The score that is tested; default: the main one of the boards.")
@click.option("--fail-on", multiple=True, metavar="RULE", help="Such as 'map@all:-0.5%': exit 1 where it falls more.")
@click.option("--force", is_flag=True, help="Compare means though the protocols are not the same.")
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
    """What rose and fell between two boards, or between methods of one, and whether it is more than chance.

    Boards are results folders or CSV files. Differences are tested where the scores of single queries are there,
    as in the folders that hashzoo bench writes. Timings are never compared.
    """
    from hashzoo.registry.installed import installed_code
    from hashzoo.results import paired, regressions
    from hashzoo.results.board import read_board

    rules = [regressions.parse_fail_on(text) for text in fail_on]
    if (after is None) == (between is None):
        raise UsageError("compare takes two boards, or one and the methods to compare in it: --between first,second")
    if after is None and rules:
        raise UsageError("--fail-on compares two boards; leave out --between and name the second")
    installed = installed_code(plugins)
    first = read_board(before, installed)
    if after is None:
        pairs = paired.pair_methods(first, parted(between))
        name = _same(pairs, [first], metric, force)
        found = paired.compare_pairs(pairs, name) if name else []
        _print(paired.render_paired(found, str(name)), paired.notes(found))
        return
    second = read_board(after, installed)
    pairs = paired.pair_boards(first, second)
    name = _same(pairs, [first, second], metric, force)
    comparison = regressions.compare(first.frame, second.frame)
    found = paired.compare_pairs(pairs, name) if name else []
    tested = [pair for pair in found if pair.of_models is not None]  # the first table has the means of the others
    _print([*regressions.render_compare(comparison), *paired.render_paired(tested, str(name))], paired.notes(found))
    broken = regressions.violations(comparison, rules) if rules else []
    for line in broken:
        click.echo(line, err=True)
    if broken:
        sys.exit(1)


def _same(
    pairs: list[tuple[BoardRow, BoardRow]], boards: list[StoredBoard], metric: str | None, force: bool
) -> str | None:
    """The score to test, where all pairs measured the same thing; else UsageError, or warnings if ``force``."""
    from hashzoo.results import paired

    lines = paired.protocol_mismatches(pairs)
    if lines and not force:
        more = f" (and {len(lines) - 1} more rows)" if len(lines) > 1 else ""
        raise UsageError(f"{lines[0]}{more}; measure both on the same data, or compare the means alone with --force")
    for line in lines:
        click.echo(f"warning: {line}", err=True)
    return paired.select_metric(boards, metric)
