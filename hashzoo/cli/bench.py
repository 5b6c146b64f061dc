"""`hashzoo bench`: train and measure methods. Imports torch only when the command runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hashzoo.cli.options import (
    ChoiceWithAliases,
    DeviceName,
    bad_image_option,
    file_path,
    numbers,
    plugin_option,
    settings,
    shard,
    size,
    split_list,
)
from hashzoo.cli.output import json_option, print_json, print_tables
from hashzoo.errors import UsageError

if TYPE_CHECKING:
    from hashzoo.api import Board
    from hashzoo.results.cell import Cell

F = TypeVar("F", bound=Callable[..., Any])


#: The options that `bench` and `tune` share, in the order of their help texts.
_OPTIONS = (
    click.option("--methods", metavar="A,B,'p*'", help="Methods, patterns, or head+loss."),
    click.option("--dataset", metavar="D,...", help="Replace the datasets of the file."),
    click.option("--root", type=file_path, help="The folder of the images of datasets that require it."),
    click.option("--backbone", metavar="B", help="One backbone for every kind of method."),
    click.option("--bits", metavar="16,32", help="Code lengths."),
    click.option("--seeds", metavar="0,1,2", help="Seeds."),
    click.option("--epochs", type=click.IntRange(min=1), help="Epochs of the budget."),
    click.option(
        "--precision",
        type=ChoiceWithAliases(["fp32", "bf16", "fp16"], {"32": "fp32", "16": "fp16"}),
        help="Precision of the backbone; fp16 scales the loss.",
    ),
    click.option("--set", "settings", multiple=True, metavar="NAME.OPTION=VALUE", help="An option of a plugin."),
    click.option("--results", type=file_path, help="Folder [default: hashzoo-results/NAME]."),
    click.option("--jobs", type=click.IntRange(min=1), help="Cells that run at once [default: the number of cores]."),
    click.option("--launcher", default="local", show_default=True, metavar="NAME", help="Where cells run."),
    click.option("--shard", metavar="I/N", help="Only the I-th of N parts of the cells, such as 1/4."),
    click.option(
        "--timeout", type=click.FloatRange(min=0, min_open=True), metavar="S", help="Time limit of a cell in seconds."
    ),
    click.option("--mem-limit", metavar="SIZE", help="Memory limit of a cell, such as 4G."),
    click.option("--track", metavar="T,...", help="Trackers that receive finished cells."),
    plugin_option,
    click.option("--no-baselines", is_flag=True, help="Leave out the file's baselines and controls."),
    click.option("--quick", is_flag=True, help="The file's quick form: fewer bits, epochs, images."),
    click.option("--deterministic", is_flag=True, help="Raise an error for nondeterministic operations."),
    click.option(
        "--rerun",
        type=click.Choice(["failed", "versions", "all", "stale"]),  # stale: the older name of versions
        metavar="[failed|versions|all]",
        help="Measure finished cells again: those that failed, those of other library versions, or all.",
    ),
    bad_image_option("error"),
    click.option("--device", type=DeviceName(), default="auto", show_default=True),
    click.option("--devices", type=click.IntRange(min=1), default=1, help="Devices that train each cell together."),
    click.option("--workers", type=click.IntRange(min=0), default=0, help="Processes that read images from disk."),
)


def benchmark_options(command: F) -> F:
    """The options of a sweep over a benchmark: what is measured, where, and within which limits."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command()
@click.argument("benchmark", default="first", metavar="[NAME|FILE.toml]")
@benchmark_options
@click.option("--metrics", metavar="M,...", help="Metrics, such as map@all,p@h2.")
@click.option("--nested", is_flag=True, help="Train once for all code lengths: shorter codes are prefixes.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Check what is known and list cells, downloads and time; read no image, download nothing.",
)
@click.option("--save-weights", is_flag=True, help="Save each trained method with its cell.")
@click.option("--tuned", type=file_path, metavar="TUNED.toml", help="Measure the settings that hashzoo tune chose.")
@json_option
def bench(benchmark: str, **asked: Any) -> None:
    """Train and measure methods, and write a leaderboard.

    Cells that are in the results folder are not measured again. Exit code 0: every cell is ok, or skipped because its
    method does not fit one of several datasets; 1: a cell failed.
    """
    from rich.console import Console

    from hashzoo import api

    as_json, arguments = asked.pop("as_json"), bench_arguments(asked)
    screen = api.Screen(Console(stderr=True) if as_json else None)
    request = api.Request(benchmark, **arguments)
    if asked["dry_run"]:
        from hashzoo.cli.dry_run import show

        found = api.dry_run(request, screen)
        _warn(found.unused, found.alone)
        show(found, asked["rerun"], arguments.get("shard"), as_json)
        return
    plan = api.prepare(request, screen)
    few = {job.identity.method for job in plan.jobs if job.execution.devices < asked["devices"]}
    _warn(plan.unused, sorted(few))
    board = api.run(plan, screen)
    _show(board, as_json)
    _finish(board.failed)


def _show(board: Board, as_json: bool) -> None:
    """Print the leaderboard and its files."""
    from hashzoo.results import leaderboard, render

    if as_json:
        return print_json(leaderboard.records(board.leaderboard))
    print_tables("table", lambda: render.render(board.leaderboard, extra=board.zoo.metric_functions()), list)
    click.echo(f"{board.folder / 'leaderboard.csv'}  {board.folder / 'cells.csv'}")


def bench_arguments(asked: dict[str, Any]) -> dict[str, Any]:
    """The arguments of :func:`hashzoo.benchmark` for the options of the command; an option left out is left out."""
    for name, value in asked.items():
        if value == "":
            raise UsageError(f"--{name.replace('_', '-')} is empty; give a value, or leave it out")
    lists = {
        name: split_list(f"--{name}", asked.get(name)) or None for name in ("methods", "dataset", "metrics", "track")
    }
    numeric = {name: numbers(f"--{name}", asked[name]) for name in ("bits", "seeds") if asked[name] is not None}
    plain = {
        name: asked.get(name)
        for name in (
            *("root", "backbone", "epochs", "results", "jobs", "launcher", "timeout", "plugins", "quick", "rerun"),
            *("precision", "nested", "save_weights", "deterministic", "on_bad_image", "device", "devices", "workers"),
            "tuned",
        )
    }
    parsed = {
        "settings": settings(asked["settings"]),
        "baselines": not asked["no_baselines"],
        "shard": shard(asked["shard"]) if asked["shard"] else None,
        "mem_limit": size(asked["mem_limit"]) if asked["mem_limit"] else None,
    }
    return {name: value for name, value in {**lists, **numeric, **plain, **parsed}.items() if value is not None}


def _warn(unused: list[str], alone: list[str]) -> None:
    """Warn about settings that have no effect, and methods that train in one process."""
    for hint in unused:
        click.echo(f"--set changes nothing: {hint}", err=True)
    if alone:
        click.echo(f"these methods train in one process, with the same codes: {', '.join(alone)}", err=True)


def _finish(failed: list[Cell]) -> None:
    """Name the cells that failed, and exit with 1 if there is one.

    A method that does not fit one of several datasets is skipped there, which is not a failure.
    """
    for cell in failed:
        identity = cell.identity
        click.echo(
            f"{identity.method} {identity.bits} bits seed {identity.seed} on {identity.dataset}: "
            f"{cell.status}: {cell.reason}",
            err=True,
        )
    if failed:
        sys.exit(1)
