"""Several results folders of one benchmark as one board, and as one results folder."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.results import leaderboard, packed, store
from hashzoo.results.board import StoredBoard, origin_labels, read_board, write_board
from hashzoo.results.cell import Cell
from hashzoo.results.leaderboard import InstalledCode
from hashzoo.results.store import DamagedError
from hashzoo.storage.files import disk_errors, replace_bytes, sha256

# The facts of the protocol that all cells of a dataset must share, with their names in messages.
PROTOCOL: dict[str, tuple[str, Callable[[Cell], Any]]] = {
    "protocol": ("protocol version", lambda cell: cell.identity.protocol),
    "data": ("fingerprint of the data", lambda cell: cell.identity.data),
    **{
        name: (text, lambda cell, name=name: cell.facts.get(name))  # type: ignore[misc]
        for name, text in (
            *(("split", "split"), ("source", "source"), ("queries", "number of queries")),
            ("database", "size of the database"),
        )
    },
}


@dataclass(frozen=True)
class Member:
    """A cell and the file that it is read from."""

    cell: Cell
    file: Path


def read_boards(
    folders: Sequence[Path], installed: InstalledCode | None = None, *, skip_damaged: bool = False
) -> StoredBoard:
    """The board of one results folder or CSV file, or of several results folders of one benchmark.

    Args:
        folders: The folder or file, or the folders.
        installed: The digests of the installed code, which decide which rows are stale.
        skip_damaged: Report damaged cells in ``faults`` instead of raising DamagedError.

    Raises:
        UsageError: If the folders do not belong together, as for :func:`gather`.
        EnvironmentFailure: If there is no board, or it cannot be read.
    """
    if len(folders) == 1:
        return read_board(folders[0], installed, skip_damaged=skip_damaged)
    members, faults = gather(folders, skip_damaged=skip_damaged)
    cells = [member.cell for member in members]
    groups = leaderboard.group_by_row(cells)
    files = {store.place(member.cell): member.file for member in members}
    labels = origin_labels(folders)
    origins = [_origin([files[store.place(cell)] for cell in group], folders, labels) for group in groups]
    return StoredBoard(
        Path(" + ".join(map(str, folders))),
        leaderboard.board_frame(cells, installed).assign(**{leaderboard.ORIGIN: origins}),
        groups,
        faults,
        len(cells) - sum(map(len, groups)),
        files,
    )


def _origin(files: Sequence[Path], folders: Sequence[Path], labels: Sequence[str]) -> str:
    """The labels of the folders that files of cells lie in."""
    used = {file.parent if file.parent.suffix == packed.SUFFIX else file.parent.parent for file in files}
    return ", ".join(label for folder, label in zip(folders, labels, strict=True) if folder in used)


def gather(folders: Sequence[Path], *, skip_damaged: bool = False) -> tuple[list[Member], list[str]]:
    """The cells of several results folders, each once, and a line for each damaged one that was left out.

    Raises:
        UsageError: If a folder is given twice, the folders are not of one benchmark, were measured by different
            protocols or on different splits, or contain the same cell with different results.
        EnvironmentFailure: If a folder has no cells.
        DamagedError: If a cell is damaged, without ``skip_damaged``.
    """
    if twice := next((one for n, one in enumerate(folders) if one.resolve() in _resolved(folders[:n])), None):
        raise UsageError(f"{twice} is given twice; name each results folder once")
    found: dict[tuple[str, str], Member] = {}
    parts, faults = dict[Path, list[Member]](), list[str]()
    for folder in folders:
        parts[folder], lines = _members(folder, skip_damaged)
        faults += lines
    _require_one_benchmark(parts)
    for member in (member for part in parts.values() for member in part):
        known = found.setdefault(store.place(member.cell), member)
        if known is not member:
            found[store.place(member.cell)] = _the_same(known, member)
    _require_one_protocol(found.values())
    return list(found.values()), faults


def _resolved(folders: Iterable[Path]) -> list[Path]:
    return [folder.resolve() for folder in folders]


def _members(folder: Path, skip_damaged: bool) -> tuple[list[Member], list[str]]:
    files = store.files(folder)
    if not files:
        raise EnvironmentFailure(
            f"{folder} has no cells; name results folders of hashzoo bench, since only their cells can be merged"
        )
    found, faults = list[Member](), list[str]()
    for file in files:
        try:
            cell = store.read(file)
        except DamagedError as error:
            if not skip_damaged:
                raise
            faults.append(str(error))
            continue
        if file.name == store.path(folder, cell.identity, cell.benchmark).name:  # others are copies that do not count
            found.append(Member(cell, file))
    return found, faults


def _require_one_benchmark(parts: Mapping[Path, Sequence[Member]]) -> None:
    names = {folder: sorted({member.cell.benchmark for member in part}) for folder, part in parts.items() if part}
    (first, known), *others = names.items() or [(Path(), [])]
    for folder, own in others:
        if own != known:
            raise UsageError(
                f"{first} holds the benchmark {', '.join(known)} and {folder} {', '.join(own)}; "
                "name results folders of one benchmark"
            )


def _the_same(first: Member, second: Member) -> Member:
    """One of two files of a cell with equal results, the one with arrays. UsageError if the results differ."""
    if _outcome(first) != _outcome(second):
        raise UsageError(
            f"{first.file} and {second.file} are the same cell with different results; delete the file that is wrong"
        )
    return second if store.has_arrays(second.file) and not store.has_arrays(first.file) else first


def _outcome(member: Member) -> tuple[Any, ...]:
    """What two measurements of a cell must share; times and machines can differ. As text, since NaN is not NaN."""
    cell = member.cell
    return cell.status, repr(sorted(cell.metrics.items())), repr(sorted(cell.facts.items())), store.digest(member.file)


def _require_one_protocol(members: Iterable[Member]) -> None:
    """UsageError if current cells of a dataset differ in a fact of the protocol that both have."""
    by_cell = {id(member.cell): member for member in members}
    current = leaderboard.group_by_row([member.cell for member in by_cell.values()])
    known: dict[tuple[str, str, str, str], tuple[Any, Member]] = {}
    for cell in (cell for group in current for cell in group):
        member = by_cell[id(cell)]
        for name, (text, fact) in PROTOCOL.items():
            value = fact(cell)
            if value in (None, ""):
                continue
            place = (cell.benchmark, cell.identity.dataset, repr(sorted(cell.identity.dataset_options.items())), name)
            other, where = known.setdefault(place, (value, member))
            if other != value and where.file.parent != member.file.parent:
                raise UsageError(
                    f"{where.file} and {member.file} were not measured by the same protocol on "
                    f"{cell.identity.dataset}: {text} {other} and {value}; measure both on the same data"
                )


@dataclass(frozen=True)
class Packing:
    """How cells are written to one packed file.

    Attributes:
        half: Whether scores of single queries are rounded to float16.
    """

    half: bool = False


def merge_folders(
    folders: Sequence[Path],
    output: Path,
    installed: InstalledCode | None = None,
    packing: Packing | None = None,
) -> tuple[int, int]:
    """Write one results folder with the cells of several.

    The folder is written beside its place and renamed when it is complete, so that it exists as a whole or not at all.

    Args:
        folders: The results folders or packed files.
        output: The new folder; it must not exist or must be empty. With ``packing`` it can be one of the folders: its
            packed file is replaced, then the files of cells are deleted.
        installed: The digests of the installed code, for the column ``stale``.
        packing: Write one packed file instead of a file for each cell.

    Returns:
        The number of cells and of rows.

    Raises:
        UsageError: If the output is not empty, or the folders do not belong together, as for :func:`gather`.
        EnvironmentFailure: If a folder has no cells, or the disk fails.
    """
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output} is a file; name a new folder")
    if packing and output.resolve() in _resolved(folders):
        return _pack_in_place(folders, output, installed, packing)
    with disk_errors("read", output):
        if output.is_dir() and any(output.iterdir()):
            raise UsageError(f"{output} is not empty; name a new folder")
    members, _ = gather(folders)
    target = output.resolve()
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(6)}.tmp")
    try:
        with disk_errors("create", target):
            (temporary if packing else temporary / "cells").mkdir(parents=True)
        _copy_splits(folders, temporary / store.SPLITS)
        if packing:
            pack(members, temporary, packing)
        for member in members if not packing else ():
            _copy_cell(member, temporary / "cells")
        board = write_board(temporary, [member.cell for member in members], installed)
        with disk_errors("create", target):
            with suppress(FileNotFoundError):
                target.rmdir()  # an empty folder, which a rename does not replace everywhere
            temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return len(members), len(board)


def pack(
    members: Sequence[Member],
    folder: Path,
    packing: Packing,
    revise: Callable[[dict[str, Any]], dict[str, Any]] = lambda content: content,
) -> None:
    """Write the packed file of a folder. Saved methods and output of processes are no part of it.

    ``revise`` receives the content of each cell, as :func:`hashzoo.results.store.content` returns it, and returns what
    is written.
    """
    contents, arrays = list[dict[str, Any]](), dict[str, bytes]()
    for member in members:
        content, stored = store.content(member.file)
        if stored is not None:
            if packing.half:
                exact = content.get("measured_arrays") or content["arrays"]
                stored = packed.in_half_precision(stored, member.cell.metrics)
                content |= {"arrays": sha256(stored), "measured_arrays": exact}
            arrays[content["arrays"]] = stored
        cell = member.cell
        contents.append(revise(content) | {"name": store.path(folder, cell.identity, cell.benchmark).name})
    packed.write(folder / packed.NAME, sorted(contents, key=lambda content: str(content["name"])), arrays)


def _pack_in_place(
    folders: Sequence[Path], output: Path, installed: InstalledCode | None, packing: Packing
) -> tuple[int, int]:
    """Write the packed file of one of the folders, then delete the files that its lines replace."""
    if lease := next((output / "cells").glob("*.lease"), None):
        raise UsageError(f"{lease} says that a sweep measures a cell there; wait for it, or name a new folder with -o")
    members, _ = gather(folders)
    own = [member.file for member in members if member.file.parent.parent.resolve() == output.resolve()]
    if kept := next((one for one in own if one.with_suffix(".safetensors").is_file()), None):
        raise UsageError(
            f"{kept.with_suffix('.safetensors')} is a saved method, which a packed file does not hold; name a new "
            "folder with -o"
        )
    _copy_splits([one for one in folders if one.resolve() != output.resolve()], output / store.SPLITS)
    pack(members, output, packing)
    for file in own:
        for beside in _beside(file):  # with the JSON file itself
            beside.unlink(missing_ok=True)
    with suppress(OSError):
        (output / "cells").rmdir()  # unless something else is in it
    return len(members), len(write_board(output, [member.cell for member in members], installed))


def _beside(file: Path) -> list[Path]:
    return [found for found in file.parent.glob(f"{_escaped(file.stem)}.*") if found.is_file()]


def _copy_cell(member: Member, folder: Path) -> None:
    """Copy a cell with all files beside it: arrays, weights, output. Its JSON file is the last one."""
    if not member.file.exists():  # the line of a packed file
        store.write_content(folder / member.file.name, *store.content(member.file))
        return
    beside = _beside(member.file)
    skipped = re.compile(r"\.(bad|tmp|checkpoint|lease)$")
    for file in sorted(beside, key=member.file.__eq__):
        if not skipped.search(file.name):
            _copy(file, folder / file.name)


def _copy_splits(folders: Sequence[Path], target: Path) -> None:
    """Copy the descriptions of splits; their names have the fingerprint of their data."""
    for file in (file for folder in folders for file in sorted((folder / store.SPLITS).glob("*.npz"))):
        with disk_errors("create", target):
            target.mkdir(exist_ok=True)
        if not (target / file.name).exists():
            _copy(file, target / file.name)


def _copy(file: Path, target: Path) -> None:
    with disk_errors("read", file):
        content = file.read_bytes()
    replace_bytes(target, content)


def _escaped(name: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", name)
