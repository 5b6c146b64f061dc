"""Verify a bundle: the checks of its files, comparison with the shipped benchmark, cells measured again."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hashzoo.api.rerun import Rerun, rerun
from hashzoo.bench.benchmark_file import Benchmark, checked, merged, read, shipped
from hashzoo.registry.installed import installed_code
from hashzoo.results import bundle_files
from hashzoo.results.bundle import counted
from hashzoo.results.bundle_checks import (
    FAILED,
    NOTE,
    OK,
    OWN_BUDGET,
    UNCHECKED,
    Bundle,
    Finding,
    Lines,
    check,
    collected,
    states,
    title,
)
from hashzoo.results.cell import Cell


@dataclass(frozen=True)
class Verification:
    """How a bundle is verified.

    Attributes:
        signers: The allowed signers of the manifest; None does not check the signature.
        rerun: How many cells are measured again, and how.
        plugins: Plugin files and modules to load.
    """

    signers: Path | None = None
    rerun: Rerun = field(default_factory=Rerun)
    plugins: Sequence[str] = ()


def verify(path: Path, how: Verification | None = None) -> list[Finding]:
    """Check a bundle; nothing in it is executed, and nothing is measured unless ``how`` asks for it.

    Args:
        path: The bundle, a folder or a .zip file.
        how: How it is verified.

    Returns:
        The findings, in the order of the checks. Each check has one or several.

    Raises:
        UsageError: If there is no bundle, or an option is wrong.
        EnvironmentFailure: If a .zip file is damaged, or a later hashzoo wrote the bundle.
    """
    how = how or Verification()
    files, faults = bundle_files.read(path)
    with tempfile.TemporaryDirectory(prefix="hashzoo-bundle-") as folder:
        bundle_files.write(files, Path(folder))
        given = Bundle(files, faults, Path(folder), installed_code(how.plugins), how.signers)
        found = [*check(given), *collected("benchmark", compared(given.cells))]
        lines = rerun(given.cells, how.rerun, how.plugins) if how.rerun.number else _not_asked()
        return [*found, *collected("rerun", lines)]


def _not_asked() -> Lines:
    yield UNCHECKED, "no cell was measured again; --rerun N does it"


def compared(cells: Sequence[Cell]) -> Lines:
    """How cells differ from the benchmark that is shipped under their name.

    A row whose settings state a difference is noted. One that trains by another budget and does not say so is a fault.
    """
    name = cells[0].benchmark if cells else ""
    if name not in shipped():
        yield UNCHECKED, f"no benchmark {name or 'without a name'} is shipped with this hashzoo"
        return
    file = read(name)
    parts = {part.datasets[0]: part for part in file.each()}
    quick = [file.quick.dataset] if isinstance(file.quick.dataset, str) else file.quick.dataset or []
    stated = defaultdict[str, list[Cell]](list)
    for cell in cells:
        part = parts.get(cell.identity.dataset) or next(iter(parts.values()))
        if cell.identity.dataset not in (*parts, *quick):
            stated[f"the dataset {cell.identity.dataset} is not one of {name}"].append(cell)
        if cell.budget_kind != part.budget:
            yield FAILED, f"{title(cell)}: the kind of budget is {cell.budget_kind}, of {name} {part.budget}"
        form, different = _nearest(part, cell)
        if form:
            stated[f"{form} of {name}"].append(cell)
        for option, (own, usual) in different.items():
            text = f"{option}={own}, {usual} in {name}"
            if states(cell, option):
                stated[text].append(cell)
            else:
                yield FAILED, f"{title(cell)}: {text}, and the settings of the row do not say so"
        for text in _options(part, cell):
            stated[text].append(cell)
    for text, rows in stated.items():
        yield NOTE, f"{text}: {counted(len(rows), 'cell')}"
    yield OK, f"budget and options of {name}"


def _nearest(part: Benchmark, cell: Cell) -> tuple[str, dict[str, tuple[Any, Any]]]:
    """The form of a benchmark whose budget is nearest to that of a cell, and the fields in which they differ."""
    found = []
    for form, budget in _forms(part):
        known = cell.identity.budget
        usual = budget.train.recorded()
        names = sorted((known.keys() | usual.keys()) - OWN_BUDGET)
        found.append((form, {n: (known.get(n), usual.get(n)) for n in names if known.get(n) != usual.get(n)}))
    return min(found, key=lambda one: len(one[1]))


def _forms(part: Benchmark) -> Iterator[tuple[str, Benchmark]]:
    """A benchmark as it is, in its quick form, and on its other backbone."""
    yield "", part
    whole = part.model_dump(exclude_unset=True)
    if part.quick.epochs is not None:
        yield "the quick form", checked(merged(whole, {"train": {"epochs": part.quick.epochs}}), part.name)
    if part.fallback:
        yield "the form without its backbone", checked(merged(whole, part.fallback), part.name)


def _options(part: Benchmark, cell: Cell) -> Iterator[str]:
    """Options of the method, dataset and backbone that the benchmark sets and the cell has otherwise."""
    identity = cell.identity
    tables: Mapping[str, Mapping[str, Any]] = {
        identity.method: identity.hyperparameters,
        identity.dataset: identity.dataset_options,
        identity.backbone: identity.backbone_options,
    }
    for name, known in tables.items():
        for option, value in part.set.get(name, {}).items():
            own = known.get(option)
            if own is not None and "weights" not in option and own != value and str(own) != str(value):
                yield f"{name}.{option}={own}, {value} in {part.name}"
