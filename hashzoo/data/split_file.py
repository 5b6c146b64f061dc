"""The splits of a protocol without their images: digest, relevant items, and a small file that stores them."""

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
from hashzoo.types import Split, Splits

Ints = NDArray[np.int64]
SCHEMA = 1  # of the file; files written before it existed have none
NAMES = ("train", "database", "query", "validation")
_BLOCK = 1 << 22  # pairs of label sets compared at a time


def query_labels(data: Splits) -> Tensor:
    """Labels (Q, C) of the queries; of the pairs, if queries are composed of two images."""
    return data.query.labels if data.pairs is None else data.pairs.labels


def split_digest(data: Splits) -> str:
    """12 hex digits that identify which images, by id and label, are in which part and in which order.

    The digest does not depend on pixels, and is the same on every platform. SHA-256 covers part names, shapes, ids as
    little-endian int64 and labels as little-endian float32, and if present the names that ids stand for and the pairs
    that queries are composed of.
    """
    composed: list[Any] = []
    if data.pairs is not None:
        rows = torch.cat([data.pairs.first, data.pairs.second])
        composed = [(f"pairs {data.pairs.operation}", rows.numpy(), data.pairs.labels.numpy(), None)]
    plain = [
        (name, part.ids.numpy(), part.labels.numpy(), _encode_names(data, name, part.ids))
        for name, part in data.parts().items()
    ]
    return _digest([*plain, *composed])


def _digest(named: Iterable[tuple[str, NDArray[Any], NDArray[Any], bytes | None]]) -> str:
    total = hashlib.sha256()
    for name, ids, labels, encoded in named:
        total.update(f"{name} {ids.shape} {labels.shape}\n".encode())
        total.update(np.ascontiguousarray(ids, dtype="<i8").data)  # without a copy if the dtype is right
        total.update(np.ascontiguousarray(labels, dtype="<f4").data)
        if encoded is not None:
            total.update(f"names {len(encoded)}\n".encode() + encoded)
    return total.hexdigest()[:12]


def _encode_names(data: Splits, part: str, ids: Tensor) -> bytes | None:
    """The names of the ids of a part in UTF-8, each followed by a zero byte; None if the dataset has no names.

    Raises UsageError for an id without a name and for a name with a zero byte.
    """
    if data.names is None:
        return None
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < len(data.names):
        raise UsageError(
            f"the ids of {part} go beyond the {len(data.names)} names of the dataset; give a name for each id, from 0"
        )
    names = [data.names[number] for number in ids.tolist()]
    if invalid := next((name for name in names if "\0" in name), None):
        raise UsageError(f"the name {invalid!r} in {part} contains a zero byte; remove it")
    return "".join(f"{name}\0" for name in names).encode("utf-8", "surrogateescape")


