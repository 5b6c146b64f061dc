"""A third-party plugin that reads list files of a folder (a path, then zeros and ones), by file name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from hashzoo import Backbone, Split, Splits, hookimpl
from hashzoo.data.image_files import ImageFiles


class Listed(ImageFiles):
    def __init__(self, root, paths):
        self.root, self.paths = root, paths

    def __len__(self):
        return len(self.paths)

    def read(self, row):
        return (self.root / self.paths[row]).read_bytes()

    def name(self, row):
        return self.paths[row]

    def stamp(self, row):
        return self.paths[row]


def listed(*, root: Path, notes: str = "", ending: str = ".txt") -> Splits:
    """Lists of a folder."""
    known: dict[str, int] = {}
    parts = {}
    for part, file in (("train", "train"), ("database", "database"), ("query", "test")):
        if not (root / (file + ending)).is_file():
            raise ValueError(f"there is no {file}{ending} in {root}")
        rows = [line.split() for line in (root / (file + ending)).read_text().splitlines()]
        labels = np.array([row[1:] for row in rows], dtype=np.float32)
        ids = [known.setdefault(Path(row[0]).name, len(known)) for row in rows]
        parts[part] = Split(Listed(root, [row[0] for row in rows]), torch.from_numpy(labels), torch.tensor(ids))
    names = tuple(str(c) for c in range(parts["train"].labels.shape[1]))
    declared = {"train": notes} if notes else {}
    return Splits(
        **parts, multilabel=True, class_names=names, pretraining=("Everything",), notes=declared, source="lists"
    )


class Seen(Backbone):
    """Trained on everything."""

    dim, trained_on = 4, "Everything"

    def __init__(self, shape, *, unused: int = 0):
        super().__init__()

    def forward(self, images):
        raise NotImplementedError


def other(*, root: Path) -> Splits:
    """Lists that end in .mine, which nothing else reads."""
    return listed(root=root, ending=".mine")


@hookimpl
def hashzoo_datasets():
    return {"stranger.listed": listed, "stranger.other": other}


@hookimpl
def hashzoo_backbones():
    return {"stranger-seen": Seen}
