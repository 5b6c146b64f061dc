"""One JSON a cell: the truth from which every table is made.

A cell is one measurement. Its identity is all that can change the score, and nothing else; the digest of the
identity is the cell's key, so a benchmark that is run again finds what it has already measured. Scores for
each query lie in an ``.npz`` beside the JSON. A file is replaced in one step or not at all, and carries its
checksum, so whatever reads without complaint is what was written.
"""

from __future__ import annotations

import io
import json
import math
import re
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.results.cell import Cell, Identity, plain
from hashzoo.storage import npz
from hashzoo.storage.files import canonical_json, disk_errors, replace_bytes, sha256
from hashzoo.storage.schema import NewerSchemaError, check_types, is_readable, migrate

#: The version of the file's layout. ``schema`` and ``checksum`` keep their places in every version to come.
SCHEMA = 1

#: What makes a file's content of schema n one of n + 1. The identity stays as it is: its digest is the file's name.
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}


class DamagedError(EnvironmentFailure):
    """A cell whose file does not hold what was written; ``reason`` says how that was seen."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} is damaged ({reason}); delete it and run the benchmark again")
        self.reason = reason


def path(folder: Path, identity: Identity, benchmark: str) -> Path:
    """Where the JSON of a cell lies under a results folder.

    >>> identity = Identity(dataset="digits.small", dataset_options={}, backbone="tiny", backbone_options={},
    ...     method="saliency+hashnet", hyperparameters={}, bits=32, seed=0, budget={}, protocol=1, code="",
    ...     data="")
    >>> path(Path("results"), identity, "a/b").name
    'a_b.saliency+hashnet.32.0.9e019e05e484c64f.json'
    """
    # Shortened, since a file's name may take 255 bytes; the key keeps it apart from others.
    names = [re.sub(r"[^A-Za-z0-9+_-]", "_", name)[:80] for name in (benchmark, identity.method)]
    return folder / "cells" / f"{'.'.join(names)}.{identity.bits}.{identity.seed}.{identity.key}.json"


def write(folder: Path, cell: Cell, arrays: Mapping[str, np.ndarray[Any, Any]]) -> Path:
    """Writes a cell, the arrays first, and returns the path of its JSON.

    The arrays' file is named after its content, so that a write that is cut off anywhere leaves the former
    cell whole. Scores that are not finite are stored as null. Raises EnvironmentFailure when the disk refuses.
    """
    target = path(folder, cell.identity, cell.benchmark)
    with disk_errors("make", target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
    former = None
    with suppress(EnvironmentFailure):
        former = _arrays_path(target, _content(target)["arrays"])
    content: dict[str, Any] = {"schema": SCHEMA, "arrays": None, "cell": _stored(cell)}
    if arrays:
        packed = _pack(arrays)
        content["arrays"] = sha256(packed)
        replace_bytes(_arrays_path(target, content["arrays"]), packed)
    content["checksum"] = sha256(canonical_json(content).encode())
    replace_bytes(target, json.dumps(content, indent=1, sort_keys=True, allow_nan=False).encode())
    if former and former != _arrays_path(target, content["arrays"]):
        with suppress(OSError):  # a file too many is no harm
            former.unlink(missing_ok=True)
    return target


def read(path: Path) -> Cell:
    """The cell in a JSON file.

    Arrays that are absent are no damage, since results may be passed on without them; arrays that differ are.
    Raises DamagedError, NewerSchemaError, or EnvironmentFailure when the file cannot be read.
    """
    content = _content(path)
    if _arrays_path(path, content["arrays"]).exists():
        _packed(path, content["arrays"])
    return _cell(path, content["cell"])


def arrays(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays written with the cell whose JSON is at ``path``, by name; empty when there were none.

    Raises DamagedError as ``read`` does, and EnvironmentFailure when the file that held them is gone.
    """
    if not (digest := _content(path)["arrays"]):
        return {}
    try:
        return npz.read(io.BytesIO(_packed(path, digest)))
    except ValueError as error:
        raise DamagedError(path, f"its arrays cannot be read: {error}") from None