def relevant_counts(query: Tensor, database: Tensor) -> Ints:
    """For each row of ``query`` (Q, C), the number of rows of ``database`` (N, C) that share a label with it: (Q,).

    Equal label sets are compared once, so the time depends little on the number of images.

    >>> relevant_counts(torch.tensor([[1, 0], [1, 1], [0, 0]]), torch.tensor([[1, 0], [1, 0], [0, 1]])).tolist()
    [2, 3, 0]
    """
    (query_sets, set_of_query, _), (database_sets, _, occurrences) = _label_sets(query), _label_sets(database)
    weights = torch.from_numpy(occurrences).double()
    counts = torch.zeros(len(query_sets), dtype=torch.float64)
    step = max(1, _BLOCK // len(database_sets))
    for start in range(0, len(query_sets), step):
        shared = query_sets[start : start + step] @ database_sets.T > 0
        counts[start : start + step] = shared.double() @ weights
    return np.asarray(counts.long().numpy()[set_of_query])


def _label_sets(labels: Tensor) -> tuple[Tensor, Ints, Ints]:
    """The distinct label sets (S, C) float32, the index of the set of each row (N,), and their occurrences (S,)."""
    packed = np.packbits((labels > 0).numpy(), axis=1)
    sets, set_of_row, occurrences = np.unique(packed, axis=0, return_inverse=True, return_counts=True)
    unpacked = np.unpackbits(sets, axis=1, count=labels.shape[1])
    return torch.from_numpy(unpacked).float(), set_of_row.reshape(-1), occurrences


@dataclass(frozen=True)
class SavedSplits:
    """The content of a split file.

    Attributes:
        digest: The split digest.
        ids: Ids (N,) by part.
        labels: Labels (N, C) uint8 by part.
        names: By part, the name of each id, such as a path; empty if the dataset has no names.
    """

    digest: str
    ids: Mapping[str, Ints]
    labels: Mapping[str, NDArray[np.uint8]]
    names: Mapping[str, list[str]] = field(default_factory=dict)


def save(data: Splits, path: Path) -> None:
    """Write the ids, labels and names of every part and the split digest to an .npz file, atomically.

    A label takes one bit and an id 32 bits if it fits. Raises UsageError for labels other than 0 and 1 and for composed
    queries, and DiskError if the file cannot be written.
    """
    if data.pairs is not None:
        raise UsageError(
            "queries composed of two images cannot be saved; save the protocol that they are composed from"
        )
    arrays: dict[str, Any] = {"schema": np.array(SCHEMA), "digest": np.array(split_digest(data))}
    for name, part in data.parts().items():
        ids, labels = part.ids.numpy(), part.labels.numpy()
        if not np.isin(labels, (0, 1)).all():
            raise UsageError(f"labels of {name} other than 0 and 1 cannot be saved; make them multi-hot")
        short = len(ids) == 0 or (ids.min() >= -(2**31) and ids.max() < 2**31)
        arrays[f"{name}_ids"] = ids.astype("<i4" if short else "<i8")
        arrays[f"{name}_labels"] = np.packbits(labels.astype(bool), axis=1)
        arrays[f"{name}_classes"] = np.array(labels.shape[1])
        if (encoded := _encode_names(data, name, part.ids)) is not None:
            arrays[f"{name}_names"] = np.frombuffer(encoded, np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    replace_bytes(path, buffer.getvalue())


def read(path: Path) -> SavedSplits:
    """Read what :func:`save` wrote. Raises UsageError for a missing file, EnvironmentFailure for a damaged one."""
    try:
        stored = npz.read(path)
        refuse_newer(path, int(stored["schema"]) if "schema" in stored else SCHEMA, SCHEMA, "use another file")
        names = [name for name in NAMES if f"{name}_ids" in stored]
        ids = {name: stored[f"{name}_ids"].astype(np.int64) for name in names}
        labels = {
            name: np.unpackbits(stored[f"{name}_labels"], axis=1, count=int(stored[f"{name}_classes"]))
            for name in names
        }
        encoded = {name: stored[f"{name}_names"].tobytes() for name in names if f"{name}_names" in stored}
        digest = str(stored["digest"])
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {path}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise EnvironmentFailure(
            f"{path} is not a split file ({error}); write it again with hashzoo data show --save"
        ) from error
    if _digest((name, ids[name], labels[name], encoded.get(name)) for name in names) != digest:
        raise EnvironmentFailure(
            f"{path} is damaged (its digest is not {digest!r}); write it again with hashzoo data show --save"
        )
    decoded = {name: text.decode("utf-8", "surrogateescape").split("\0")[:-1] for name, text in encoded.items()}
    return SavedSplits(digest, ids, labels, decoded)


def placeholder(saved: SavedSplits) -> Splits:
    """The splits of a file, with row numbers in place of images: what can be audited without the images.

    Raises EnvironmentFailure if a part is missing.
    """
    if missing := [name for name in NAMES[:3] if name not in saved.ids]:
        raise EnvironmentFailure(
            f"the split file has no part {missing[0]}; write it again with hashzoo data show --save"
        )
    parts = {
        name: Split(range(len(ids)), torch.from_numpy(saved.labels[name]).float(), torch.from_numpy(ids))
        for name, ids in saved.ids.items()
    }
    train, database, query = (parts[name] for name in NAMES[:3])
    return Splits(train, database, query, multilabel=False, class_names=(), validation=parts.get("validation"))
