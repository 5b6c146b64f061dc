"""The command `hashzoo`. Imports torch and pandas only when a command runs."""

from __future__ import annotations

import atexit
import gc
import json
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import click

from hashzoo._version import __version__
from hashzoo.cli.bench import bench
from hashzoo.cli.cite import cite
from hashzoo.cli.data import data
from hashzoo.cli.dedup import dedup
from hashzoo.cli.develop import check, new_plugin
from hashzoo.cli.encode import encode
from hashzoo.cli.index_folder import index
from hashzoo.cli.options import (
    device_option,
    file_path,
    plugin_option,
    require_cpu,
    resolve_device,
    split_list,
    style_of,
    style_options,
)
from hashzoo.cli.output import json_option, print_json
from hashzoo.cli.plan import plan
from hashzoo.cli.quantize import quantize
from hashzoo.cli.report import plot, report
from hashzoo.cli.results import compare, merge, show
from hashzoo.cli.search import export, search
from hashzoo.cli.serve import serve
from hashzoo.cli.share import push, submit, verify
from hashzoo.cli.streams import closed_pipe_is_no_error, replace_unprintable
from hashzoo.cli.tune import tune
from hashzoo.errors import EnvironmentFailure, HashzooError, UsageError, printable

KINDS = (
    *("methods", "backbones", "heads", "losses", "datasets", "metrics"),
    *("launchers", "trackers", "benchmarks", "plugins"),
)
INTERRUPTED = 130


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


class Group(click.Group):
    """The group of all commands. Without --debug, an error is printed on one line and sets the exit code."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command and exit with its code."""
        replace_unprintable()
        with closed_pipe_is_no_error():
            return self._main(*args, **kwargs)

    def _main(self, *args: Any, **kwargs: Any) -> Any:
        debug = "--debug" in sys.argv[1:]
        atexit.register(gc.freeze)  # skips a last collection of all objects of torch, a fifth of its import time
        with suppress(ValueError):  # not in the main thread, which alone can handle signals
            signal.signal(signal.SIGTERM, _interrupt)  # like Ctrl-C: ends children, writes the leaderboard
        try:
            return super().main(*args, **{**kwargs, "standalone_mode": False})
        except click.exceptions.Exit as error:
            sys.exit(error.exit_code)
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        except (click.Abort, KeyboardInterrupt):
            click.echo("interrupted; no partial files were left. Run the same command to resume.", err=True)
            sys.exit(INTERRUPTED)
        except BrokenPipeError:
            raise
        except HashzooError as error:
            if debug:
                raise
            click.echo(f"hashzoo: {printable(error)}", err=True)
            sys.exit(error.exit_code)
        except (OSError, MemoryError, ImportError) as error:
            if debug:
                raise
            click.echo(f"hashzoo: {type(error).__name__}: {printable(error)}", err=True)
            sys.exit(EnvironmentFailure.exit_code)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hashzoo")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Train methods that learn to hash images, measure them and compare them."""


for _command in (
    bench,
    tune,
    quantize,
    data,
    dedup,
    show,
    compare,
    merge,
    submit,
    push,
    verify,
    encode,
    index,
    search,
    export,
    plan,
    serve,
    report,
    plot,
    cite,
    check,
    new_plugin,
):
    main.add_command(_command)


@main.command("list")
@click.argument("listed", type=click.Choice(KINDS))
@click.argument("pattern", required=False)
@click.option("--kind", metavar="shallow|deep", help="Only methods of this kind.")
@click.option("--supervision", metavar="none|pairs|classes", help="Only methods with this supervision.")
@click.option("--labels", metavar="single|multi", help="Only methods for single-label or multi-label images.")
@click.option("--year", metavar="Y|Y-Y", help="Only methods of a year, or a range such as 2015-2018.")
@click.option("--space", is_flag=True, help="The ranges of methods, losses or heads that hashzoo tune searches.")
@json_option
@plugin_option
def list_(
    listed: str, pattern: str | None, space: bool, as_json: bool, plugins: tuple[str, ...], **cards: str | None
) -> None:
    """List methods, backbones, heads, losses, datasets, metrics, and everything else that plugins provide."""
    from fnmatch import fnmatchcase

    from hashzoo.cli import listing
    from hashzoo.registry import zoo

    wanted = {name: value for name, value in cards.items() if value is not None}
    found = listing.selected(listed, listing.rows(listed, zoo.load_plugins(plugins), pattern), wanted)
    if pattern:
        glob = pattern if any(c in pattern for c in "*?[") else f"*{pattern}*"
        found = [row for row in found if fnmatchcase(str(row["name"]), glob)]
    if space:
        found = listing.spaces(listed, zoo.load_plugins(plugins), [str(row["name"]) for row in found])
    if as_json:
        print_json(found)
    elif space:
        listing.show_spaces(found)
    else:
        listing.show(listed, found)


