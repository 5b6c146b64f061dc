"""The files of a bundle from anyone, read so that nothing outside it is read or written, and nothing is executed."""

from __future__ import annotations

import io
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hashzoo.errors import EnvironmentFailure
from hashzoo.results import packed
from hashzoo.results.bundle import ENVIRONMENT, MANIFEST, SIGNATURE, require_bundle
from hashzoo.results.store import SPLITS
from hashzoo.storage.files import disk_errors

MOST_FILES = 1000
MOST_BYTES = 1 << 30  # of all files, and of the arrays in one file

ARRAYS = Path(packed.NAME).with_suffix(".zip").name
REQUIRED = (packed.NAME, ENVIRONMENT, MANIFEST)
_KNOWN = re.compile(
    rf"(?:{'|'.join(map(re.escape, (*REQUIRED, ARRAYS, SIGNATURE)))}|{SPLITS}/[A-Za-z0-9_+-][A-Za-z0-9_.+-]*\.npz)"
)
_MEMBER = re.compile(r"[0-9a-f]{64}\.npz")  # of the arrays


@dataclass(frozen=True)
class Entry:
    """A file of a bundle before it is read: its name, its size, and why it is not read; empty if it is."""

    name: str
    size: int
    fault: str


def read(path: Path) -> tuple[dict[str, bytes], list[str]]:
    """The files of a bundle by name, and a line for each that is missing, or does not belong there and is not read.

    Links, names that lead out of the bundle, unknown names, and files beyond ``MOST_FILES`` and ``MOST_BYTES`` are not
    read. Raises UsageError if there is no bundle, and EnvironmentFailure if a .zip file is damaged.
    """
    require_bundle(path)
    with disk_errors("read", path):
        files, faults = _read_folder(path) if path.is_dir() else _read_zip(path)
    for name, data in list(files.items()):
        if name.endswith((".npz", ".zip")) and (fault := _archive_fault(name, data)):
            faults.append(f"{name} {fault}")
            del files[name]
    listed = {line.split(" ")[0] for line in faults}
    return files, [*faults, *(f"{name} is missing" for name in REQUIRED if name not in files and name not in listed)]


def write(files: dict[str, bytes], folder: Path) -> None:
    """Write files of :func:`read` to an empty folder."""
    for name, data in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)


def _chosen(entries: Iterator[Entry]) -> tuple[list[Entry], list[str]]:
    """The entries that are read, and a line for each other one."""
    kept, faults, left = dict[str, Entry](), [], MOST_BYTES
    for number, entry in enumerate(entries):
        if number >= MOST_FILES:
            faults.append(f"{entry.name} and what follows is not read: a bundle has at most {MOST_FILES} files")
            break
        fault = entry.fault or ("" if _KNOWN.fullmatch(entry.name) else "is not a file of a bundle; remove it")
        if not fault and entry.name in kept:
            fault = "is there twice; remove one"
        if not fault and entry.size > left:
            fault = f"is too large: a bundle has at most {MOST_BYTES >> 20} MiB"
        if fault:
            faults.append(f"{entry.name} {fault}")
        else:
            kept[entry.name], left = entry, left - entry.size
    return list(kept.values()), faults


def _read_folder(path: Path) -> tuple[dict[str, bytes], list[str]]:
    kept, faults = _chosen(_walk(path, path))
    return {entry.name: (path / entry.name).read_bytes() for entry in kept}, faults


def _walk(root: Path, folder: Path) -> Iterator[Entry]:
    """The files below a folder; a folder that is none of a bundle is one entry."""
    for found in sorted(os.scandir(folder), key=lambda one: one.name):
        name = Path(found.path).relative_to(root).as_posix()
        if found.is_symlink():
            yield Entry(name, 0, "is a link; put the file itself there")
        elif found.is_dir() and name == SPLITS:
            yield from _walk(root, Path(found.path))
        elif not found.is_file():
            yield Entry(name, 0, "is not a file of a bundle; remove it")
        else:
            yield Entry(name, found.stat().st_size, "")


def _read_zip(path: Path) -> tuple[dict[str, bytes], list[str]]:
    try:
        with zipfile.ZipFile(path) as opened:
            if min((member.header_offset for member in opened.infolist()), default=0):
                raise ValueError("its start is missing")  # also what a cut file is, which ends with that of the arrays
            kept, faults = _chosen(
                _zip_entry(member) for member in opened.infolist() if member.filename != f"{SPLITS}/"
            )
            return {entry.name: opened.read(entry.name) for entry in kept}, faults
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise EnvironmentFailure(f"{path} is a damaged .zip file ({error}); copy it again") from None


def _zip_entry(member: zipfile.ZipInfo) -> Entry:
    kind, name, fault = stat.S_IFMT(member.external_attr >> 16), member.orig_filename, ""
    if name != member.filename or "\\" in name or name.startswith("/") or ".." in name.split("/") or ":" in name:
        fault = "leads out of the bundle; write the .zip file again"
    elif kind not in (0, stat.S_IFREG):
        fault = "is a link or a device; put the file itself there"
    elif member.flag_bits & 1:
        fault = "is encrypted; write the .zip file again without a password"
    return Entry(name, member.file_size, fault)


def _archive_fault(name: str, data: bytes) -> str:
    """What is wrong with a file of arrays before one is read; the size of the arrays is bounded."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as opened:
            members = opened.infolist()
            if sum(member.file_size for member in members) > MOST_BYTES:
                return f"is too large: its arrays have at most {MOST_BYTES >> 20} MiB"
            if name != ARRAYS:
                return ""
            if other := next((one.filename for one in members if not _MEMBER.fullmatch(one.filename)), None):
                return f"holds {other!r}, which is not the arrays of a cell; remove it"
            total = sum(_unpacked(opened.read(member)) for member in members)
            return f"is too large: its arrays have at most {MOST_BYTES >> 20} MiB" if total > MOST_BYTES else ""
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        return f"is damaged ({error}); copy it again"


def _unpacked(data: bytes) -> int:
    """The size of the arrays in an .npz file; 0 if it is none, which is reported with its cell."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as opened:
            return sum(member.file_size for member in opened.infolist())
    except (zipfile.BadZipFile, ValueError):
        return 0
