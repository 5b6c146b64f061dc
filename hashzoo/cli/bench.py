"""`hashzoo bench`: methods trained and measured. Nothing here imports torch before it is needed."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hashzoo.cli.options import apart, overridden, parted, plugin_option, quick, rooted, settings, shard, size
from hashzoo.errors import EnvironmentFailure, UsageError, unknown_name

if TYPE_CHECKING:
    from hashzoo.bench.job import Job
    from hashzoo.registry.zoo import Entry
    from hashzoo.results.cell import Cell


@click.command()
@click.argument("benchmark", default="digits", metavar="[NAME|FILE.toml]")
@click.option("--methods", metavar="A,B,'p*'", help="Methods, patterns, or head+loss.")
@click.option("--dataset", metavar="D,...", help="Other datasets.")
@click.option("--root", type=click.Path(path_type=Path), help="Where the images of datasets that need it lie.")
@click.option("--backbone", metavar="B", help="One backbone for every kind of method.")
@click.option("--bits", metavar="16,32", help="Code lengths.")
@click.option("--seeds", metavar="0,1,2", help="Seeds.")
@click.option("--metrics", metavar="M,...", help="Metrics, such as map@all,p@h2.")
@click.option("--epochs", type=click.IntRange(min=1), help="Epochs of the budget.")
@click.option("--set", "settings", multiple=True, metavar="NAME.OPTION=VALUE", help="An option of a plugin.")
@click.option("--results", type=click.Path(path_type=Path), help="Folder [default: hashzoo-results/NAME].")
@click.option("--jobs", type=click.IntRange(min=1), help="Cells at a time [default: the cores there are].")
@click.option("--launcher", default="local", show_default=True, metavar="NAME", help="Where cells run.")
@click.option("--shard", metavar="I/N", help="Only the I-th of N parts of the cells, as 1/4.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), metavar="S", help="Seconds a cell may take.")
@click.option("--mem-limit", metavar="SIZE", help="Memory a cell may allocate, as 4G.")
@click.option("--track", metavar="T,...", help="Trackers that hear of finished cells.")
@plugin_option
@click.option("--no-baselines", is_flag=True, help="Leave out the file's baselines and controls.")
@click.option("--dry-run", is_flag=True, help="Check everything and list the cells; train nothing.")
@click.option("--quick", is_flag=True, help="The file's quick form: fewer bits, epochs, images.")
@click.option("--save-weights", is_flag=True, help="Keep each trained method beside its cell.")
@click.option("--deterministic", is_flag=True, help="An operation that may not repeat itself is an error.")
@click.option("--rerun", type=click.Choice(["failed", "stale", "all"]), help="Do finished cells again.")
@click.option("--on-bad-image", type=click.Choice(["error", "skip"]), default="error", show_default=True)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--devices", type=click.IntRange(min=1), default=1, help="Devices that train each cell together.")
@click.option("--workers", type=click.IntRange(min=0), default=0, help="Processes that read images from disk.")
def bench(benchmark: str, **asked: Any) -> None:
    """Train and measure methods, and write a leaderboard.

    Cells that RESULTS already holds are not done again. Exit code 0: every asked cell is ok, or skipped because its
    method does not fit one of several datasets; 1: some is not.
    """
    from hashzoo.api.progress import bar
    from hashzoo.api.watch import Screen
    from hashzoo.bench.benchmark_file import read
    from hashzoo.bench.plan import plan, require_feasible
    from hashzoo.execution.base import Limits
    from hashzoo.execution.local import gpus
    from hashzoo.execution.sweep import Sweep, sweep
    from hashzoo.registry import zoo
    from hashzoo.results import render

    file = read(benchmark)
    house = zoo.load_plugins(asked["plugins"])
    part_of = shard(asked["shard"]) if asked["shard"] else (1, 1)
    memory = _memory(asked["mem_limit"])
    service, asked["settings"] = apart(asked["settings"], [*house.launchers, *house.trackers])
    if asked["quick"] and not file.quick.model_fields_set:
        raise UsageError(f"{benchmark} has no quick form: add a [quick] table to it")
    if asked["quick"] and file.quick.dataset:
        file = file.model_copy(update={"dataset": file.quick.dataset})
    if asked["dataset"]:
        file = file.model_copy(update={"dataset": parted(asked["dataset"])})
    if asked["root"]:
        asked["settings"] += rooted(file.datasets, house, asked["root"])
    explicit = [name for name in parted(asked["methods"]) if not any(c in name for c in "*?[")]
    device = _device(asked["device"], asked["devices"])
    jobs = []
    for part in [quick(one) if asked["quick"] else one for one in file.each()]:
        with bar(f"images of {part.dataset}") as tell:
            jobs += plan(
                overridden(part, asked),
                house,
                base=part.train,
                baselines=not asked["no_baselines"],
                device=device,
                devices=asked["devices"],
                workers=asked["workers"],
                plugins=asked["plugins"],
                skip_bad_images=asked["on_bad_image"] == "skip",
                keep=asked["save_weights"],
                deterministic=asked["deterministic"],
                tell=tell,
            )
    require_feasible(jobs, explicit)
    _tell_idle(asked["settings"], jobs)
    jobs = jobs[part_of[0] - 1 :: part_of[1]]
    if alone := sorted({job.identity.method for job in jobs if job.devices < asked["devices"]}):
        click.echo(f"these train in one process, for the same codes: {', '.join(alone)}", err=True)
    if asked["dry_run"]:
        for job in jobs:
            why = f": skipped, {job.refusal}" if job.refusal else ""
            click.echo(f"{job.title} on {job.identity.dataset}, {job.identity.backbone}{why}")
        click.echo(f"{len(jobs)} cells on {', '.join(file.datasets)}")
        return
    folder = asked["results"] or Path("hashzoo-results") / file.name
    at_once = max(len(gpus()), 1) if device == "cuda" else min(8, os.cpu_count() or 1)
    parallel = asked["jobs"] or max(1, at_once // asked["devices"])
    limits = Limits(parallel, asked["timeout"], memory)
    screen = Screen()
    finished, board = sweep(
        jobs,
        folder,
        Sweep(
            limits=limits,
            launcher=_made("launcher", house.launcher(asked["launcher"]), service, limits),
            trackers={name: _made("tracker", house.tracker(name), service, folder) for name in parted(asked["track"])},
            rerun=asked["rerun"],
        ),
        screen,
    )
    for table in render.render(board, width=screen.console.width, extra=house.metric_functions()):
        screen.console.print(table)
    screen.console.print(f"{folder / 'leaderboard.csv'}  {folder / 'cells.csv'}", markup=False, soft_wrap=True)
    _finish(finished)


def _tell_idle(given: tuple[str, ...], jobs: list[Job]) -> None:
    """Say which settings reach nothing: ``dhn.weight`` is no option of ``tanh+dhn``, which is another method."""
    used = {name for job in jobs for name in (job.identity.method, job.identity.dataset, job.identity.backbone)}
    for name in sorted(settings(given).keys() - used - {"train"}):
        told = unknown_name("measured method, dataset or backbone", name, used)
        click.echo(f"--set changes nothing: {told}", err=True)


def _device(asked: str, devices: int) -> str:
    import torch

    if asked == "cuda" and not torch.cuda.is_available():
        raise EnvironmentFailure("no CUDA device is available here; use --device cpu")
    found = "cuda" if asked != "cpu" and torch.cuda.is_available() else "cpu"
    if found == "cuda" and devices > torch.cuda.device_count():
        raise EnvironmentFailure(
            f"{torch.cuda.device_count()} CUDA devices are here, not {devices}; use fewer --devices"
        )
    return found


def _memory(asked: str | None) -> int | None:
    if asked and sys.platform != "linux":
        raise UsageError("--mem-limit works on Linux only; leave it out here")
    return size(asked) if asked else None


def _made(kind: str, entry: Entry, service: tuple[str, ...], first: Any) -> Any:
    """A launcher or tracker with the options that ``--set`` gives it."""
    from hashzoo.registry.build import convert_options

    given = settings(service).get(entry.name, {})
    try:
        return entry.factory(first, **convert_options(kind, entry.name, entry.factory, given))
    except ValueError as error:
        raise UsageError(f"{kind} {entry.name}: {error}") from error


def _finish(finished: list[Cell]) -> None:
    """Exit 1 where a cell is not ok; a method that does not fit a dataset is skipped there, which is no failure.

    It is one where nothing else was asked.
    """
    wrong = [c for c in finished if c.status not in ("ok", "skipped")]
    if all(c.status == "skipped" for c in finished):
        wrong = finished
    for cell in wrong:
        identity = cell.identity
        click.echo(
            f"{identity.method} {identity.bits} bits seed {identity.seed} on {identity.dataset}: "
            f"{cell.status}: {cell.reason}",
            err=True,
        )
    if wrong:
        sys.exit(1)
