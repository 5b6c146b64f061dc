"""A bundle: the packed cells of one board with their splits, environment and digests, for others to verify.

It is a folder, or a .zip file of it, and the folder is a packed results folder. ``manifest.json`` has the digest of
each file and what the cells say about the benchmark; the same cells give the same bytes.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import shutil
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.results import leaderboard, merge, packed, provenance, store
from hashzoo.results.cell import Cell
from hashzoo.results.merge import Member, Packing
from hashzoo.results.store import SPLITS, splits_file
from hashzoo.storage.files import canonical_json, disk_errors, replace_bytes, replace_file, sha256
from hashzoo.storage.signing import SUFFIX, sign

SCHEMA = 1
FORMAT = "hashzoo bundle"
MANIFEST, ENVIRONMENT = "manifest.json", "environment.json"
SIGNATURE = MANIFEST + SUFFIX
FOLDER = "FOLDER"  # stands for a path
GIVEN = "(given)"  # the plugin of a method that was given as an object

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the time of all members, so that the same cells give the same bytes
#: Where a path that is not relative starts, after what can be before it in an argument or a sentence.
_START = r"(?:^|(?<=[\s=,;\[({\"'`<>|])|(?<=file:))(?:~[\w.-]*[/\\]|/(?=[\w.~-])|//(?=\w)|[A-Za-z]:[\\/])"
_IN_TEXT = re.compile(_START + r"(?:[^\s,;\])}\"'`<>|]*[^\s,;\])}\"'`<>|:.])?")
_IN_ARGUMENT = re.compile(_START + r"[^,;\])}\"'`<>|]*")  # which can have spaces


@dataclass(frozen=True)
class Submission:
    """What was written: the number of cells, the digest of the manifest, and a line for each thing to know."""

    cells: int
    digest: str
    notes: Sequence[str]


def submit(source: Path, output: Path, key: Path | None = None) -> Submission:
    """Write the bundle of a results folder or packed file.

    Args:
        source: The results folder or packed file. It is not changed.
        output: The bundle, a new folder or a .zip file.
        key: The private SSH key that signs the manifest.

    Returns:
        What was written.

    Raises:
        UsageError: If the output exists, or the cells cannot be shared: they are of several benchmarks, or a method was
            given as an object and so has no name that others can use.
        DamagedError: If a cell is damaged.
        EnvironmentFailure: If there are no cells, or the disk fails.
    """
    if output.exists():
        raise UsageError(f"{output} exists; name a new folder or .zip file")
    members, notes = _shareable(source)
    target = output.resolve()
    work = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(6)}.tmp")
    try:
        with disk_errors("create", output):
            work.mkdir(parents=True)
        replaced = _Scrubbed()
        merge.pack(members, work, Packing(), replaced.content)
        cells = [store.read(file) for file in store.files(work)]
        notes += [*replaced.notes(), *_copy_splits(source, work, cells), *_about(members, cells)]
        _write_json(work / ENVIRONMENT, environment(cells))
        listed = manifest(cells, {name: (work / name).read_bytes() for name in _names(work)})
        _write_json(work / MANIFEST, listed)
        if key is not None:
            sign(work / MANIFEST, key)
        if output.suffix == ".zip":
            _zip(work, target)
        else:
            with disk_errors("create", output):
                work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Submission(len(cells), str(listed["digest"]), notes)


def manifest(cells: Iterable[Cell], files: Mapping[str, bytes]) -> dict[str, Any]:
    """The manifest of cells and of the other files by name: facts of the benchmark, digests, and a digest of both."""
    cells = list(cells)
    found: dict[str, Any] = {
        "format": FORMAT,
        "schema": SCHEMA,
        "benchmark": next((cell.benchmark for cell in cells), ""),
        "cells": len(cells),
        "methods": sorted({cell.identity.method for cell in cells}),
        "bits": sorted({cell.identity.bits for cell in cells}),
        "seeds": sorted({cell.identity.seed for cell in cells}),
        "metrics": sorted({name for cell in cells for name in cell.metrics}, key=leaderboard.natural),
        "budgets": sorted({cell.budget_kind for cell in cells}),
        "datasets": _distinct(_dataset_facts(cell) for cell in cells if cell.status == "ok"),
        "files": {name: {"sha256": sha256(data), "bytes": len(data)} for name, data in sorted(files.items())},
    }
    return found | {"digest": digest(found)}


def digest(content: Mapping[str, Any]) -> str:
    """The digest of a manifest, which it holds itself."""
    return sha256(canonical_json({name: value for name, value in content.items() if name != "digest"}).encode())


def environment(cells: Iterable[Cell]) -> dict[str, Any]:
    """Where cells were measured, each fact once: versions, platforms, devices, revisions, commands."""
    known = [cell.provenance for cell in cells]
    origins = provenance.origins(known)
    return {
        "schema": SCHEMA,
        **{
            name: _distinct(one[key] for one in known if key in one)
            for name, key in (
                *(("versions", "versions"), ("platforms", "platform"), ("pythons", "python")),
                *(("devices", "device"), ("instructions", "cpu_capability")),
            )
        },
        **{name.replace(" ", "_"): sorted(texts) for name, texts in origins.items()},
    }


def without_paths(text: str, pattern: re.Pattern[str] = _IN_TEXT) -> str:
    """A text with ``FOLDER`` in place of each path that is not relative.

    >>> without_paths("no file /home/me/a.npz; see ~/b, torchvision/mobilenet_v2 and https://a.example/c")
    'no file FOLDER; see FOLDER, torchvision/mobilenet_v2 and https://a.example/c'
    """
    return pattern.sub(FOLDER, text)


def command_without_paths(command: str) -> str:
    """A command with ``FOLDER`` in place of each path that is not relative, which can contain spaces.

    >>> command_without_paths("hashzoo bench --root '/home/me/my data' --set x.weights=~/w.pt --results out/a")
    'hashzoo bench --root FOLDER --set x.weights=FOLDER --results out/a'
    """
    try:
        return shlex.join(without_paths(word, _IN_ARGUMENT) for word in shlex.split(command))
    except ValueError:  # no closing quotation mark
        return without_paths(command)


class _Scrubbed:
    """Replaces the paths in what the cells record beside their identity."""

    def __init__(self) -> None:
        self.changed = 0

    def content(self, content: dict[str, Any]) -> dict[str, Any]:
        """The content of a cell with ``FOLDER`` in place of paths in its provenance and its reason."""
        cell = dict(content["cell"])
        cell["provenance"] = scrubbed(cell["provenance"])
        cell["reason"] = without_paths(cell["reason"])
        self.changed += cell != content["cell"]
        return content | {"cell": cell}

    def notes(self) -> list[str]:
        """A line about the cells that were changed, if there are any."""
        line = f"absolute paths in commands and reasons: {FOLDER} replaces them, in {counted(self.changed, 'cell')}"
        return [line] if self.changed else []


def scrubbed(value: Any, name: str = "") -> Any:
    """A JSON value with ``FOLDER`` in place of each path that is not relative; ``command`` is the name of commands."""
    if isinstance(value, str):
        return command_without_paths(value) if name == "command" else without_paths(value)
    if isinstance(value, Mapping):
        return {key: scrubbed(inner, key) for key, inner in value.items()}
    return [scrubbed(inner) for inner in value] if isinstance(value, list) else value


def _shareable(source: Path) -> tuple[list[Member], list[str]]:
    """The cells of a results folder that count, and a line about the others."""
    members, _ = merge.gather([source])
    names = sorted({member.cell.benchmark for member in members})
    if len(names) > 1:
        raise UsageError(f"{source} holds the benchmarks {', '.join(names)}; submit a results folder of one benchmark")
    if given := sorted({one.cell.identity.method for one in members if one.cell.plugin == GIVEN}):
        raise UsageError(
            f"{source}: {', '.join(given)} was given as an object and has no name that others can use; put it into a "
            "plugin file and measure it again with --plugin"
        )
    current = {id(cell) for row in leaderboard.group_by_row([one.cell for one in members]) for cell in row}
    kept = [one for one in members if id(one.cell) in current]
    older = len(members) - len(kept)
    return kept, [f"left out, since newer cells replace them: {counted(older, 'cell')}"] if older else []


def _copy_splits(source: Path, work: Path, cells: Sequence[Cell]) -> list[str]:
    """Copy the splits of the cells; returns a line about those that are missing."""
    folder, missing = source.parent if source.suffix == packed.SUFFIX else source, []
    for name in sorted({splits_file(cell.identity) for cell in cells}):
        if not (folder / name).is_file():
            missing.append(name)
            continue
        with disk_errors("read", folder / name):
            data = (folder / name).read_bytes()
        with disk_errors("create", work / SPLITS):
            (work / SPLITS).mkdir(exist_ok=True)
        replace_bytes(work / name, data)
    return [f"{folder} has no {name}, so that split cannot be checked for leaks" for name in missing]


def _about(members: Sequence[Member], cells: Sequence[Cell]) -> list[str]:
    """Lines about what lowers the value of the bundle for others."""
    lines, lacking = [], sum(1 for one in members if store.digest(one.file) and not store.has_arrays(one.file))
    if lacking:
        lines.append(f"without scores of single queries, so the means cannot be checked: {counted(lacking, 'cell')}")
    if dirty := dirty_cells(cells):
        lines.append(f"measured in a checkout with changes that are not committed: {counted(len(dirty), 'cell')}")
    kept = [cell for cell in cells if any(_IN_TEXT.search(text) for text in _texts(cell))]
    if kept:
        lines.append(f"absolute paths in settings or facts, which stay as they are: {counted(len(kept), 'cell')}")
    return lines


def dirty_cells(cells: Iterable[Cell]) -> list[Cell]:
    """The cells that were measured in a checkout with changes, of hashzoo or of a plugin."""
    found = []
    for cell in cells:
        known = (cell.provenance.get(name) for name in ("checkout", "plugin_checkout"))
        if any(isinstance(one, Mapping) and one.get("dirty") for one in known):
            found.append(cell)
    return found


def counted(number: int, noun: str) -> str:
    """A number with its noun, as ``2 cells``.

    >>> counted(1, "cell"), counted(2, "cell")
    ('1 cell', '2 cells')
    """
    return f"{number} {noun}{'s' * (number != 1)}"


def _texts(cell: Cell) -> list[str]:
    return [cell.settings, canonical_json(vars(cell.identity)), *(v for v in cell.facts.values() if isinstance(v, str))]


def _dataset_facts(cell: Cell) -> dict[str, Any]:
    identity, facts = cell.identity, ("split", "source", "queries", "database", "train")
    return {
        "dataset": identity.dataset,
        "options": identity.dataset_options,
        "data": identity.data,
        "protocol": identity.protocol,
        **{name: cell.facts.get(name) for name in facts},
    }


def _distinct(values: Iterable[Any]) -> list[Any]:
    """The different values, in the order of their JSON text."""
    return [json.loads(text) for text in sorted({canonical_json(value) for value in values})]


def _names(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    replace_bytes(path, (json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())


def _zip(folder: Path, target: Path) -> None:
    with replace_file(target) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        for name in _names(folder):
            member = zipfile.ZipInfo(name, _EPOCH)
            member.compress_type, member.create_system = zipfile.ZIP_DEFLATED, 3
            made.writestr(member, (folder / name).read_bytes())


def require_bundle(path: Path) -> None:
    """Raise UsageError unless there is a file or folder of this path that can be a bundle."""
    if not path.exists():
        raise UsageError(f"there is no bundle {path}; write one with hashzoo submit RESULTS -o {path}")
    if path.is_dir() and not (path / MANIFEST).is_file():
        raise UsageError(f"{path} is a folder without {MANIFEST}; write a bundle with hashzoo submit {path} -o BUNDLE")
    if not path.is_dir() and not zipfile.is_zipfile(path):
        raise EnvironmentFailure(f"{path} is not a complete .zip file; copy it again")
