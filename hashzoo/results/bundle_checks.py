"""What is checked in the files of a bundle: digests, cells, protocol, splits, scores, origin. Nothing is measured."""

from __future__ import annotations

import io
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hashzoo.errors import EnvironmentFailure
from hashzoo.evaluation.metrics import summarize
from hashzoo.results import bundle, leaderboard, merge, packed, store
from hashzoo.results.bundle import ENVIRONMENT, MANIFEST, SCHEMA, SIGNATURE, counted
from hashzoo.results.bundle_files import ARRAYS
from hashzoo.results.cell import Cell
from hashzoo.results.leaderboard import InstalledCode
from hashzoo.results.merge import Member
from hashzoo.results.store import SPLITS, DamagedError, splits_file
from hashzoo.storage import npz, signing
from hashzoo.storage.files import sha256
from hashzoo.storage.schema import refuse_newer

OK, NOTE, UNCHECKED, FAILED = STATUSES = ("ok", "note", "not checked", "failed")  # the worst one last

#: Fields of a budget that methods leave out which cannot use them (:func:`hashzoo.bench.quantization.own_budget`).
OWN_BUDGET = frozenset({"quantization", "quantization_weight", "dropout", "ema", "nested", "nested_distillation"})

_HALF = 2e-3  # what rounding the scores of single queries to float16 can change in their mean, relative or absolute
_EQUAL = 1e-9  # what another order of a sum can change
_LINE = {"arrays", "cell", "name", "schema", "measured_arrays"}


@dataclass(frozen=True)
class Finding:
    """The outcome of a check, or one thing that it found: ``status`` is one of ``STATUSES``."""

    check: str
    status: str
    detail: str


Lines = Iterator[tuple[str, str]]  # status and detail of what a check found


@dataclass(frozen=True)
class Bundle:
    """A bundle that was read.

    Attributes:
        files: Its files by name.
        faults: What is wrong with its files, a line each.
        folder: A copy of the files.
        installed: The digests of the installed code.
        signers: The allowed signers, if the signature is checked.
    """

    files: Mapping[str, bytes]
    faults: Sequence[str]
    folder: Path
    installed: InstalledCode | None = None
    signers: Path | None = None

    @cached_property
    def _read(self) -> tuple[list[Member], list[str]]:
        found, faults = list[Member](), []
        for file in store.files(self.folder):
            try:
                member = Member(store.read(file), file)
                content, _ = store.content(file)
            except DamagedError as error:
                where = f"line {file.name}" if packed.fault(file) else file.name
                faults.append(f"{packed.NAME}: {where} is damaged ({error.reason})")
                continue
            cell = member.cell
            if file.name != store.path(self.folder, cell.identity, cell.benchmark).name:
                faults.append(f"{packed.NAME}: {file.name} is not the name of the cell that the line holds")
            elif other := content.keys() - _LINE:
                faults.append(f"{packed.NAME}: {file.name} has the unknown key {min(other)!r}")
            else:
                found.append(member)
        return found, faults

    @property
    def members(self) -> list[Member]:
        """The sound cells."""
        return self._read[0]

    @property
    def cells(self) -> list[Cell]:
        """The sound cells."""
        return [member.cell for member in self.members]

    @property
    def damage(self) -> list[str]:
        """A line for each damaged cell."""
        return self._read[1]

    def by_dataset(self) -> dict[str, list[Cell]]:
        """The cells of each dataset and its options."""
        found = defaultdict[str, list[Cell]](list)
        for cell in self.cells:
            options = " ".join(f"{name}={value}" for name, value in sorted(cell.identity.dataset_options.items()))
            found[f"{cell.identity.dataset} {options}".strip()].append(cell)
        return found


def check(given: Bundle) -> list[Finding]:
    """All findings, in the order of the checks; a check without one has the status ``ok``."""
    found = list[Finding]()
    for name, function in CHECKS.items():
        found += collected(name, function(given))
    return found


