"""One JSON file for each cell, or one line of a packed file; all tables are made from these.

A file is named after the key of its cell, the digest of the identity, so a benchmark that runs again finds the cells
that it has measured already. Scores of single queries are in an ``.npz`` file next to the JSON. Files are replaced
atomically and contain a checksum, so a file that can be read has the content that was written.

The path of a cell is that of its own file, whether it has one or is a line of the folder's packed file
(:mod:`hashzoo.results.packed`). A file of its own is newer than the line. Where a folder is expected, a packed file can
be given too.
"""

from __future__ import annotations

import errno
import io
import json
import math
import os
import re
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.results import packed
from hashzoo.results.cell import Cell, Identity, plain
from hashzoo.storage import npz
from hashzoo.storage.files import canonical_json, disk_errors, replace_bytes, sha256
from hashzoo.storage.schema import NewerSchemaError, check_types, is_readable, migrate

#: The folder of the splits of a board, in its results folder.
SPLITS = "splits"

#: The version of the layout. ``schema`` and ``checksum`` keep their places in all versions.
SCHEMA = 1

#: Functions by schema n that turn the content of a file into that of schema n + 1. They do not change the identity,
#: since its digest is part of the file's name.
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}


class DamagedError(EnvironmentFailure):
    """The file of a cell does not have the content that was written; ``reason`` says what is wrong."""

    def __init__(self, path: Path, reason: str) -> None:
        what = f"{path} is damaged ({reason}); delete it"
        if packed.fault(path):
            what = f"{path.parent}, line {path.name}, is damaged ({reason}); delete the line"
        super().__init__(f"{what} and run the benchmark again")
        self.reason = reason


def path(folder: Path, identity: Identity, benchmark: str) -> Path:
    """The path of the JSON file of a cell in a results folder.

    >>> identity = Identity(dataset="digits.small", dataset_options={}, backbone="tiny", backbone_options={},
    ...     method="saliency+hashnet", hyperparameters={}, bits=32, seed=0, budget={}, protocol=1, code="",
    ...     data="")
    >>> path(Path("results"), identity, "a/b").name
    'a_b.saliency+hashnet.32.0.9e019e05e484c64f.json'
    """
    # shortened, since a file name has at most 255 bytes; the key makes it unique
    names = [re.sub(r"[^A-Za-z0-9+_-]", "_", name)[:80] for name in (benchmark, identity.method)]
    place = folder if folder.suffix == packed.SUFFIX else folder / "cells"
    return place / f"{'.'.join(names)}.{identity.bits}.{identity.seed}.{identity.key}.json"


def splits_file(identity: Identity) -> str:
    """The name of the file of a cell's splits in its results folder."""
    return f"{SPLITS}/{identity.dataset}.{identity.data}.npz"


def place(cell: Cell) -> tuple[str, str]:
    """What distinguishes a cell from all others of a results folder: its benchmark and its key."""
    return cell.benchmark, cell.identity.key


def digest(path: Path) -> str:
    """The digest of the arrays of a cell as they were measured; empty if it has none. Raises DamagedError."""
    content = _content(path)
    return str(content.get("measured_arrays") or content["arrays"] or "")


def has_arrays(path: Path) -> bool:
    """Whether the arrays of a cell are there; they can be left out of results that are passed on.

    Raises DamagedError.
    """
    return _stored_arrays(path, _content(path)["arrays"]) is not None


def exists(path: Path) -> bool:
    """Whether there is a cell of this path: a file of its own, or a line of a packed file."""
    return path.exists() or packed.line(path) is not None


def files(folder: Path) -> list[Path]:
    """The paths of the cells of a results folder or packed file, and of damaged lines, in a fixed order."""
    own = set[Path]()
    if folder.suffix != packed.SUFFIX:
        with disk_errors("read", folder / "cells"), suppress(FileNotFoundError, NotADirectoryError):
            own = {file for file in (folder / "cells").iterdir() if file.suffix == ".json"}
    return sorted(own | set(packed.files(folder)))


def content(path: Path) -> tuple[dict[str, Any], bytes | None]:
    """The content of a cell's JSON file, without its checksum, and the file of its arrays, if it is there.

    Raises DamagedError, NewerSchemaError, or EnvironmentFailure if the cell cannot be read.
    """
    found = _content(path)
    found.pop("name", None)  # of a packed line
    return found, _checked(path, found["arrays"])