@main.command()
@click.argument("codes", type=file_path, metavar="CODES.npz")
@click.option("--metrics", default="map@all,map@100,p@h2", show_default=True, metavar="M,...")
@click.option("--bits", type=click.IntRange(min=1), help="Bits of packed codes, if the last byte is not full.")
@click.option("-o", "--output", type=file_path, help="The .json file for means and per-query values.")
@json_option
@device_option
def evaluate(codes: Path, metrics: str, bits: int | None, output: Path | None, as_json: bool, device: str) -> None:
    """Score codes in an .npz of query_codes, database_codes, query_labels and database_labels.

    Codes are bool, packed uint8, or numbers that are 0 and 1 or -1 and +1; labels are integers or multi-hot. They are
    compared on the CPU. Exit code 1: no query has a relevant item, or every score is nan.
    """
    require_cpu(device, "hashzoo evaluate compares codes")
    from hashzoo.evaluation.codes_file import read_codes
    from hashzoo.evaluation.metrics import evaluate as score
    from hashzoo.storage.files import replace_bytes

    query, database, query_labels, database_labels = read_codes(codes)
    try:
        found = score(query, database, query_labels, database_labels, split_list("--metrics", metrics), bits)
    except ValueError as error:
        raise UsageError(f"{codes}: {error}") from error
    for note in found.notes:
        click.echo(f"note: {note}", err=True)
    if all(value != value for value in found.means.values()):  # NaN
        _no_score(codes, found.excluded, found.queries)
    plain: Callable[[float], float | None] = lambda v: None if v != v else v  # noqa: E731 - JSON has no NaN
    lines = {**found.means, "queries_without_relevant": found.excluded}
    if as_json:
        print_json([{"name": name, "value": plain(value)} for name, value in lines.items()])
    for name, value in [] if as_json else lines.items():
        click.echo(f"{name}\t{value!r}")
    target = output or codes.with_suffix(".metrics.json")
    content = {
        "schema": 1,
        "means": {name: plain(value) for name, value in found.means.items()},
        "queries_without_relevant": found.excluded,
        "per_query": {name: [plain(float(v)) for v in values] for name, values in found.per_query.items()},
    }
    replace_bytes(target, json.dumps(content, indent=1).encode())
    click.echo(f"written to {target}", err=as_json)


def _no_score(codes: Path, excluded: int, queries: int) -> NoReturn:
    """Say why every score is nan, and exit with 1."""
    reason = (
        f"none of the {queries} queries has a relevant item; query_labels and database_labels must number classes alike"
        if excluded == queries
        else "every score is nan; choose other metrics with --metrics"
    )
    click.echo(f"hashzoo: {printable(codes)}: {reason}", err=True)
    sys.exit(1)


@main.command()
@click.argument("images", nargs=-1, type=file_path, metavar="[IMAGE...]")
@click.option("--run", "cell", required=True, type=file_path, metavar="CELL", help="A cell's .json.")
@click.option(
    "--figure",
    type=click.Choice(["looks", "classes", "confusion", "pr"]),
    default="looks",
    show_default=True,
    help="Attention maps; training images by class; confusion matrix; precision-recall curve.",
)
@click.option("-o", "--output", required=True, type=file_path, metavar="FILE.png|svg|pdf")
@click.option("--root", type=file_path, metavar="DIR", help="The folder of the dataset's files.")
@style_options
@device_option
@plugin_option
def explain(images: tuple[Path, ...], cell: Path, figure: str, output: Path, **options: Any) -> None:
    """Draw attention maps of a trained method for IMAGEs, or figures of a cell's data and results.

    `looks` and `confusion` require a cell of `hashzoo bench --save-weights`; `looks` requires images.
    """
    from hashzoo.registry import hub
    from hashzoo.report import figures
    from hashzoo.report.draw import Source, draw

    figures.check_suffix(output)
    cell = hub.pull(named) if (named := hub.reference(cell)) else cell
    if (figure == "looks") != bool(images):
        raise UsageError(
            f"--figure {figure} requires an IMAGE" if not images else f"--figure {figure} does not take an IMAGE"
        )
    style = style_of(**{name: options.pop(name) for name in ("size", "font_size", "font")})
    source = Source(cell, images, options["plugins"], options["root"], resolve_device(options["device"]))
    figures.save(draw(figure, source, style), output, partial(click.echo, err=True))
    click.echo(f"written to {output}")
