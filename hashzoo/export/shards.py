"""Codes of a large collection as a folder of Parquet files, written one after another and continued after an end.

Each file has the codes of a run of items, in the order of the collection. ``manifest.json`` names the files with their
digests and the encoder; it is replaced after each file, so that a process that ends anywhere leaves whole files, and
the same call encodes the rest.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Any, Protocol

import filelock
import numpy as np

from hashzoo.data import image_paths
from hashzoo.data.vectors import Vectors
from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.export.parquet import build_table, import_pyarrow
from hashzoo.registry import hub
from hashzoo.retrieval.code_file import CodeCollector, RowNames, StoredCodes, array_name
from hashzoo.retrieval.encoder import Encoder, ImageLike
from hashzoo.retrieval.vector_encoder import VectorEncoder, load_any_encoder
from hashzoo.retrieval.vector_index import encode_vectors, sample_digest
from hashzoo.storage.files import disk_errors, replace_bytes, sha256
from hashzoo.storage.schema import refuse_newer
from hashzoo.types import ProgressCallback

FORMAT, SCHEMA, MANIFEST = "hashzoo code files", 1, "manifest.json"
_LOCK = ".lock"


@dataclass(frozen=True)
class Encoded:
    """What a folder of codes holds: rows, a message for each item that was left out, and files kept from before."""

    rows: int
    left_out: Sequence[str]
    files: int
    kept: int


#: The codes of a run of items, None if there are none, and a message for each item that was left out.
Result = tuple[StoredCodes | None, Sequence[str]]


class Part(Protocol):
    """A run of items, which can be sent to another machine that has the files."""

    def encode(self, encoder: Any) -> Result:
        """The codes of the items."""


@dataclass(frozen=True)
class ImagePart:
    """Some images of a folder."""

    root: Path
    paths: Sequence[PurePath]
    strict: bool

    def encode(self, encoder: Encoder) -> Result:
        """The codes of the images. EnvironmentFailure, if it is strict, for one that does not decode."""
        rows, skipped, collector = list[int](), list[str](), CodeCollector(stored_codes(encoder))
        files: list[ImageLike] = [self.root / path for path in self.paths]
        on_unreadable = None if self.strict else lambda _, reason: skipped.append(reason)
        for indices, codes in encoder.encode_batches(files, on_unreadable):
            collector.add(codes)
            rows += indices
        if not rows:
            return None, skipped
        return collector.finish(encoder.describe(), self.root, [self.paths[row] for row in rows]), skipped


@dataclass(frozen=True)
class VectorPart:
    """Some rows of a file of vectors."""

    file: Path
    start: int
    stop: int

    def encode(self, encoder: VectorEncoder) -> Result:
        """The codes of the rows."""
        whole = encoder.open(self.file)
        part = Vectors(whole.matrix, whole.rows[self.start : self.stop], unit=whole.unit)
        return encode_vectors(encoder, part, stored_codes(encoder)), ()


class Items(Protocol):
    """A collection in a fixed order."""

    @property
    def kind(self) -> str:
        """What the items are called."""

    @property
    def left_out(self) -> Sequence[str]:
        """A message for each item that is known to be unreadable."""

    def __len__(self) -> int: ...

    def digest(self) -> str:
        """Changes if items are added, removed or reordered, or are seen to be others."""

    def part(self, start: int, stop: int) -> Part:
        """A run of the items."""


class ImageItems:
    """Image files and all images in folders."""

    kind = "images"

    def __init__(self, images: Sequence[Path], strict: bool) -> None:
        self.found, self.strict = image_paths.find_images(images), strict
        self.left_out = self.found.left_out
        if strict and self.left_out:
            raise EnvironmentFailure(self.left_out[0])

    def __len__(self) -> int:
        return len(self.found.images)

    def digest(self) -> str:
        """Of the paths and sizes of the files."""
        total = hashlib.sha256()
        for path in self.found.images:
            file = self.found.root / path
            with disk_errors("read", file):
                size = file.stat().st_size
            total.update(f"{path.as_posix()}\0{size}\n".encode("utf-8", "surrogateescape"))
        return total.hexdigest()

    def part(self, start: int, stop: int) -> Part:
        """The images from ``start`` to ``stop``."""
        return ImagePart(self.found.root, self.found.images[start:stop], self.strict)


class VectorItems:
    """The rows of a file of vectors."""

    kind = "vectors"

    def __init__(self, encoder: VectorEncoder, file: Path) -> None:
        self.file, self.vectors = file, encoder.open(file)
        self.left_out: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.vectors)

    def digest(self) -> str:
        """Of the shape of the file and of some of its rows."""
        return sample_digest(self.vectors.matrix)

    def part(self, start: int, stop: int) -> Part:
        """The rows from ``start`` to ``stop``."""
        return VectorPart(self.file, start, stop)


def stored_codes(encoder: Encoder | VectorEncoder) -> Sequence[str] | None:
    """The codes that the method compares items by, None for all; those of queries alone are not stored."""
    return encoder.trained.method.index().reads()


def items_of(encoder: Encoder | VectorEncoder, sources: Sequence[Path], strict: bool = False) -> Items:
    """The collection that an encoder takes from files and folders. Raises UsageError for several files of vectors."""
    if isinstance(encoder, Encoder):
        return ImageItems(sources, strict)
    if len(sources) > 1:
        raise UsageError(f"{encoder.cell} encodes one file of vectors at a time, not {len(sources)}; name one")
    return VectorItems(encoder, sources[0])


#: Encodes parts, and yields the number of each with its result, in any order.
Spread = Callable[[Sequence[Part]], Iterable[tuple[int, Result]]]


def encode(
    encoder: Encoder | VectorEncoder,
    items: Items,
    folder: Path,
    rows: int,
    progress: ProgressCallback | None = None,
    spread: Spread | None = None,
) -> Encoded:
    """Write the codes of a collection to a folder, or continue.

    Args:
        encoder: The trained method.
        items: The collection, by :func:`items_of`.
        folder: A new folder, or one that the same call has written to before.
        rows: Items of a file.
        progress: Called with the number of items that are done and their total.
        spread: Encodes parts elsewhere; by default, this process encodes them one after another.

    Returns:
        What the folder holds.

    Raises:
        UsageError: If the folder holds other files, or codes of another method or collection.
        EnvironmentFailure: If another process writes to the folder, no item can be encoded, or the disk fails.
    """
    pyarrow = import_pyarrow()
    head = _head(encoder, items, rows)
    _check(folder, head)
    with disk_errors("create", folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(folder / _LOCK, timeout=0):
            here: Spread = lambda parts: ((n, part.encode(encoder)) for n, part in enumerate(parts))  # noqa: E731
            return _encode(pyarrow, items, folder, head, progress, spread or here)
    except filelock.Timeout:
        raise EnvironmentFailure(f"another process writes to {folder}; wait for its end") from None


def _encode(
    pyarrow: Any,
    items: Items,
    folder: Path,
    head: dict[str, Any],
    progress: ProgressCallback | None,
    spread: Spread,
) -> Encoded:
    former, rows = _read(folder), head["rows"]
    head |= {name: former.get(name) for name in ("codes", "root")}
    done = {part["start"]: part for part in former.get("files", ()) if _is_whole(folder, part)}
    for left in folder.glob(".*.tmp"):  # of a process that was killed while it wrote
        left.unlink()
    _write_manifest(folder, head, done, len(items))  # before any file, so that the folder is known as one of codes
    kept, starts = len(done), [start for start in range(0, len(items), rows) if start not in done]
    for number, (stored, left_out) in spread([items.part(start, min(start + rows, len(items))) for start in starts]):
        start = starts[number]
        count = min(rows, len(items) - start)
        part = {"start": start, "items": count, "rows": 0, "name": None, "sha256": None, "left_out": list(left_out)}
        if stored is not None:
            part |= _write_part(pyarrow, folder, start // rows, stored)
            head |= {"codes": stored.metadata["codes"], "root": stored.metadata["root"]}
        done[start] = part
        _write_manifest(folder, head, done, len(items))
        if progress:
            progress(sum(one["items"] for one in done.values()), len(items))
    parts = [done[start] for start in sorted(done)]
    reasons = [*items.left_out, *(reason for part in parts for reason in part["left_out"])]
    found = Encoded(sum(part["rows"] for part in parts), reasons, len(parts), kept)
    if not found.rows:
        raise EnvironmentFailure(f"none of {len(items)} {items.kind} can be encoded: {found.left_out[0]}")
    return found


def sent(encoder: Encoder | VectorEncoder) -> tuple[str, str, tuple[str, ...]]:
    """The arguments of :func:`worker` for an encoder."""
    return str(hub.origin(encoder.cell) or encoder.cell), str(encoder.trained.run.device), encoder.plugins


@lru_cache(1)
def worker(cell: str, device: str, plugins: tuple[str, ...]) -> Callable[[Part], Result]:
    """What encodes parts in another process, which loads the method once."""
    encoder = load_any_encoder(cell, device=device, plugins=plugins)
    return lambda part: part.encode(encoder)


def read(folder: Path) -> StoredCodes:
    """All codes of a folder. Raises UsageError if it is not complete, and EnvironmentFailure if a file is damaged."""
    content = _read(folder)
    if content.get("format") != FORMAT:
        raise UsageError(f"{folder} holds no codes of hashzoo encode --shard-rows; name another folder")
    if not content["complete"]:
        done = sum(part["items"] for part in content["files"])
        raise UsageError(f"{folder} has the codes of {done:,} items and is not complete; run its hashzoo encode again")
    pyarrow = import_pyarrow()
    tables = [_read_part(pyarrow, folder, part) for part in content["files"] if part["name"]]
    table, codes = pyarrow.concat_tables(tables), content["codes"]
    arrays = {array_name(name, spec): _array(table.column(name).combine_chunks(), spec) for name, spec in codes.items()}
    metadata = {**content["encoder"], "codes": codes, "pictures": table.num_rows, "root": content["root"]}
    named: Any = table.column("path").to_pylist() if "path" in table.column_names else RowNames(table.num_rows)
    return StoredCodes(metadata, named, arrays)


def is_folder(path: Path) -> bool:
    """Whether a path is a folder of codes."""
    return path.is_dir() and bool(_read(path).get("format") == FORMAT)


def _head(encoder: Encoder | VectorEncoder, items: Items, rows: int) -> dict[str, Any]:
    """What is equal in all calls that continue a folder, and how it is described."""
    described = encoder.describe()
    if isinstance(encoder, VectorEncoder):
        described["vectors"] = {"metric": encoder.metric, "dim": encoder.dim, "copy": "none", **encoder.choice}
    return {
        "format": FORMAT,
        "schema": SCHEMA,
        "encoder": described,
        "source": {"kind": items.kind, "items": len(items), "digest": items.digest()},
        "rows": rows,
        "codes": None,
        "root": None,
    }


def _check(folder: Path, head: dict[str, Any]) -> None:
    """Raise UsageError unless codes can be written to a folder: a new one, or one that the same call began."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; name a folder for the files of --shard-rows")
    content = _read(folder)
    if not content:
        if folder.is_dir() and any(entry.name != _LOCK and entry.suffix != ".tmp" for entry in folder.iterdir()):
            raise UsageError(f"{folder} holds other files; name a new folder")
        return
    if content.get("format") != FORMAT:
        raise UsageError(f"{folder} holds other files; name a new folder")
    refuse_newer(folder / MANIFEST, content.get("schema"), SCHEMA, "encode into a new folder")
    for what, one, other in (
        ("another method", content["encoder"]["run"]["state"], head["encoder"]["run"]["state"]),
        ("other or changed items", content["source"], head["source"]),
        (f"files of {content['rows']} items", content["rows"], head["rows"]),
    ):
        if one != other:
            raise UsageError(f"{folder} holds codes of {what}; name a new folder")