def write_content(target: Path, content: Mapping[str, Any], arrays: bytes | None) -> None:
    """Write the file of a cell with this content, and that of its arrays. Raises EnvironmentFailure."""
    if arrays is not None:
        replace_bytes(_arrays_path(target, content["arrays"]), arrays)
    replace_bytes(target, content_bytes(content))


def content_bytes(content: Mapping[str, Any]) -> bytes:
    """The JSON file of a cell with this content, and its checksum."""
    whole = {**content, "checksum": packed.checksum(content)}
    return json.dumps(whole, indent=1, sort_keys=True, allow_nan=False).encode()


def write(folder: Path, cell: Cell, arrays: Mapping[str, np.ndarray[Any, Any]]) -> Path:
    """Write a cell, its arrays first, and return the path of its JSON file.

    The file of the arrays is named after its content, so a write that is interrupted anywhere leaves the previous cell
    intact. Scores that are not finite are stored as null. Raises EnvironmentFailure if the disk fails.
    """
    target = path(folder, cell.identity, cell.benchmark)
    with disk_errors("create", target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
    previous = None
    with suppress(EnvironmentFailure):
        previous = _arrays_path(target, _content(target)["arrays"])
    stored = _pack(arrays) if arrays else None
    content = {"schema": SCHEMA, "arrays": sha256(stored) if stored else None, "cell": _stored(cell)}
    write_content(target, content, stored)
    if previous and previous != _arrays_path(target, content["arrays"]):
        with suppress(OSError):  # a file that remains is harmless
            previous.unlink(missing_ok=True)
    return target


def write_file(path: Path, cell: Cell) -> Path:
    """Write a cell without arrays to a file of any name, and return its path. Raises EnvironmentFailure."""
    write_content(path, {"schema": SCHEMA, "arrays": None, "cell": _stored(cell)}, None)
    return path


def read(path: Path) -> Cell:
    """Read the cell in a JSON file.

    Arrays can be missing, since results can be passed on without them, but must not differ. Raises DamagedError,
    NewerSchemaError, or EnvironmentFailure if the file cannot be read.
    """
    content = _content(path)
    _checked(path, content["arrays"])
    return _cell(path, content["cell"])


def arrays(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Read the arrays of the cell in a JSON file, by name; empty if it has none.

    Raises DamagedError like ``read``, and EnvironmentFailure if their file is missing.
    """
    if not (digest := _content(path)["arrays"]):
        return {}
    if (stored := _checked(path, digest)) is None:
        with disk_errors("read", _arrays_path(path, digest)):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    try:
        return npz.read(io.BytesIO(stored))
    except ValueError as error:
        raise DamagedError(path, f"the arrays cannot be read: {error}") from None


def read_all(folder: Path) -> tuple[list[Cell], list[str]]:
    """Read the cells of a results folder, in a fixed order, with a line for each file that is not counted.

    A damaged cell is renamed to ``<name>.bad``, and so are its arrays; a damaged line stays where it is. Raises
    NewerSchemaError.
    """
    found, messages = [], []
    for file in files(folder):
        cell, message = _read_or_set_aside(file)
        if cell is not None and file.name != path(folder, cell.identity, cell.benchmark).name:
            cell, message = None, f"{file} is a copy of another cell and is not counted; delete it"
        if cell is not None:
            found.append(cell)
        if message:
            messages.append(message)
    return sorted(found, key=_order), messages


def peek_all(folder: Path) -> list[Cell]:
    """The readable cells of a results folder, which is not changed; empty if there is none."""
    found = []
    for file in files(folder):
        with suppress(EnvironmentFailure):
            found.append(read(file))
    return found


def find(folder: Path, identity: Identity, benchmark: str) -> tuple[Cell | None, list[str]]:
    """The cell of an identity, or None, with a line if a damaged file was set aside."""
    file = path(folder, identity, benchmark)
    cell, message = _read_or_set_aside(file) if exists(file) else (None, "")
    if cell is not None and (cell.identity.key, cell.benchmark) != (identity.key, benchmark):
        cell = None
    return cell, [message] if message else []


def prepare(folder: Path) -> None:
    """Create a results folder, and check that it can be written to before anything is measured.

    Raises EnvironmentFailure if it cannot, NewerSchemaError if a later hashzoo wrote cells there, and UsageError if it
    has the name of a packed file.
    """
    if folder.suffix == packed.SUFFIX:
        raise UsageError(f"{folder} is the name of a packed file; name the results folder, {folder.parent}")
    with disk_errors("create", folder / "cells"):
        (folder / "cells").mkdir(parents=True, exist_ok=True)
    probe = folder / "cells" / f".probe-{secrets.token_hex(6)}"
    replace_bytes(probe, b"hashzoo")
    probe.unlink(missing_ok=True)
    for file in files(folder):
        with suppress(DamagedError):
            _content(file)


def _bytes(path: Path) -> bytes:
    if reason := packed.fault(path):
        raise DamagedError(path, reason)
    with disk_errors("read", path):
        try:
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            if (line := packed.line(path)) is None:
                raise
            return line


def _stored_arrays(path: Path, digest: str | None) -> bytes | None:
    """The file of the arrays of a cell as it is, beside the cell or beside the packed file; None if it is not there."""
    if not digest:
        return None
    with disk_errors("read", _arrays_path(path, digest)), suppress(FileNotFoundError, NotADirectoryError):
        return _arrays_path(path, digest).read_bytes()
    return packed.arrays(path, digest)


def _checked(path: Path, digest: str | None) -> bytes | None:
    """As ``_stored_arrays``. Raises DamagedError if the content is not that of the cell."""
    found = _stored_arrays(path, digest)
    if found is not None and sha256(found) != digest:
        beside = _arrays_path(path, digest)
        place = beside.name if beside.exists() else "the .zip file beside the packed file"
        raise DamagedError(path, f"the arrays in {place} are not those of the cell")
    return found


def _content(path: Path) -> dict[str, Any]:
    raw = _bytes(path)
    try:
        content = json.loads(raw, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise DamagedError(path, "not a complete JSON file") from None
    schema: Any = content.get("schema") if isinstance(content, dict) else None
    if type(schema) is int and schema > SCHEMA:
        raise NewerSchemaError(path, schema, SCHEMA)
    try:
        checksum = content.pop("checksum")
        sound = is_readable(schema, SCHEMA, MIGRATIONS) and checksum == sha256(canonical_json(content).encode())
        content = migrate(content, schema, SCHEMA, MIGRATIONS) if sound else {}
    except (AttributeError, KeyError, TypeError, ValueError):
        content = {}
    if not {"arrays", "cell"} <= content.keys():
        raise DamagedError(path, "the checksum does not match the content")
    return dict(content)


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not valid JSON")


def _cell(path: Path, stored: Any) -> Cell:
    try:
        values = {name: value for name, value in stored.items() if name != "identity"}
        for name in ("metrics", "facts", "timings"):
            values[name] = {key: math.nan if v is None else v for key, v in stored[name].items()}
        return check_types(Cell(**values, identity=check_types(Identity(**stored["identity"]))))
    except (KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
        raise DamagedError(path, f"the content is not that of a cell: {error}") from None


def _stored(cell: Cell) -> dict[str, Any]:
    values = asdict(cell)
    for name in ("metrics", "timings"):
        values[name] = {key: float(value) for key, value in values[name].items()}
    return {name: plain(value, name, null=name != "identity") for name, value in values.items()}


def _pack(arrays: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    packed = io.BytesIO()
    plain = {name: np.asarray(array) for name, array in arrays.items()}
    for name, array in plain.items():
        if array.dtype.hasobject:
            raise TypeError(f"array {name!r} holds Python objects; only numbers, bools and text can be stored")
    np.savez_compressed(packed, **plain)  # type: ignore[arg-type]  # the stubs take a name for allow_pickle
    return packed.getvalue()


def _arrays_path(path: Path, digest: Any) -> Path:
    return path.with_name(f"{path.stem}.{str(digest)[:12]}.npz")


def _read_or_set_aside(file: Path) -> tuple[Cell | None, str]:
    try:
        return read(file), ""
    except DamagedError as error:
        if not file.exists():
            return None, f"{str(error).partition(';')[0]}: not counted; run the benchmark again to measure it again"
        outcome = f"renamed to {file.name}.bad and not counted"
        try:
            for other in [file, *file.parent.glob(f"{file.stem}.*.npz")]:
                other.replace(other.with_name(f"{other.name}.bad"))
        except OSError:
            outcome = "not counted (it could not be renamed)"
        return None, f"{file} is damaged ({error.reason}): {outcome}; run the benchmark again to measure it again"


def _order(cell: Cell) -> tuple[Any, ...]:
    i = cell.identity
    return cell.benchmark, i.dataset, i.backbone, i.bits, i.method, cell.settings, i.seed, i.key
