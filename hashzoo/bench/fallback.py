"""The backbone of a benchmark file where its package is not installed, and boards that must not mix two backbones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from hashzoo.bench.benchmark_file import Benchmark, checked, merged
from hashzoo.errors import UsageError
from hashzoo.registry.zoo import Zoo
from hashzoo.results.cell import Cell, Identity


def choose_backbone(file: Benchmark, zoo: Zoo, given: str | None, note: Callable[[str], None]) -> Benchmark:
    """The benchmark with its ``fallback`` where its backbone cannot be had, or where that of the fallback is given.

    Args:
        file: The benchmark.
        zoo: The plugins.
        given: The backbone of the command line.
        note: Receives a line if the fallback is taken because something is not installed.
    """
    if not file.fallback:
        return file
    own, other = file.backbone or "", str(file.fallback["backbone"])
    missing = "" if given else missing_package(zoo, own)
    if given != other and not missing:
        return file
    if missing:
        note(f"{missing}; measuring on {other} instead")
    whole = file.model_dump(exclude_unset=True, exclude={"fallback"})
    return checked(merged(whole, file.fallback), f"{file.name}: fallback")


def missing_package(zoo: Zoo, backbone: str) -> str:
    """What a backbone lacks on this machine, in one line; empty if nothing is known to be missing."""
    known = zoo.outline("backbone", backbone, {})
    return known.missing if known else ""


def require_same_backbone(
    file: Benchmark, zoo: Zoo, folder: Path, cells: Iterable[Cell], planned: Iterable[Identity]
) -> None:
    """Raise UsageError if a results folder has cells of this benchmark, but on other backbones than the default one.

    Which one is the default depends on what is installed, so that the same command could add rows of another backbone
    to a board on another machine. A backbone that is named on the command line is always accepted.
    """
    chosen = {identity.backbone for identity in planned}
    measured = sorted({cell.identity.backbone for cell in cells if cell.benchmark == file.name})
    if not file.fallback or not measured or chosen & {*measured} or not chosen & {file.backbone, _other(file)}:
        return
    known = measured[0]
    if missing := missing_package(zoo, known):
        raise UsageError(
            f"{folder} was measured on {known}; {missing}, or measure on {min(chosen)} in another folder with --results"
        )
    raise UsageError(
        f"{folder} was measured on {known}, and {min(chosen)} is the default here; add --backbone {known} to go on, or "
        "name another folder with --results"
    )


def _other(file: Benchmark) -> str:
    return str(file.fallback.get("backbone", ""))
