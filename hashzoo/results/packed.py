"""All cells of a board in one file, ``cells.jsonl``: a line a cell, each with its name and its checksum.

A line has the content of a cell's JSON file and its ``name``, as canonical JSON. The arrays of all cells are in
``cells.zip`` beside it, as members that are named after their SHA-256. A packed file stands for the files that it
holds: the cell ``NAME.json`` of a results folder is read from its own file, and if there is none, from the line of
that name. Both files are replaced atomically, the arrays first and with those of the former lines, so that a write
that is interrupted anywhere leaves the former board.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from hashzoo.storage import npz
from hashzoo.storage.files import canonical_json, disk_errors, replace_bytes, sha256

NAME = "cells.jsonl"
SUFFIX = ".jsonl"

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the time of all members, so that the same cells give the same bytes
_HALF_MAX = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class PackedLines:
    """The lines of a packed file: the sound ones by the name of their cell, and what is wrong with others."""

    sound: Mapping[str, bytes]
    faults: Mapping[int, str]


def packed_file(folder: Path) -> Path:
    """The packed file of a results folder, or the packed file itself."""
    return folder if folder.suffix == SUFFIX else folder / NAME


def files(folder: Path) -> list[Path]:
    """A path for each line of a packed file, or of that of a results folder; empty if there is none.

    The path of a sound line is that of the cell's file, which does not exist; the path of a damaged line is below the
    packed file and named after the number of the line.
    """
    holder = packed_file(folder)
    place = holder if folder == holder else folder / "cells"
    known = _lines(holder)
    return [*(place / name for name in known.sound), *(holder / str(number) for number in known.faults)]


def line(path: Path) -> bytes | None:
    """The content of a cell's JSON file that a packed file holds; None if none does."""
    holder = _holder(path)
    return _lines(holder).sound.get(path.name) if holder else None


def fault(path: Path) -> str:
    """Why the line of this path is damaged; empty if the path is not that of a damaged line."""
    if path.parent.suffix != SUFFIX or not path.name.isdigit():
        return ""
    return _lines(path.parent).faults.get(int(path.name), "")


def arrays(path: Path, digest: str) -> bytes | None:
    """The arrays with this digest beside the packed file that holds a cell; None if they are not there."""
    holder = _holder(path)
    if holder is None or path.exists():
        return None
    return _member(holder.with_suffix(".zip"), digest)


def member_names(archive: Path) -> set[str]:
    """The names of the members of the arrays beside a packed file."""
    with disk_errors("read", archive), zipfile.ZipFile(archive) as opened:
        return {*opened.namelist()}


def write(file: Path, contents: Iterable[Mapping[str, Any]], members: Mapping[str, bytes]) -> None:
    """Write a packed file and the arrays beside it.

    Args:
        file: The packed file.
        contents: The content of each cell, without its checksum, in the order of lines; all have a ``name``.
        members: The arrays by digest.

    Raises:
        EnvironmentFailure: If the disk fails.
    """
    lines = [canonical_json({**content, "checksum": checksum(content)}) for content in contents]
    data = "".join(f"{text}\n" for text in lines).encode()
    beside = file.with_suffix(".zip")
    former = _read_members(beside) if beside.exists() else {}
    if members or former:
        replace_bytes(beside, _zipped({**former, **members}))
    replace_bytes(file, data)
    if former.keys() - members.keys():
        replace_bytes(beside, _zipped(members))


def checksum(content: Mapping[str, Any]) -> str:
    """The checksum of the content of a cell, which has none."""
    return sha256(canonical_json(content).encode())


def in_half_precision(stored: bytes, names: Iterable[str]) -> bytes:
    """The arrays of a cell, the scores of single queries of these metrics in float16 where that range suffices."""
    known = npz.read(io.BytesIO(stored))
    for name in known.keys() & set(names):
        array = known[name]
        finite = array[np.isfinite(array)] if array.dtype.kind == "f" else array
        if array.dtype.kind == "f" and array.ndim == 1 and (np.abs(finite) <= _HALF_MAX).all():
            known[name] = array.astype(np.float16)
    found = io.BytesIO()
    np.savez_compressed(found, **known)  # type: ignore[arg-type]  # the stubs take a name for allow_pickle
    return found.getvalue()


def _holder(path: Path) -> Path | None:
    """The packed file that can hold the cell of a path."""
    if path.parent.suffix == SUFFIX:
        return path.parent
    return path.parent.with_name(NAME) if path.parent.name == "cells" else None


def _lines(holder: Path) -> PackedLines:
    try:
        known = holder.stat()
    except (FileNotFoundError, NotADirectoryError):
        return PackedLines({}, {})
    return _read_lines(holder, known.st_ino, known.st_size, known.st_mtime_ns)


@lru_cache(maxsize=16)
def _read_lines(holder: Path, *_version: int) -> PackedLines:
    with disk_errors("read", holder):
        rows = holder.read_bytes().split(b"\n")
    sound, faults, numbers = dict[str, bytes](), dict[int, str](), dict[str, int]()
    for number, row in enumerate(rows, 1):
        if not row.strip():
            continue
        name, reason = _name_of(row)
        if not reason and name in sound:
            reason = f"it repeats the cell of line {numbers[name]}"
        if reason:
            faults[number] = reason
        else:
            sound[name], numbers[name] = row, number
    return PackedLines(sound, faults)


def _name_of(row: bytes) -> tuple[str, str]:
    """The name of the cell in a line, and what is wrong with the line. A newer schema is judged by the reader."""
    try:
        content = json.loads(row)
        given = content.pop("checksum")
        name = content["name"]
    except (ValueError, RecursionError):
        return "", "not a complete JSON line"
    except (AttributeError, KeyError, TypeError):
        return "", "not the line of a cell"
    with suppress(ValueError):  # NaN, which is not valid JSON
        if given == checksum(content) and isinstance(name, str) and Path(name).name == name and name.endswith(".json"):
            return name, ""
    return "", "the checksum does not match the content"


def _member(archive: Path, digest: str) -> bytes | None:
    if not archive.exists():
        return None
    try:
        with disk_errors("read", archive), zipfile.ZipFile(archive) as opened:
            return opened.read(f"{digest}.npz")
    except KeyError:
        return None
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError):
        return b""  # its digest is not that of the cell, which is reported


def _read_members(archive: Path) -> dict[str, bytes]:
    """The sound members of an archive by digest."""
    found = dict[str, bytes]()
    try:
        with disk_errors("read", archive), zipfile.ZipFile(archive) as opened:
            names = opened.namelist()
    except (zipfile.BadZipFile, ValueError):
        return found
    for digest in (name.removesuffix(".npz") for name in names):
        data = _member(archive, digest)
        if data and sha256(data) == digest:
            found[digest] = data
    return found


def _zipped(members: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as made:  # an .npz is compressed already
        for digest in sorted(members):
            made.writestr(zipfile.ZipInfo(f"{digest}.npz", _EPOCH), members[digest])
    return packed.getvalue()
