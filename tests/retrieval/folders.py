"""Index folders of made codes, for tests of everything but encoding."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from hashzoo.hamming.packing import BIT_ORDER, ONES
from hashzoo.retrieval.index_folder import IndexFolder
from hashzoo.retrieval.index_snapshot import from_sql
from hashzoo.retrieval.index_writer import Item

BITS = 16
METADATA = {
    "method": "made", "hyperparameters": {}, "bits": BITS, "seed": 0, "dataset": "none", "backbone": "none",
    "preprocessing": {}, "run": {"cell": "/none/cell.json", "key": "key", "state": "state"}, "made_with": {},
    "codes": {"code": {"bits": BITS, "bytes": BITS // 8, "order": BIT_ORDER}}, "root": "/photos", "ranks_by": "code",
}  # fmt: skip


def code_of(content: int) -> np.ndarray:
    """A code with few bits set, so that distances tie often."""
    return np.frombuffer(hashlib.sha256(str(content % 7).encode()).digest()[:2], np.uint8) & 0x17


def entries(contents: dict[str, int]) -> tuple[list[Item], dict[str, np.ndarray]]:
    """The items and codes of contents by id."""
    items = [Item(name, None, content.to_bytes(16, "big"), content, content) for name, content in contents.items()]
    return items, {"bits.code": np.array([code_of(content) for content in contents.values()]).reshape(-1, 2)}


def folder_of(path: Path, contents: dict[str, int] | None = None) -> IndexFolder:
    """A new index folder of contents by id."""
    folder = IndexFolder.create(path, METADATA)
    if contents:
        with folder.writing() as writer:
            writer.put(*entries(contents))
    return folder


def expected(contents: dict[str, int], query: np.ndarray, k: int | None, radius: int | None) -> list[tuple[str, int]]:
    """The ids and distances that a search of contents finds, by comparing all of them."""
    found = [(name, int(ONES[query ^ code_of(content)].sum())) for name, content in contents.items()]
    return sorted([one for one in found if radius is None or one[1] <= radius], key=lambda one: one[1])[:k]


def held(folder: IndexFolder) -> dict[str, int]:
    """The contents by id, in their order; each is checked against its code."""
    with folder.snapshot() as state:
        rows = state.select("SELECT id, _bytes FROM items ORDER BY _place")
        listed = [(from_sql(name), content) for name, content in rows]
        names = list(state.ids)
        codes = state.stored().array("code")
    assert names == [name for name, _ in listed]
    assert np.array_equal(codes, entries(dict(listed))[1]["bits.code"])
    return dict(listed)
