"""The parts of a protocol as such: their digest, what is asked of them, and a small file that keeps them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.storage import npz
from hashzoo.storage.files import replace_bytes
from hashzoo.storage.schema import refuse_newer
from hashzoo.types import Splits

Ints = NDArray[np.int64]
SCHEMA = 1  # of the file's layout; files from before it was written lack it
NAMES = ("train", "database", "query", "validation")
_CELLS = 1 << 22  # pairs of label sets compared in one go


def asked(data: Splits) -> Tensor:
    """(Q, C) the labels that queries ask for: those of pairs where queries are composed of two images."""
    return data.query.labels if data.pairs is None else data.pairs.labels


def split_digest(data: Splits) -> str:
    """12 hex digits that stand for which images, by id and label, are in which part and in which order.

    They know nothing of the pixels, and are the same on every platform: names, shapes, ids as little-endian int64
    and labels as little-endian float32 go into SHA-256; so do the names that the ids stand for, where data give them,
    and the pairs that queries are composed of.
    """
    composed: list[Any] = []
    if data.pairs is not None:
        rows = torch.cat([data.pairs.first, data.pairs.second])
        composed = [(f"pairs {data.pairs.operation}", rows.numpy(), data.pairs.labels.numpy(), None)]
    plain = [
        (name, part.ids.numpy(), part.labels.numpy(), _written(data, name, part.ids))
        for name, part in data.parts().items()
    ]
    return _digest([*plain, *composed])


def _digest(named: Iterable[tuple[str, NDArray[Any], NDArray[Any], bytes | None]]) -> str:
    total = hashlib.sha256()
    for name, ids, labels, written in named:
        total.update(f"{name} {ids.shape} {labels.shape}\n".encode())
        total.update(np.ascontiguousarray(ids, dtype="<i8").data)  # no copy where they are as they should be
        total.update(np.ascontiguousarray(labels, dtype="<f4").data)
        if written is not None:
            total.update(f"names {len(written)}\n".encode() + written)
    return total.hexdigest()[:12]


def _written(data: Splits, part: str, ids: Tensor) -> bytes | None:
    """What the ids of a part stand for, in UTF-8, a zero byte after each; None where data give no names.

    UsageError for an id without a name, and for a name that holds a zero byte.
    """
    if data.names is None:
        return None
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < len(data.names):
        raise UsageError(f"{part} has ids without a name: {len(data.names)} names are for ids from 0; name each id")
    chosen = [data.names[number] for number in ids.tolist()]
    if odd := next((name for name in chosen if "\0" in name), None):
        raise UsageError(f"the name {odd!r} in {part} holds a zero byte; leave it out")
    return "".join(f"{name}\0" for name in chosen).encode("utf-8", "surrogateescape")


def relevant_counts(query: Tensor, database: Tensor) -> Ints:
    """(Q,) how many rows of ``database`` (N, C) share a label with each row of ``query`` (Q, C).

    Equal label sets are compared once, so that the time hardly depends on the number of images.

    >>> relevant_counts(torch.tensor([[1, 0], [1, 1], [0, 0]]), torch.tensor([[1, 0], [1, 0], [0, 1]])).tolist()
    [2, 3, 0]
    """
    (wanted, of, _), (stored, _, times) = _label_sets(query), _label_sets(database)
    weight = torch.from_numpy(times).double()
    found = torch.zeros(len(wanted), dtype=torch.float64)
    step = max(1, _CELLS // len(stored))
    for start in range(0, len(wanted), step):
        shared = wanted[start : start + step] @ stored.T > 0
        found[start : start + step] = shared.double() @ weight
    return np.asarray(found.long().numpy()[of])


def _label_sets(labels: Tensor) -> tuple[Tensor, Ints, Ints]:
    """The distinct label sets (S, C) float32, the set of each row (N,), and how often each occurs (S,)."""
    packed = np.packbits((labels > 0).numpy(), axis=1)
    sets, of, times = np.unique(packed, axis=0, return_inverse=True, return_counts=True)
    unpacked = np.unpackbits(sets, axis=1, count=labels.shape[1])
    return torch.from_numpy(unpacked).float(), of.reshape(-1), times


@dataclass(frozen=True)
class Kept:
    """What a file of splits holds: ``ids`` (N,) and ``labels`` (N, C) uint8 by part, and the split digest.

    ``names`` (N) by part are what the ids stand for, as paths; it is empty where the data had none.
    """

    digest: str
    ids: Mapping[str, Ints]
    labels: Mapping[str, NDArray[np.uint8]]
    names: Mapping[str, list[str]] = field(default_factory=dict)


def save(data: Splits, path: Path) -> None:
    """Write ids, labels and names of every part and the split digest to an .npz, in one step or not at all.

    Labels take one bit each, ids 32 bits where they fit. UsageError for labels other than 0 and 1 and for composed
    queries, EnvironmentFailure where the file cannot be written.
    """
    if data.pairs is not None:
        raise UsageError("queries composed of two images are not kept; keep the protocol that they are composed of")
    arrays: dict[str, Any] = {"schema": np.array(SCHEMA), "digest": np.array(split_digest(data))}
    for name, part in data.parts().items():
        ids, labels = part.ids.numpy(), part.labels.numpy()
        if not np.isin(labels, (0, 1)).all():
            raise UsageError(f"the labels of {name} are not all 0 or 1; only such are kept")
        short = len(ids) == 0 or (ids.min() >= -(2**31) and ids.max() < 2**31)
        arrays[f"{name}_ids"] = ids.astype("<i4" if short else "<i8")
        arrays[f"{name}_labels"] = np.packbits(labels.astype(bool), axis=1)
        arrays[f"{name}_classes"] = np.array(labels.shape[1])
        if (written := _written(data, name, part.ids)) is not None:
            arrays[f"{name}_names"] = np.frombuffer(written, np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    replace_bytes(path, buffer.getvalue())


def read(path: Path) -> Kept:
    """What :func:`save` wrote. UsageError where there is no such file, EnvironmentFailure where it is damaged."""
    try:
        stored = npz.read(path)
        refuse_newer(path, int(stored["schema"]) if "schema" in stored else SCHEMA, SCHEMA, "take another file")
        names = [name for name in NAMES if f"{name}_ids" in stored]
        ids = {name: stored[f"{name}_ids"].astype(np.int64) for name in names}
        labels = {
            name: np.unpackbits(stored[f"{name}_labels"], axis=1, count=int(stored[f"{name}_classes"]))
            for name in names
        }
        written = {name: stored[f"{name}_names"].tobytes() for name in names if f"{name}_names" in stored}
        digest = str(stored["digest"])
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {path}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise EnvironmentFailure(f"{path} is no file of splits: {error}") from error
    if _digest((name, ids[name], labels[name], written.get(name)) for name in names) != digest:
        raise EnvironmentFailure(f"{path} is not what was written: its digest is not {digest!r}; write it anew")
    told = {name: text.decode("utf-8", "surrogateescape").split("\0")[:-1] for name, text in written.items()}
    return Kept(digest, ids, labels, told)
