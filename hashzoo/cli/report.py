"""`hashzoo report` and `hashzoo plot`. Imports torch only when a command runs."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hashzoo.cli.options import (
    check_output,
    check_root,
    device_option,
    file_path,
    filter_options,
    plugin_option,
    resolve_device,
    row_filter,
    split_list,
    style_of,
    style_options,
)

if TYPE_CHECKING:
    from hashzoo.report.page import PageOptions

_results = click.argument("results", type=file_path, nargs=-1, required=True, metavar="DIR|CSV...")
_metric = click.option("--metric", metavar="M", help="The score to rank by [default: the main one of each dataset].")
_highlight = click.option(
    "--highlight",
    metavar="A,B",
    help="Methods to show in detail, up to 8 [default: those of --methods if they are few, or the best ones].",
)
_root = click.option("--root", type=file_path, metavar="DIR", help="The folder of the dataset's files.")


@click.command()
@_results
@click.option("-o", "--output", type=file_path, default=Path("report.html"), show_default=True)
@_metric
@filter_options
@_highlight
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
@device_option
@plugin_option
def report(results: tuple[Path, ...], output: Path, plugins: tuple[str, ...], **options: Any) -> None:
    """Write results as one self-contained HTML file: leaderboard, charts, images, protocol.

    Several results folders of one benchmark, such as those of `hashzoo bench --shard`, give one page. Images are shown
    if the dataset is on this disk: nothing is downloaded, and one note says what is not included. Name the folder of
    its files with --root. Attention maps and confusion matrices require cells of `hashzoo bench --save-weights`.
    """
    from hashzoo.report.page import write

    check_output(output)
    check_root(options["root"])
    size = write(results, output, _page_options(**options), plugins, partial(click.echo, err=True))
    click.echo(f"written to {output} ({size / 1e6:.1f} MB)")


def _page_options(
    *,
    root: Path | None,
    metric: str | None,
    highlight: str | None,
    gallery: int,
    explain: str | None,
    device: str,
    **wanted: str | None,
) -> PageOptions:
    from hashzoo.report.page import PageOptions

    explained = None if explain is None else tuple(split_list("--explain", explain))
    rows, place = row_filter(**wanted), resolve_device(device)
    return PageOptions(metric, tuple(split_list("--highlight", highlight)), gallery, explained, root, rows, place)


@click.command()
@click.argument(
    "kind",
    type=click.Choice(
        ["pr", "bits", "bytes", "cost", "distances", "balance", "classes", "ranks", "training", "tuning"]
    ),
)
@_results
@click.option("-o", "--output", required=True, type=file_path, metavar="FILE.png|svg|pdf")
@_metric
@filter_options
@_highlight
@style_options
@_root
@plugin_option
def plot(kind: str, results: tuple[Path, ...], output: Path, plugins: tuple[str, ...], **options: Any) -> None:
    """Draw one chart of results, with a panel for each dataset or method.

    Precision-recall curves, scores by bits, by bytes or by cost, distances and balance of codes, training images of
    each class, mean ranks, loss and validation scores by epoch; of a study of `hashzoo tune`, validation scores by
    number of trials. Of several code lengths, the middle one is drawn where one is needed. Requires
    `pip install 'hashzoo[plots]'`.
    """
    from hashzoo.registry.zoo import load_plugins
    from hashzoo.report import figures, plots
    from hashzoo.results.by_dataset import read

    figures.check_suffix(output)
    check_output(output)
    check_root(options["root"])
    style = style_of(**{name: options.pop(name) for name in ("size", "font_size", "font")})
    wanted = row_filter(**{name: options.pop(name) for name in ("methods", "bits", "dataset")})
    if kind == "tuning":
        from hashzoo.report.study_figure import plot_study
        from hashzoo.results import study_tables, tuned

        study = study_tables.selected(tuned.read(results[0]), wanted)
        figure = plot_study(study, split_list("--highlight", options["highlight"]), style)
        figures.save(figure, output, partial(click.echo, err=True))
        return click.echo(f"written to {output}")
    extra = load_plugins(plugins).metric_functions()
    selection = plots.select(
        read(results, options["metric"], extra, wanted=wanted),
        extra,
        highlight=split_list("--highlight", options["highlight"]),
        few=bool(wanted.methods),
        plugins=plugins,
        root=options["root"],
    )
    figures.save(plots.plot(kind, selection, style), output, partial(click.echo, err=True))
    click.echo(f"written to {output}")
