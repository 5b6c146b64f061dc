"""Codes of a large collection as a folder of Parquet files, written one after another and continued after an end.

Each file has the codes of a run of items, in the order of the collection (:mod:`hashzoo.export.code_folder`). The call
that began a folder encodes the rest of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import filelock

from hashzoo.errors import EnvironmentFailure
from hashzoo.export import code_folder
from hashzoo.export.items import Items, Part, Result
from hashzoo.export.parquet import import_pyarrow
from hashzoo.registry import hub
from hashzoo.retrieval.encoder import VECTOR, Encoder
from hashzoo.retrieval.vector_encoder import VectorEncoder, load_any_encoder
from hashzoo.storage.files import disk_errors
from hashzoo.types import ProgressCallback


@dataclass(frozen=True)
class Encoded:
    """What a folder of codes holds: rows, a message for each item that was left out, and files kept from before."""

    rows: int
    left_out: Sequence[str]
    files: int
    kept: int


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
        items: The collection, by :func:`hashzoo.export.items.items_of`.
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
    code_folder.check(folder, head)  # before anything is written to it
    lock = filelock.FileLock(folder / code_folder.LOCK)
    with disk_errors("write to", folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise EnvironmentFailure(f"another process writes to {folder}; wait for its end") from None
    try:
        names = stored_codes(encoder)
        here: Spread = lambda parts: ((n, part.encode(encoder, names)) for n, part in enumerate(parts))  # noqa: E731
        return _encode(pyarrow, items, folder, head, progress, spread or here)
    finally:
        lock.release()


def _encode(
    pyarrow: Any,
    items: Items,
    folder: Path,
    head: dict[str, Any],
    progress: ProgressCallback | None,
    spread: Spread,
) -> Encoded:
    former, rows = code_folder.check(folder, head), head["rows"]  # again: a process can have ended in between
    files = former.get("files", ())
    if files:
        head |= {name: former[name] for name in ("codes", "root")}
    wanted = [part for part in files if not (items.strict and part["left_out"])]
    done = {part["start"]: part for part in wanted if code_folder.is_whole(folder, part)}
    code_folder.clean(folder, done)
    code_folder.write_manifest(folder, head, done, len(items))  # first, so that the folder is known as one of codes
    kept, starts = len(done), [start for start in range(0, len(items), rows) if start not in done]
    for number, (stored, left_out) in spread([items.part(start, min(start + rows, len(items))) for start in starts]):
        start = starts[number]
        count = min(rows, len(items) - start)
        part = {"start": start, "items": count, "rows": 0, "name": None, "sha256": None, "left_out": list(left_out)}
        if stored is not None:
            part |= code_folder.write_file(pyarrow, folder, start // rows, stored)
            head |= {"codes": stored.metadata["codes"], "root": stored.metadata["root"]}
        done[start] = part
        code_folder.write_manifest(folder, head, done, len(items))
        if progress:
            progress(sum(one["items"] for one in done.values()), len(items))
    parts = [done[start] for start in sorted(done)]
    reasons = [*items.left_out, *(reason for part in parts for reason in part["left_out"])]
    found = Encoded(sum(part["rows"] for part in parts), reasons, len(parts), kept)
    if not found.rows:
        raise EnvironmentFailure(f"none of {len(items)} {items.kind} can be encoded: {found.left_out[0]}")
    return found


def sent(encoder: Encoder | VectorEncoder) -> tuple[str, str, tuple[str, ...], bool]:
    """The arguments of :func:`worker` for an encoder."""
    cell = str(hub.origin(encoder.cell) or encoder.cell)
    return cell, str(encoder.trained.run.device), encoder.plugins, encoder.with_vectors


@lru_cache(1)
def worker(cell: str, device: str, plugins: tuple[str, ...], with_vectors: bool) -> Callable[[Part], Result]:
    """What encodes parts in another process, which loads the method once."""
    encoder = load_any_encoder(cell, device=device, plugins=plugins)
    encoder.with_vectors = with_vectors
    return lambda part: part.encode(encoder, stored_codes(encoder))


def stored_codes(encoder: Encoder | VectorEncoder) -> Sequence[str] | None:
    """The codes that the method compares items by, None for all; those of queries alone are not stored."""
    names = encoder.trained.method.index().reads()
    return [*names, VECTOR] if names is not None and encoder.with_vectors else names


def _head(encoder: Encoder | VectorEncoder, items: Items, rows: int) -> dict[str, Any]:
    """What is equal in all calls that continue a folder, and how it is described."""
    described = encoder.describe()
    if isinstance(encoder, VectorEncoder):
        described["vectors"] = {"metric": encoder.metric, "dim": encoder.dim, "copy": "none", **encoder.choice}
    return {
        "format": code_folder.FORMAT,
        "schema": code_folder.SCHEMA,
        "encoder": described,
        "source": {"kind": items.kind, "items": len(items), "digest": items.digest()},
        "vectors": encoder.with_vectors,
        "rows": rows,
        "codes": None,
        "root": None,
    }