def read_all(folder: Path) -> tuple[list[Cell], list[str]]:
    """The sound cells under a results folder, in a fixed order, and a line for each file that is not one.

    A damaged cell is set aside as ``<name>.bad``, together with its arrays. Raises NewerSchemaError.
    """
    found, messages = [], []
    for file in _files(folder):
        cell, message = _read_or_set_aside(file)
        if cell is not None and file.name != path(folder, cell.identity, cell.benchmark).name:
            cell, message = None, f"{file} is a copy of another cell and was not counted; delete it"
        if cell is not None:
            found.append(cell)
        if message:
            messages.append(message)
    return sorted(found, key=_order), messages


def find(folder: Path, identity: Identity, benchmark: str) -> tuple[Cell | None, list[str]]:
    """The sound cell of an identity, or None; and a line when a damaged one had to be set aside."""
    file = path(folder, identity, benchmark)
    cell, message = _read_or_set_aside(file) if file.exists() else (None, "")
    if cell is not None and (cell.identity.key, cell.benchmark) != (identity.key, benchmark):
        cell = None
    return cell, [message] if message else []


def prepare(folder: Path) -> None:
    """Makes a results folder and shows that it can be written to, before hours are spent.

    Raises EnvironmentFailure when it cannot, and NewerSchemaError when a later hashzoo has been there.
    """
    with disk_errors("make", folder / "cells"):
        (folder / "cells").mkdir(parents=True, exist_ok=True)
    probe = folder / "cells" / f".probe-{secrets.token_hex(6)}"
    replace_bytes(probe, b"hashzoo")
    probe.unlink(missing_ok=True)
    for file in _files(folder):
        with suppress(DamagedError):
            _content(file)


def _bytes(path: Path) -> bytes:
    with disk_errors("read", path):
        return path.read_bytes()


def _packed(path: Path, digest: str) -> bytes:
    beside = _arrays_path(path, digest)
    packed = _bytes(beside)
    if sha256(packed) != digest:
        raise DamagedError(path, f"the arrays in {beside.name} are not those it was written with")
    return packed


def _content(path: Path) -> dict[str, Any]:
    raw = _bytes(path)
    try:
        content = json.loads(raw, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise DamagedError(path, "it is not a complete JSON file") from None
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
        raise DamagedError(path, "its checksum does not fit its content")
    return dict(content)


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def _cell(path: Path, stored: Any) -> Cell:
    try:
        values = {name: value for name, value in stored.items() if name != "identity"}
        for name in ("metrics", "facts", "timings"):
            values[name] = {key: math.nan if v is None else v for key, v in stored[name].items()}
        return check_types(Cell(**values, identity=check_types(Identity(**stored["identity"]))))
    except (KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
        raise DamagedError(path, f"its content is not that of a cell: {error}") from None


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
            raise TypeError(f"array {name!r} holds Python objects; numbers, bools and text can be stored")
    np.savez_compressed(packed, **plain)  # type: ignore[arg-type]  # the stubs take a name for allow_pickle
    return packed.getvalue()


def _arrays_path(path: Path, digest: Any) -> Path:
    return path.with_name(f"{path.stem}.{str(digest)[:12]}.npz")


def _files(folder: Path) -> list[Path]:
    with disk_errors("read", folder / "cells"), suppress(FileNotFoundError):
        return sorted(file for file in (folder / "cells").iterdir() if file.suffix == ".json")
    return []


def _read_or_set_aside(file: Path) -> tuple[Cell | None, str]:
    try:
        return read(file), ""
    except DamagedError as error:
        fate = f"set aside as {file.name}.bad and not counted"
        try:
            for other in [file, *file.parent.glob(f"{file.stem}.*.npz")]:
                other.replace(other.with_name(f"{other.name}.bad"))
        except OSError:
            fate = "not counted (it could not be set aside)"
        return None, f"{file} is damaged ({error.reason}): {fate}; run the benchmark again to measure it anew"


def _order(cell: Cell) -> tuple[Any, ...]:
    i = cell.identity
    return cell.benchmark, i.dataset, i.backbone, i.bits, i.method, cell.settings, i.seed, i.key
