"""`hashzoo quantize`: which code for vectors of the user. Imports torch only when the command runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hashzoo.cli.options import ChoiceWithAliases, check_output, file_path, numbers, plugin_option, size, split_list
from hashzoo.cli.output import json_option, print_json
from hashzoo.errors import printable

if TYPE_CHECKING:
    from hashzoo.api import Quantization


@click.command()
@click.argument("file", type=file_path)
@click.option("--queries", type=file_path, help="A file of queries [default: a tenth of the rows, at most 1,000].")
@click.option("--metric", type=click.Choice(["cosine", "ip", "l2"]), help="[default: that of the file, or cosine]")
@click.option("--methods", metavar="A,B,'p*'", help="Methods or patterns [default: those of the benchmark quantize].")
@click.option("--bits", metavar="64,128", help="Code lengths [default: those of the benchmark quantize].")
@click.option("--k", type=click.IntRange(min=1), default=10, show_default=True, help="Neighbors per query.")
@click.option(
    "--target",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.95,
    show_default=True,
    help="Mean recall after candidates are compared again exactly.",
)
@click.option("--budget", metavar="32B", help="Bytes per item at most, in the advice.")
@click.option(
    "--train",
    type=click.IntRange(min=1),
    help="Rows that methods learn from  [default: at most 10,000 (4,096 of wide vectors), drawn from the database].",
)
@click.option("-o", "--output", type=file_path, metavar="DIR", help="Keep the winner, for hashzoo encode and index.")
@click.option("--report", type=file_path, metavar="PAGE.html", help="Write the curves and the table as a page.")
@click.option("--results", type=file_path, help="Folder [default: hashzoo-results/quantize].")
@click.option(
    "--on-bad-image",
    type=ChoiceWithAliases(["error", "skip"], {"stop": "error"}),
    help="What to do about rows that hold inf, NaN or only zeros: stop, or leave them out  [default: error].",
)
@click.option("--jobs", type=click.IntRange(min=1), help="Cells that run at once [default: the number of cores].")
@json_option
@plugin_option
def quantize(
    file: Path, budget: str | None, output: Path | None, report: Path | None, as_json: bool, **asked: Any
) -> None:
    """Find the code for your vectors: how many bytes, and how many candidates to compare again exactly.

    FILE holds vectors, such as embeddings. A row of the table is a code: the recall of the k exact neighbors among k,
    2 k, ... 10 k candidates, and the factors that the target and .99 need. Cells that are in the results folder are not
    measured again.
    """
    from rich.console import Console

    from hashzoo import api
    from hashzoo.api.quantization import check_folder
    from hashzoo.results.choices import records_of

    options = {name: value for name, value in asked.items() if value not in (None, ())}
    for name, read in (("methods", split_list), ("bits", numbers)):
        if name in options:
            options[name] = read(f"--{name}", options[name])
    limit = size(budget) if budget else None
    if output:
        check_folder(output)
    if report:
        check_output(report)
    screen = api.Screen(Console(stderr=True) if as_json else None)
    found = api.quantize(file, budget=limit, progress=screen, **options)
    if as_json:
        print_json(records_of(found.choices))
        click.echo(found.advice, err=True)
    else:
        _show(found)
    _keep(found, file, output, report, as_json)


def _show(found: Quantization) -> None:
    """Print the codes as a table, and the advice."""
    from hashzoo.report.quantize import NOTES, rows_of
    from hashzoo.results import table

    made = table.of_records(rows_of(found.choices, found.target), identifies="method")
    table.show([made], list(NOTES))
    click.echo(found.advice)


def _keep(found: Quantization, file: Path, output: Path | None, report: Path | None, as_json: bool) -> None:
    """Write the winner and the page, and print what was written."""
    if report:
        from hashzoo.report.quantize import write

        write(report, file.name, found.choices, found.advice, found.k, found.target)
        click.echo(f"written to {printable(report)}", err=as_json)
    if output:
        chosen = found.save(output)
        click.echo(f"{chosen.name} of {chosen.size:g} B written to {printable(output)}", err=as_json)
