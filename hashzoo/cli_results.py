"""`hashzoo show` and `compare`: what people do with results. Nothing here imports pandas before it is needed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from hashzoo.cli_options import parted, plugin_option


def _print(tables: list[Any]) -> None:
    from rich.console import Console

    console = Console()
    for one in tables:
        console.print(one)


@click.command()
@click.argument("results", type=click.Path(path_type=Path), metavar="DIR|CSV")
@click.option("--sort", metavar="COLUMN", help="Sort by this column.")
@click.option("--columns", metavar="A,B", help="Only these columns.")
@click.option("--by", type=click.Choice(["bits", "stored"]), default="bits", show_default=True, help="Rows grouped by.")
@plugin_option
def show(results: Path, sort: str | None, columns: str | None, by: str, plugins: tuple[str, ...]) -> None:
    """The leaderboard in the terminal, the best of each column marked.

    `--by stored` compares methods that store as many bits, whatever number was asked for.
    """
    from rich.console import Console

    from hashzoo import leaderboard, tables
    from hashzoo.metrics import built_in

    frame = leaderboard.read_csv(results)
    extra = {}
    if plugins or not all(map(built_in, leaderboard.metrics(frame))):  # only plugins know whether more is better
        from hashzoo import zoo

        extra = zoo.load(plugins).metric_functions()
    group = "stored_bits" if by == "stored" else "bits"
    _print(tables.render(frame, sort, parted(columns) or None, Console().width, by=group, extra=extra))


@click.command()
@click.argument("before", type=click.Path(path_type=Path), metavar="A.csv")
@click.argument("after", type=click.Path(path_type=Path), metavar="B.csv")
@click.option("--fail-on", multiple=True, metavar="RULE", help="Such as 'map@all:-0.5%': exit 1 where it falls more.")
def compare(before: Path, after: Path, fail_on: tuple[str, ...]) -> None:
    """What rose, fell, came and went between two leaderboards (files or results folders)."""
    from hashzoo import leaderboard, tables

    rules = [tables.parse_fail_on(text) for text in fail_on]
    comparison = tables.compare(leaderboard.read_csv(before), leaderboard.read_csv(after))
    _print(list(tables.render_compare(comparison)))
    broken = tables.violations(comparison, rules) if rules else []
    for line in broken:
        click.echo(line, err=True)
    if broken:
        sys.exit(1)
