"""A folder of codes: Parquet files of a run of items each, and a manifest that names them with their digests.

``hashzoo encode --shard-rows`` writes it. ``manifest.json`` is replaced after each file, so that a process that ends
anywhere leaves whole files. Readers hold the codes of one file at a time.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.export.parquet import build_table, import_pyarrow
from hashzoo.retrieval.code_file import RowNames, StoredCodes, array_name
from hashzoo.storage.files import disk_errors, file_sha256, replace_bytes, sha256
from hashzoo.storage.schema import refuse_newer

FORMAT, SCHEMA, MANIFEST, LOCK = "hashzoo code files", 1, "manifest.json", ".lock"

_TEMPORARY = re.compile(r"\.\d+-[0-9a-f]+\.tmp")  # of storage.files.replace_file
_PART = re.compile(r"part-\d{5,}\.parquet")

Content = Mapping[str, Any]


class CodeFolder:
    """The codes of a complete folder, read one file at a time.

    Args:
        folder: The folder.

    Raises:
        UsageError: If it is not complete, or holds no codes.
        EnvironmentFailure: If its manifest is damaged, or a newer hashzoo wrote it.
    """

    def __init__(self, folder: Path) -> None:
        content = read_manifest(folder)
        if content.get("format") != FORMAT:
            raise UsageError(f"{folder} holds no codes of hashzoo encode --shard-rows; name another folder")
        refuse_newer(folder / MANIFEST, content.get("schema"), SCHEMA, "encode into a new folder")
        if not content["complete"]:
            done = sum(file["items"] for file in content["files"])
            raise UsageError(
                f"{folder} has the codes of {done:,} items and is not complete; run its hashzoo encode again"
            )
        self.folder = folder
        self._files = [file for file in content["files"] if file["name"]]
        self._rows = sum(int(file["rows"]) for file in self._files)
        self.metadata = {
            **content["encoder"],
            "codes": content["codes"],
            "count": self._rows,
            "root": content["root"],
        }

    def __len__(self) -> int:
        return self._rows

    def parts(self) -> Iterator[StoredCodes]:
        """The codes of each file. Raises EnvironmentFailure for one that is damaged or missing."""
        pyarrow, start = import_pyarrow(), 0
        for file in self._files:
            table = _read_file(pyarrow, self.folder, file)
            named: Any = table.column("path").to_pylist() if "path" in table.column_names else None
            arrays = {
                array_name(name, spec): _array(table.column(name).combine_chunks(), spec)
                for name, spec in self.metadata["codes"].items()
            }
            yield StoredCodes(self.metadata, named or RowNames(table.num_rows, start), arrays)
            start += table.num_rows


def is_folder(path: Path) -> bool:
    """Whether a path is a folder of codes."""
    return path.is_dir() and bool(read_manifest(path).get("format") == FORMAT)


def read_manifest(folder: Path) -> Content:
    """The manifest of a folder; empty if it has none. Raises EnvironmentFailure if it is damaged."""
    file = folder / MANIFEST
    try:
        with disk_errors("read", file):
            content = json.loads(file.read_bytes())
    except EnvironmentFailure as error:
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            return {}
        raise
    except ValueError as error:
        raise EnvironmentFailure(f"{file} is damaged ({error}); delete {folder} and encode again") from error
    return content if isinstance(content, dict) else {}


def write_manifest(folder: Path, head: Content, done: Mapping[int, Content], items: int) -> None:
    """Name the files that are done, by their first item."""
    files = [done[start] for start in sorted(done)]
    content = {**head, "complete": sum(file["items"] for file in files) == items, "files": files}
    replace_bytes(folder / MANIFEST, (json.dumps(content, indent=1) + "\n").encode())


def check(folder: Path, head: Content) -> Content:
    """Raise UsageError unless codes can be written to a folder: a new one, or one that the same call began.

    Args:
        folder: The folder.
        head: What the manifest says apart from files.

    Returns:
        The manifest of the folder; empty if there is none.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; name a folder for the files of --shard-rows")
    content = read_manifest(folder)
    if not content:
        if folder.is_dir() and not all(_is_left(entry.name) for entry in folder.iterdir()):
            raise UsageError(f"{folder} holds other files; name a new folder")
        return content
    if content.get("format") != FORMAT:
        raise UsageError(f"{folder} holds other files; name a new folder")
    refuse_newer(folder / MANIFEST, content.get("schema"), SCHEMA, "encode into a new folder")
    if not content["files"]:
        return content  # the call that began it ended before its first file
    for what, one, other in (
        ("another method", content["encoder"]["run"]["state"], head["encoder"]["run"]["state"]),
        ("other or changed items", content["source"], head["source"]),
        (f"files of {content['rows']} items", content["rows"], head["rows"]),
        ("another choice of --vectors", content.get("vectors", False), head["vectors"]),
    ):
        if one != other:
            raise UsageError(f"{folder} holds codes of {what}; name a new folder")
    return content


def _is_left(name: str) -> bool:
    """Whether a process that was killed before the first manifest left a file of this name."""
    return name == LOCK or bool(_TEMPORARY.fullmatch(name))


def clean(folder: Path, done: Mapping[int, Content]) -> None:
    """Delete what a process left that was killed while it wrote: files that are not whole, or not named."""
    named = {file["name"] for file in done.values()}
    with disk_errors("clean", folder):
        for entry in folder.iterdir():
            if _TEMPORARY.fullmatch(entry.name) or (_PART.fullmatch(entry.name) and entry.name not in named):
                entry.unlink()


def write_file(pyarrow: Any, folder: Path, number: int, stored: StoredCodes) -> dict[str, Any]:
    """Write the codes of a run of items. Returns its name, rows and digest."""
    table = build_table(pyarrow, stored, bytes_as_lists=False).drop_columns(["row"])
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer)
    name, data = f"part-{number:05}.parquet", buffer.getvalue()
    replace_bytes(folder / name, data)
    return {"name": name, "rows": len(stored), "sha256": sha256(data)}


def is_whole(folder: Path, file: Content) -> bool:
    """Whether a file has the content that was written. A run of items without rows has none."""
    if file["name"] is None:
        return True
    try:
        return bool(file_sha256(folder / file["name"]) == file["sha256"])
    except OSError:
        return False


def _read_file(pyarrow: Any, folder: Path, file: Content) -> Any:
    path = folder / file["name"]
    with disk_errors("read", path):
        data = path.read_bytes()
    if sha256(data) != file["sha256"]:
        raise EnvironmentFailure(f"{path} is damaged; run its hashzoo encode again, which encodes this file anew")
    return pyarrow.parquet.read_table(io.BytesIO(data))


def _array(column: Any, spec: Content) -> np.ndarray[Any, Any]:
    """The array of a code of N items: packed bits, or values."""
    if "bits" in spec:
        width = spec["bytes"]
        rows = np.frombuffer(column.buffers()[1], np.uint8, len(column) * width, column.offset * width)
        return rows.reshape(-1, width)
    values = column.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(values, dtype=spec["type"]).reshape(len(column), *spec["shape"])