def collected(name: str, lines: Lines) -> list[Finding]:
    """What a check found; what it says of status ``ok`` counts only if it found nothing else."""
    found = [Finding(name, status, detail) for status, detail in lines]
    return [one for one in found if one.status != OK] or found[:1] or [Finding(name, OK, "")]


def title(cell: Cell) -> str:
    """How a message names a cell."""
    one = cell.identity
    settings = f" {cell.settings}" if cell.settings else ""
    return f"{one.method}{settings} at {one.bits} bits, seed {one.seed}, on {one.dataset}"


def _files(given: Bundle) -> Lines:
    yield OK, counted(len(given.files), "file")
    for fault in given.faults:
        yield FAILED, fault


def _json(given: Bundle, name: str) -> Any:
    """The content of a JSON file; a text that says what is wrong if it is none."""
    try:
        content = json.loads(given.files[name], parse_constant=_refuse, object_pairs_hook=_once)
    except KeyError:
        return f"{name} is missing"
    except (ValueError, RecursionError):
        return f"{name} is not a complete JSON file"
    if not isinstance(content, dict):
        return f"{name} is not a JSON object"
    refuse_newer(Path(name), content.get("schema"), SCHEMA, "ask for a bundle of this version")
    return content


def _refuse(text: str) -> None:
    raise ValueError(text)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key is there twice")
    return dict(pairs)


def _digests(given: Bundle) -> Lines:
    content = _json(given, MANIFEST)
    if isinstance(content, str):
        yield FAILED, content
        return
    listed = content.get("files")
    if not isinstance(listed, dict) or content.get("digest") != bundle.digest(content):
        yield FAILED, f"the digest of {MANIFEST} does not match its content"
        listed = listed if isinstance(listed, dict) else {}
    yield OK, f"digest {content.get('digest')}"
    held = {name: data for name, data in given.files.items() if name not in (MANIFEST, SIGNATURE)}
    for name in sorted(held.keys() | listed.keys()):
        if name not in listed:
            yield FAILED, f"{name} is not in {MANIFEST}"
        elif name not in held:
            yield FAILED, f"{name} is in {MANIFEST} and is missing"
        elif listed[name] != {"sha256": sha256(held[name]), "bytes": len(held[name])}:
            yield FAILED, f"{name} does not have the digest in {MANIFEST}"


def _signature(given: Bundle) -> Lines:
    signed = SIGNATURE in given.files
    if given.signers is None:
        yield UNCHECKED, "signed; check it with --signers FILE" if signed else "not signed"
    elif not signed or MANIFEST not in given.files:
        yield FAILED, f"{SIGNATURE if MANIFEST in given.files else MANIFEST} is missing"
    else:
        name, fault = signing.signer(given.folder / MANIFEST, given.signers)
        yield (FAILED, fault) if fault else (OK, f"signed by {name}")


def _cells(given: Bundle) -> Lines:
    yield OK, counted(len(given.members), "cell")
    for fault in given.damage:
        yield FAILED, fault
    if not given.members and not given.damage:
        yield FAILED, "there are no cells"
    kept = sum(map(len, leaderboard.group_by_row(given.cells)))
    if kept < len(given.members):
        yield (
            FAILED,
            f"replaced by newer cells: {counted(len(given.members) - kept, 'cell')}; submit the results folder again",
        )
    if ARRAYS in given.files:
        known = {f"{store.content(member.file)[0]['arrays']}.npz" for member in given.members}
        if extra := sorted(packed.member_names(given.folder / ARRAYS) - known):
            yield FAILED, f"{ARRAYS} holds {extra[0]}, which belongs to no cell"


def _facts(given: Bundle) -> Lines:
    """What the manifest and the environment say is what the cells say."""
    held = {name: data for name, data in given.files.items() if name not in (MANIFEST, SIGNATURE)}
    expected = {MANIFEST: bundle.manifest(given.cells, held), ENVIRONMENT: bundle.environment(given.cells)}
    for name, wanted in expected.items():
        content = _json(given, name)
        if isinstance(content, str):
            yield FAILED, content
            continue
        for key in sorted((content.keys() | wanted.keys()) - {"files", "digest"}):
            if content.get(key) != wanted.get(key):
                yield FAILED, f"{name}: {key} is not that of the cells"
    yield OK, "manifest and environment are those of the cells"


