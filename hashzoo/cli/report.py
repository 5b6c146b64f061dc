"""`hashzoo report` and `plot`: results as one page, and as figures. Nothing here imports torch before it is needed."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from hashzoo.cli.options import insist_on_room, insist_on_root, parted, plugin_option

_results = click.argument("results", type=click.Path(path_type=Path), metavar="DIR|CSV")
_metric = click.option("--metric", metavar="M", help="The score to rank by; default: the main one of each dataset.")
_methods = click.option("--methods", metavar="A,B", help="Methods to look at closely, up to 8; default: see the page.")
_root = click.option("--root", type=click.Path(path_type=Path), metavar="DIR", help="Where the files of the data lie.")


@click.command()
@_results
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("report.html"), show_default=True)
@_metric
@_methods
@click.option(
    "--gallery", type=click.IntRange(min=0), default=8, show_default=True, help="Queries shown with what they find."
)
@click.option("--explain", metavar="A,B|none", help="Methods whose kept weights are looked into; default: the best 3.")
@_root
@plugin_option
def report(
    results: Path,
    output: Path,
    metric: str | None,
    methods: str | None,
    gallery: int,
    explain: str | None,
    root: Path | None,
    plugins: tuple[str, ...],
) -> None:
    """Results as one HTML file that needs nothing else: board, charts, images, protocol.

    Images are shown where the data can be loaded: name the folder of their files with --root. Where a method looks
    and what it takes for what needs cells of `hashzoo bench --save-weights`.
    """
    from hashzoo.report.page import PageOptions, write

    insist_on_room(output)
    insist_on_root(root)
    options = PageOptions(
        metric, tuple(parted(methods)), gallery, None if explain is None else tuple(parted(explain)), root
    )
    size = write(results, output, options, plugins, partial(click.echo, err=True))
    click.echo(f"written to {output} ({size / 1e6:.1f} MB)")


@click.command()
@click.argument("kind", type=click.Choice(["pr", "bits", "cost", "distances", "balance", "classes", "ranks"]))
@_results
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), metavar="FILE.png|svg")
@click.option("--dataset", metavar="D", help="Only this dataset.")
@click.option("--bits", type=click.IntRange(min=1), metavar="K", help="Code length; default: the middle one.")
@_metric
@_methods
@_root
@plugin_option
def plot(
    kind: str,
    results: Path,
    output: Path,
    dataset: str | None,
    bits: int | None,
    metric: str | None,
    methods: str | None,
    root: Path | None,
    plugins: tuple[str, ...],
) -> None:
    """One chart of results as a figure: a panel a dataset, or a method.

    Precision over recall, scores by bits or by cost, distances and balance of codes, training images of each class,
    mean ranks. Needs `pip install 'hashzoo[plots]'`.
    """
    from hashzoo.registry import zoo
    from hashzoo.report import figures, plots
    from hashzoo.report.results import read

    figures.check_suffix(output)
    insist_on_room(output)
    insist_on_root(root)
    extra = zoo.load_plugins(plugins).metric_functions()
    found = read(results, metric, extra)
    choice = plots.select(found, extra, dataset=dataset, bits=bits, methods=parted(methods), plugins=plugins, root=root)
    figures.save(plots.plot(kind, choice), output)
    click.echo(f"written to {output}")