def _write_part(pyarrow: Any, folder: Path, number: int, stored: StoredCodes) -> dict[str, Any]:
    table = build_table(pyarrow, stored, bytes_as_lists=False).drop_columns(["row"])
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer)
    name, data = f"part-{number:05}.parquet", buffer.getvalue()
    replace_bytes(folder / name, data)
    return {"name": name, "rows": len(stored), "sha256": sha256(data)}


def _is_whole(folder: Path, part: dict[str, Any]) -> bool:
    """Whether the file of a part has the content that was written; a part without rows has none."""
    if part["name"] is None:
        return True
    try:
        return bool(_digest(folder / part["name"]) == part["sha256"])
    except OSError:
        return False


def _read_part(pyarrow: Any, folder: Path, part: dict[str, Any]) -> Any:
    file = folder / part["name"]
    with disk_errors("read", file):
        data = file.read_bytes()
    if sha256(data) != part["sha256"]:
        raise EnvironmentFailure(f"{file} is damaged; run its hashzoo encode again, which encodes this file anew")
    return pyarrow.parquet.read_table(io.BytesIO(data))


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _array(column: Any, spec: dict[str, Any]) -> np.ndarray[Any, Any]:
    """The array of a code of N items: packed bits, or values."""
    if "bits" in spec:
        return np.frombuffer(column.buffers()[1], np.uint8, len(column) * spec["bytes"]).reshape(-1, spec["bytes"])
    values = column.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(values, dtype=spec["type"]).reshape(len(column), *spec["shape"])


def _read(folder: Path) -> dict[str, Any]:
    """The manifest of a folder; empty if it has none. Raises EnvironmentFailure if it is damaged."""
    file = folder / MANIFEST
    try:
        content = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except ValueError as error:
        raise EnvironmentFailure(f"{file} is damaged ({error}); delete {folder} and encode again") from error
    return content if isinstance(content, dict) else {}


def _write_manifest(folder: Path, head: dict[str, Any], done: dict[int, dict[str, Any]], items: int) -> None:
    files = [done[start] for start in sorted(done)]
    content = {**head, "complete": sum(part["items"] for part in files) == items, "files": files}
    replace_bytes(folder / MANIFEST, (json.dumps(content, indent=1) + "\n").encode())