def _protocol(given: Bundle) -> Lines:
    """All rows of a dataset share data, split, budget and metrics."""
    if len(names := sorted({cell.benchmark for cell in given.cells})) > 1:
        yield FAILED, f"the cells are of the benchmarks {', '.join(names)}"
    for dataset, cells in given.by_dataset().items():
        for text, fact in merge.PROTOCOL.values():
            yield from _differing(dataset, text, [(cell, fact(cell)) for cell in cells if fact(cell) not in (None, "")])
        yield from _differing(dataset, "kind of budget", [(cell, cell.budget_kind) for cell in cells])
        yield from _budgets(dataset, [cell for cell in cells if cell.budget_kind == "equal"])
        for bits in sorted({cell.identity.bits for cell in cells}):
            measured = [cell for cell in cells if cell.status == "ok" and cell.identity.bits == bits]
            names_of = [(cell, ", ".join(sorted(cell.metrics))) for cell in measured]
            yield from _differing(f"{dataset} at {bits} bits", "set of metrics", names_of)
    yield OK, f"{counted(len(given.by_dataset()), 'dataset')}, each with one split, budget and set of metrics"


def _differing(place: str, what: str, values: Sequence[tuple[Cell, Any]]) -> Lines:
    """A line for each value other than the most common one."""
    counts = Counter(repr(value) for _, value in values)
    if len(counts) < 2:
        return
    usual = counts.most_common(1)[0][0]
    for other in sorted(counts.keys() - {usual}):
        cell = next(cell for cell, value in values if repr(value) == other)
        yield FAILED, f"{place}: the {what} of {title(cell)} is {other}, of most others {usual}"


def _budgets(dataset: str, cells: Sequence[Cell]) -> Lines:
    """Fields of the budget in which rows differ that do not say so in their settings."""
    fields = {name for cell in cells for name in cell.identity.budget} - OWN_BUDGET
    for name in sorted(fields):
        silent = [(cell, cell.identity.budget.get(name)) for cell in cells if not states(cell, name)]
        yield from _differing(dataset, name, silent)


def states(cell: Cell, option: str) -> bool:
    """Whether the settings of a row state an option, as ``epochs=3``."""
    return re.search(rf"(?:^| ){re.escape(option)}=", cell.settings) is not None


def _splits(given: Bundle) -> Lines:
    """The split files are those that the cells were measured on, and their parts share no images."""
    used = {splits_file(cell.identity): cell for cell in given.cells if cell.status == "ok"}
    known = {splits_file(cell.identity) for cell in given.cells}
    for name in sorted(name for name in given.files if name.startswith(f"{SPLITS}/") and name not in known):
        yield FAILED, f"{name} is the split of no cell"
    for name, cell in sorted(used.items()):
        if name not in given.files:
            yield UNCHECKED, f"{name} is not there"
        else:
            yield from _split(
                given.folder / name, name, [one for one in given.cells if splits_file(one.identity) == name], cell
            )
    yield OK, f"{counted(len(used), 'split')}; no query is in the database or in the training set"


def _split(file: Path, name: str, cells: Sequence[Cell], cell: Cell) -> Lines:
    from hashzoo.data import split_file  # here, since it imports torch
    from hashzoo.data.audit import describe, id_findings

    try:
        saved = split_file.read(file)
        splits = split_file.placeholder(saved)
    except EnvironmentFailure as error:
        yield FAILED, str(error).replace(str(file), name).partition(";")[0]
        return
    sizes = {"queries": len(splits.query), "database": len(splits.database), "train": len(splits.train)}
    for fact, value in ({"split": saved.digest, **sizes}).items():
        if others := [one for one in cells if one.status == "ok" and one.facts.get(fact, value) != value]:
            yield FAILED, f"{name}: {fact} is {value}, and {others[0].facts[fact]} of {title(others[0])}"
    for finding in id_findings(splits):
        if finding.count and finding.name in ("query-in-database", "query-in-train"):
            yield FAILED, f"{name}: {finding.name}: {describe(finding)}"
        elif finding.count and finding.name == "duplicates":
            yield NOTE, f"{name}: {finding.name}: {describe(finding)}"


