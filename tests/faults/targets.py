"""What hashzoo writes, each kind in an old and a new form, and how it is read back."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from hashzoo.data import split_file
from hashzoo.errors import HashzooError
from hashzoo.registry import saved_method
from hashzoo.results import board as boards
from hashzoo.results import csv_file, leaderboard, store
from hashzoo.results.cell import Cell, Identity
from hashzoo.training import feature_store
from hashzoo.types import Features, Split, Splits
from tests.faults.breaking import Disk


@dataclass(frozen=True)
class Target:
    """``write`` puts version 0 or 1 into a folder; ``read`` gives what each of its files holds, None for nothing."""

    write: Callable[[Path, int], object]
    read: Callable[[Path], list[Any]]


def cell(version: int = 0, seed: int = 0, bits: int = 32) -> Cell:
    identity = Identity(
        dataset="digits.small", dataset_options={}, backbone="tiny", backbone_options={}, method="=1+lsh",
        hyperparameters={"weight": 0.25}, bits=bits, seed=seed, budget={"epochs": 2}, protocol=1, code="c", data="d",
    )  # fmt: skip
    return Cell(
        identity=identity, benchmark="digits", status="ok", settings="weight=0.25 é",
        metrics={"map@all": 0.3125 + version / 7, "p@10": 0.1 + seed},
        facts={"stored_bits": bits, "bytes_per_item": bits / 8}, timings={"fit_seconds": 0.25},
        created=f"2026-01-0{version + 1}T00:00:00.000000+00:00",
    )  # fmt: skip


def arrays(version: int) -> dict[str, Any]:
    return {"map@all": np.linspace(0, 1, 9 + version), "relevant": np.arange(9)}


def write_cell(folder: Path, version: int) -> None:
    store.write(folder, cell(version), arrays(version))


def read_cell(folder: Path) -> list[Any]:
    found, messages = store.read_all(folder)
    assert messages == []
    told = store.arrays(store.path(folder, cell().identity, "digits"))
    return [([one.metrics for one in found], {name: value.tolist() for name, value in told.items()})]


def board(version: int) -> list[Cell]:
    return [cell(version, seed, bits) for bits in (16, 32, 64) for seed in range(3)]


def write_board(folder: Path, version: int) -> None:
    boards.write_board(folder, board(version))


def read_board(folder: Path) -> list[Any]:
    return [leaderboard.records(csv_file.read_csv(folder / "leaderboard.csv")), (folder / "cells.csv").read_bytes()]


def parts(version: int) -> Splits:
    def part(start: int) -> Split:
        return Split(torch.zeros(4, 1, 2, 2), torch.eye(2)[torch.arange(4) % 2], torch.arange(start, start + 4))

    return Splits(part(version), part(10), part(20), False, ("a", "b"), names=tuple(f"{n}.jpg" for n in range(24)))


def write_split(folder: Path, version: int) -> None:
    split_file.save(parts(version), folder / "split.npz")


def read_split(folder: Path) -> list[Any]:
    kept = split_file.read(folder / "split.npz")
    return [(kept.digest, kept.ids["train"].tolist(), kept.labels["query"].tolist(), kept.names["train"])]


def write_weights(folder: Path, version: int) -> None:
    layer = torch.nn.Linear(3, 2)
    torch.nn.init.constant_(layer.weight, version + 0.5)
    torch.nn.init.zeros_(layer.bias)
    data, method = parts(0), cast(Any, layer)
    recipe = saved_method.Recipe(f"key{version}", data.setting(8), data.class_names, (1, 2, 2), {"width": 8}, ())
    saved_method.write(folder / "x.safetensors", method, recipe)


def read_weights(folder: Path) -> list[Any]:
    about, tensors = saved_method.contents(folder / "x.safetensors")
    return [(json.dumps(about, sort_keys=True), {name: value.tolist() for name, value in sorted(tensors.items())})]


def eye(rows: np.ndarray[Any, Any]) -> Features:
    x = torch.from_numpy(rows).float()
    return Features(x[:, None] * torch.arange(1.0, 6.0), (x[:, None, None, None].expand(-1, 2, 3, 3),))


def write_features(folder: Path, version: int) -> None:
    if not version:
        return  # features are never replaced: there are none, or they are these
    os.environ["HASHZOO_CACHE"] = str(folder)
    groups = [np.arange(start, start + 4) for start in range(0, 12, 4)]
    feature_store.load_or_extract(lambda: [eye], feature_store.FeatureRequest(groups, 12, maps=True), "x")


def read_features(folder: Path) -> list[Any]:
    found = [one for one in (folder / "features").glob("*") if one.is_dir() and one.suffix != ".tmp"]
    whole = [feature_store.read(one, 12) for one in found]
    return [[array[:].tolist() for array in one] if one else None for one in whole] or [None]


TARGETS = {
    "cell": Target(write_cell, read_cell),
    "CSV": Target(write_board, read_board),
    "split": Target(write_split, read_split),
    "trained weights": Target(write_weights, read_weights),
    "features": Target(write_features, read_features),
}


def broken(name: str, folder: Path, at: int, fault: str, pipe: Any) -> None:
    """Write version 1 on a disk that breaks; what became of it goes into the pipe."""
    disk = Disk(folder, at, fault).broken_in()
    try:
        TARGETS[name].write(folder, 1)
    except HashzooError as error:
        pipe.send((error.exit_code, str(error), disk.steps))
    except BaseException as error:
        pipe.send((-1, f"{type(error).__name__}: {error}", disk.steps))
    else:
        pipe.send((0, "", disk.steps))
