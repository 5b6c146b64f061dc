"""Codes of images to be exported, and their exact neighbors."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch

from hashzoo.hamming.distances import nearest
from hashzoo.hamming.packing import unpack
from hashzoo.retrieval.code_file import CodeCollector, StoredCodes

COUNT, BITS, NEAREST = 500, 20, 30
QUERIES = (0, 17, 499)
ABOUT = {"method": "any", "bits": BITS, "preprocessing": {}, "run": {"cell": "c.json", "key": "k", "state": "s"}}


def made_codes() -> StoredCodes:
    """Codes that crowd, with a second code and a real vector, of files with odd names."""
    rng = np.random.default_rng(0)
    centers = rng.integers(0, 2, (5, BITS)).astype(bool)
    codes = centers[rng.integers(0, 5, COUNT)] ^ (rng.random((COUNT, BITS)) < 0.1)
    made = CodeCollector()
    vectors = torch.from_numpy(rng.standard_normal((COUNT, 3), dtype=np.float32))
    fine = torch.from_numpy(rng.integers(0, 2, (COUNT, 8)).astype(bool))
    made.add({"code": torch.from_numpy(codes), "fine": fine, "vector": vectors})
    names = [f"{row} a\tb\\c\n'é.jpg" for row in range(COUNT - 1)]
    return made.finish(ABOUT, Path("/photos"), [Path(name) for name in [*names, os.fsdecode(b"caf\xe9.jpg")]])


def agrees(kept: StoredCodes, query: int, found: list[tuple[int, float]]) -> None:
    """What was found, (row, distance), are the nearest of a row's code, whatever the order of equal ones."""
    packed = kept.arrays["bits.code"]
    rows, distances = nearest(packed[query : query + 1], packed, NEAREST)
    assert [far for _, far in found] == distances[0].tolist()
    last = distances[0, -1]
    inner = {row for row, far in found if far < last}
    assert inner == set(rows[0][distances[0] < last].tolist())
    own = (unpack(packed, BITS) != unpack(packed[query : query + 1], BITS)).sum(1)
    assert all(own[row] == far for row, far in found)