def _scores(given: Bundle) -> Lines:
    """The mean of the scores of single queries is the score of the cell."""
    checked, missing = 0, 0
    for member in given.members:
        content, stored = store.content(member.file)
        if stored is None:
            missing += member.cell.status == "ok"
            continue
        checked += 1
        try:
            arrays = npz.read(io.BytesIO(stored))
        except ValueError as error:
            yield FAILED, f"the arrays of {title(member.cell)} cannot be read: {error}"
            continue
        yield from _means(member.cell, arrays, _HALF if content.get("measured_arrays") else _EQUAL)
    if missing:
        yield UNCHECKED, f"without scores of single queries: {counted(missing, 'cell')}; use --rerun"
    yield OK, f"the mean of its queries: {counted(checked, 'cell')}"


def _means(cell: Cell, arrays: Mapping[str, np.ndarray[Any, Any]], tolerance: float) -> Lines:
    for name in sorted(cell.metrics.keys() & arrays.keys()):
        values, score = arrays[name], cell.metrics[name]
        if values.dtype.kind not in "fiub" or values.ndim != 1:
            yield FAILED, f"{name} of {title(cell)}: the scores of single queries are not numbers"
            continue
        if "queries" in cell.facts and len(values) != cell.facts["queries"]:
            yield FAILED, f"{name} of {title(cell)}: {len(values)} scores for {cell.facts['queries']} queries"
        mean = summarize([{name: values.astype(np.float64)}]).means[name]
        both = math.isnan(mean) and math.isnan(score)
        if not both and not math.isclose(mean, score, rel_tol=tolerance, abs_tol=tolerance):
            yield FAILED, f"{name} of {title(cell)} is {score:.6g}, and the mean of its queries {mean:.6g}"


def _code(given: Bundle) -> Lines:
    """Cells that were measured with other code than the installed code."""
    if given.installed is None:
        return
    known = given.installed({(cell.identity.method, cell.identity.backbone) for cell in given.cells})
    stale, absent = set[str](), set[str]()
    for cell in given.cells:
        digest = known.get((cell.identity.method, cell.identity.backbone))
        if digest is None:
            absent.add(cell.identity.method)
        elif digest != cell.identity.code:
            stale.add(cell.identity.method)
    if stale:
        yield NOTE, f"stale, measured with other code than the installed code: {', '.join(sorted(stale))}"
    if absent:
        yield UNCHECKED, f"not installed: {', '.join(sorted(absent))}"
    yield OK, "all cells were measured with the installed code"


def _origin(given: Bundle) -> Lines:
    """Revisions that others can get, and methods that they can name."""
    for method in sorted({cell.identity.method for cell in given.cells if cell.plugin == bundle.GIVEN}):
        yield FAILED, f"{method} was given as an object and has no name that others can use"
    if dirty := bundle.dirty_cells(given.cells):
        yield NOTE, f"measured in a checkout with changes that are not committed: {counted(len(dirty), 'cell')}"
    with suppress(AttributeError, TypeError):  # a cell can come from anywhere
        commands = {str(cell.provenance.get("command", "")) for cell in given.cells}
        if any(one != bundle.command_without_paths(one) for one in commands if one):
            yield NOTE, "commands contain absolute paths; write the bundle again with hashzoo submit"
    yield OK, "no checkout with changes"


CHECKS: Mapping[str, Callable[[Bundle], Lines]] = {
    "files": _files,
    "digests": _digests,
    "signature": _signature,
    "cells": _cells,
    "facts": _facts,
    "protocol": _protocol,
    "splits": _splits,
    "scores": _scores,
    "code": _code,
    "origin": _origin,
}
