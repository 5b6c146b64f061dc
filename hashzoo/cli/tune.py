"""`hashzoo tune`: tune every method with the same budget. Imports torch only when the command runs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from hashzoo.cli.bench import bench_arguments, benchmark_options
from hashzoo.cli.output import json_option, print_json, print_tables

if TYPE_CHECKING:
    from hashzoo.api import Study, StudyRequest
    from hashzoo.execution.base import Observer


@click.command()
@click.argument("benchmark", default="first", metavar="[NAME|FILE.toml]")
@click.option(
    "--trials",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Trials of each method, the default included.",
)
@click.option("--folds", type=click.IntRange(min=2), help="Cross-validate on so many folds of the training set.")
@click.option(
    "--validation",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="F",
    help="Hold out this part of the training set [default: 0.2].",
)
@click.option("--metric", default="map@all", show_default=True, metavar="M", help="The score that chooses.")
@click.option(
    "--sampler",
    type=click.Choice(["sobol", "tpe", "gp"]),
    default="sobol",
    show_default=True,
    help="What chooses the settings to try; tpe and gp need Optuna.",
)
@click.option("--prune", is_flag=True, help="With tpe or gp and --folds: end a trial whose first folds are worse.")
@click.option("--seed", "study_seed", type=click.IntRange(min=0), default=0, help="Seed of points and held-out images.")
@benchmark_options
@click.option("--dry-run", is_flag=True, help="List cells and time; train nothing.")
@json_option
def tune(benchmark: str, as_json: bool, dry_run: bool, **asked: Any) -> None:
    """Tune every method with the same number of trials, on images held out of the training set.

    Writes RESULTS/tuned.toml for `hashzoo bench --tuned`. Trial 0 is the default; the others are points of the ranges
    that `hashzoo list methods --space` prints. Queries and database are not used. Trials that are in the results folder
    are not measured again. Exit code 1: every trial of a method failed.
    """
    from rich.console import Console

    from hashzoo import api

    names = ("trials", "folds", "validation", "metric", "sampler", "prune", "study_seed")
    own = {name: value for name in names if (value := asked.pop(name)) is not None}
    request = api.StudyRequest(benchmark, **bench_arguments(asked), **own)
    screen = api.Screen(Console(stderr=True) if as_json or dry_run else None)
    if dry_run:
        return _plan(request, screen, as_json)
    study = request.run(screen)
    _show(study, benchmark, as_json)
    for failed in study.failed:
        reason = failed.trials[0].status if failed.trials else "failed"
        click.echo(f"{failed.method} {failed.bits} bits on {failed.dataset}: every trial failed ({reason})", err=True)
    if study.failed:
        sys.exit(1)


def _show(study: Study, benchmark: str, as_json: bool) -> None:
    """Print the tables of a study and its file."""
    from hashzoo.results import study_tables

    if study.tuned is None:
        return
    rows = study_tables.rows(study.tuned)
    tuned = study.tuned
    print_tables(
        "json" if as_json else "table",
        lambda: study_tables.tables(tuned, rows),
        lambda: study_tables.records(rows),
    )
    click.echo(f"{study.file}  (hashzoo bench {benchmark} --tuned {study.file})", err=as_json)


def _plan(request: StudyRequest, observer: Observer, as_json: bool) -> None:
    """Print the cells of a study and how long they take, as far as that is known."""
    from hashzoo.results import table
    from hashzoo.results.render import duration

    found = request.cost(observer)
    if as_json:
        return print_json(found)
    lines = [{**one, "time": "?" if one["seconds"] is None else duration(one["seconds"])} for one in found]
    for line in lines:
        del line["seconds"]
    table.show([table.of_records(lines, identifies="method")] if lines else [])
    known = [one["seconds"] for one in found if one["seconds"] is not None]
    unknown = sum(one["pending"] for one in found if one["seconds"] is None)
    text = f"{duration(sum(known))} on one core" if known else "unknown"
    click.echo(f"{sum(one['pending'] for one in found)} cells pending in {request.request.folder}")
    click.echo(f"time: {text}{f', and {unknown} cells of unknown time' if unknown else ''}")
