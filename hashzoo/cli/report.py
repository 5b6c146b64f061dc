"""`hashzoo report` and `hashzoo plot`. Imports torch only when a command runs."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hashzoo.cli.options import check_output, check_root, file_path, plugin_option, split_list

if TYPE_CHECKING:
    from hashzoo.report.page import PageOptions

_results = click.argument("results", type=file_path, metavar="DIR|CSV")
_metric = click.option("--metric", metavar="M", help="The score to rank by [default: the main one of each dataset].")
_methods = click.option(
    "--methods", metavar="A,B", help="Methods to show in detail, up to 8 [default: described on the page]."
)
_root = click.option("--root", type=file_path, metavar="DIR", help="The folder of the dataset's files.")


@click.command()
@_results
@click.option("-o", "--output", type=file_path, default=Path("report.html"), show_default=True)
@_metric
@_methods
@click.option(
    "--gallery",
    type=click.IntRange(min=0),
    default=8,
    show_default=True,
    help="Number of queries shown with their results.",
)
@click.option(
    "--explain", metavar="A,B|none", help="Methods to explain from their saved weights [default: the best 3]."
)
@_root
@plugin_option
def report(results: Path, output: Path, root: Path | None, plugins: tuple[str, ...], **options: Any) -> None:
    """Write results as one self-contained HTML file: leaderboard, charts, images, protocol.

    Images are shown if the data can be loaded; name the folder of its files with --root. Attention maps and confusion
    matrices require cells of `hashzoo bench --save-weights`.
    """
    from hashzoo.report.page import write

    check_output(output)
    check_root(root)
    size = write(results, output, _page_options(root, **options), plugins, partial(click.echo, err=True))
    click.echo(f"written to {output} ({size / 1e6:.1f} MB)")


def _page_options(
    root: Path | None, metric: str | None, methods: str | None, gallery: int, explain: str | None
) -> PageOptions:
    from hashzoo.report.page import PageOptions

    explained = None if explain is None else tuple(split_list("--explain", explain))
    return PageOptions(metric, tuple(split_list("--methods", methods)), gallery, explained, root)


@click.command()
@click.argument("kind", type=click.Choice(["pr", "bits", "cost", "distances", "balance", "classes", "ranks"]))
@_results
@click.option("-o", "--output", required=True, type=file_path, metavar="FILE.png|svg")
@click.option("--dataset", metavar="D", help="Only this dataset.")
@click.option("--bits", type=click.IntRange(min=1), metavar="K", help="Code length [default: the middle one].")
@_metric
@_methods
@_root
@plugin_option
def plot(kind: str, results: Path, output: Path, metric: str | None, plugins: tuple[str, ...], **options: Any) -> None:
    """Draw one chart of results, with a panel for each dataset or method.

    Precision-recall curves, scores by bits or by cost, distances and balance of codes, training images of each class,
    mean ranks. Requires `pip install 'hashzoo[plots]'`.
    """
    from hashzoo.registry.zoo import load_plugins
    from hashzoo.report import figures, plots
    from hashzoo.report.results import read

    figures.check_suffix(output)
    check_output(output)
    check_root(options["root"])
    extra = load_plugins(plugins).metric_functions()
    options["methods"] = split_list("--methods", options["methods"])
    selection = plots.select(read(results, metric, extra), extra, plugins=plugins, **options)
    figures.save(plots.plot(kind, selection), output)
    click.echo(f"written to {output}")
