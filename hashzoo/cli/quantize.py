"""`hashzoo quantize`: which code for vectors of the user. Imports torch only when the command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hashzoo.cli.options import file_path, numbers, plugin_option, size, split_list
from hashzoo.cli.output import json_option, print_json


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
@click.option("--results", type=file_path, help="Folder [default: hashzoo-results/quantize].")
@click.option("--jobs", type=click.IntRange(min=1), help="Cells that run at once [default: the number of cores].")
@json_option
@plugin_option
def quantize(file: Path, budget: str | None, as_json: bool, **asked: Any) -> None:
    """Find the code for your vectors: how many bytes, and how many candidates to compare again exactly.

    FILE holds vectors, such as embeddings. A row of the table is a code: the recall of the k exact neighbors among k,
    2 k, ... 10 k candidates, and the factors that the target and .99 need. Cells that are in the results folder are not
    measured again.
    """
    from rich.console import Console

    from hashzoo import api
    from hashzoo.api.quantization import records_of

    options = {name: value for name, value in asked.items() if value not in (None, ())}
    for name, read in (("methods", split_list), ("bits", numbers)):
        if name in options:
            options[name] = read(f"--{name}", options[name])
    limit = size(budget) if budget else None
    screen = api.Screen(Console(stderr=True) if as_json else None)
    found = api.quantize(file, budget=limit, progress=screen, **options)
    if as_json:
        return print_json(records_of(found.choices))
    _show(records_of(found.choices), asked["target"])
    click.echo(found.advice)


def _show(records: list[dict[str, Any]], target: float) -> None:
    """Print the codes as a table."""
    from hashzoo.results import table
    from hashzoo.results.render import compact, duration

    rows = [
        {
            "method": one["method"] + ("*" if one["front"] else ""),
            "bits": one["bits"],
            "bytes": f"{one['bytes']:g}",
            **{name: f"{one[name]:.3f}" for name in one if name.endswith("x")},
            "±": f"{one['interval']:.3f}",
            f"F({target:g})": f"{one['factor']:g}",
            "F(0.99)": f"{one['factor_0.99']:g}",
            "fit": duration(one["fit_seconds"] or 0),
            "encode/s": compact(one["encode_per_second"] or 0),
            "search/s": compact(one["search_per_second"]) if one["search_per_second"] else "",
            "10^6 rows": f"{compact(one['bytes_1e6'])}B",
            "10^8 rows": f"{compact(one['bytes_1e8'])}B",
        }
        for one in records
    ]
    made = table.of_records(rows, identifies="method")
    table.show([made], ["*: no other code takes as few bytes and as few candidates", "/asym: the query stays real"])
