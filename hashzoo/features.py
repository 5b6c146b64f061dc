"""Frozen backbones: features extracted once, kept in a cache folder, and handed out as if they were pictures."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import torch
from torch import Tensor

from hashzoo.errors import TroubleError
from hashzoo.method import Backbone
from hashzoo.types import Features, Split

#: Features up to this size are read into memory; larger ones stay on disk and are memory-mapped.
IN_MEMORY = 2**30


def cache_folder() -> Path:
    """Where features are kept: ``HASHZOO_CACHE``, or the platform's cache folder."""
    if given := os.environ.get("HASHZOO_CACHE"):
        return Path(given)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "hashzoo" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "hashzoo"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "hashzoo"


def digest_of_state(module: torch.nn.Module) -> str:
    """A digest of every parameter and buffer of a module."""
    total = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        total.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        total.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def digest_of_split(split: Split) -> str:
    """A digest of a split's pictures, labels and ids.

    Pictures read from disk are hashed as decoded, so two copies of a data set agree whatever their file names.
    """
    total = hashlib.sha256()
    for part in (split.ids, split.labels):
        total.update(str(tuple(part.shape)).encode())
        total.update(part.contiguous().numpy().tobytes())
    if isinstance(split.images, Tensor):
        total.update(str(tuple(split.images.shape)).encode())
        total.update(split.images.contiguous().numpy().tobytes())
        return total.hexdigest()
    from hashzoo.pictures import as_tensor

    for row in range(len(split)):
        picture = as_tensor(split.images[row])
        total.update(str(tuple(picture.shape)).encode())
        total.update(picture.contiguous().numpy().tobytes())
    return total.hexdigest()


class StoredFeatures(Sequence[Features]):
    """Features of N pictures, standing where a split keeps its pictures."""

    def __init__(self, arrays: Sequence[np.ndarray]) -> None:
        self.arrays = arrays  # pooled (N, D), then the maps

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, rows: Any) -> Any:
        """Features of some rows."""
        pooled, *maps = (torch.from_numpy(np.asarray(a[rows], dtype=np.float32)) for a in self.arrays)
        return Features(pooled, tuple(maps))

    def all(self) -> Features:
        """Features of every row."""
        return self[np.arange(len(self))]  # type: ignore[no-any-return]


class Precomputed(Backbone):
    """Stands where a frozen backbone stood: features in, the same features out."""

    def __init__(self, of: Backbone, maps: bool) -> None:
        super().__init__()
        self.dim, self.map_dims, self.input = of.dim, of.map_dims if maps else (), of.input
        self.weights, self.trained_on = of.weights, of.trained_on

    def forward(self, images: Any) -> Features:
        """The stored features themselves."""
        features: Features = images
        return features


class Standing(Backbone):
    """A frozen backbone that still takes pictures, for methods that learn from views of them."""

    def __init__(self, of: Backbone, maps: bool) -> None:
        super().__init__()
        # in a tuple it is no part of the method: neither trained nor saved, and it stays in eval mode
        self._of = (of.requires_grad_(False).eval(),)
        self.dim, self.map_dims, self.input = of.dim, of.map_dims if maps else (), of.input
        self.weights, self.trained_on, self.eyes = of.weights, of.trained_on, of.eyes

    def forward(self, images: Any) -> Features:
        """Features of pictures, without gradient."""
        with torch.no_grad():
            features: Features = self._of[0](images)
        return Features(features.pooled, features.maps if self.map_dims else ())


def extract(backbone: Backbone, batches: Callable[[], Iterator[Tensor]], count: int, maps: bool, folder: Path) -> None:
    """Write ``pooled.npy`` and ``map0.npy``... of ``count`` pictures into a new folder, all or nothing."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=folder.name + ".", suffix=".tmp", dir=folder.parent))
    try:
        files: list[np.memmap[Any, Any]] = []
        done = 0
        backbone.eval()
        with torch.no_grad():
            for images in batches():
                features = backbone(images)
                parts = [features.pooled, *(features.maps if maps else ())]
                values = [part.float().cpu().numpy() for part in parts]
                if not all(np.isfinite(value).all() for value in values):
                    raise TroubleError(
                        f"the features of rows {done} to {done + len(images) - 1} are not finite; "
                        "check the weights of the backbone"
                    )
                if not files:
                    names = ["pooled", *(f"map{i}" for i in range(len(values) - 1))]
                    files = [
                        np.lib.format.open_memmap(
                            work / f"{name}.npy", mode="w+", dtype=np.float32, shape=(count, *value.shape[1:])
                        )
                        for name, value in zip(names, values, strict=True)
                    ]
                for file, value in zip(files, values, strict=True):
                    file[done : done + len(value)] = value
                done += len(images)
        for file in files:
            file.flush()
        (work / "features.json").write_text(json.dumps({"rows": done, "arrays": len(files)}))
        os.replace(work, folder)
    except OSError as error:
        raise TroubleError(
            f"cannot keep features in {folder.parent}: {error.strerror}; set HASHZOO_CACHE to a folder with room"
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def stored(
    backbone: Backbone,
    split: Split,
    batches: Callable[[], Iterator[Tensor]],
    *,
    maps: bool,
    name: str,
    device: torch.device,
    precision: str,
) -> Split:
    """The split with its pictures replaced by the features of a frozen backbone, extracted if not in the cache.

    The cache key covers the pictures, ``name`` (all that tells a backbone from others), its weights, input and maps,
    whether maps are kept, and the precision. Processes that want the same features wait for the one that extracts them.
    """
    text = json.dumps(
        [
            digest_of_split(split), name, digest_of_state(backbone), repr(backbone.input), backbone.map_dims, maps,
            precision, device.type,
        ]
    )  # fmt: skip
    folder = cache_folder() / "features" / hashlib.sha256(text.encode()).hexdigest()[:32]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{folder}.lock"):
            arrays = read(folder, len(split))
            if arrays is None:
                shutil.rmtree(folder, ignore_errors=True)
                extract(backbone, batches, len(split), maps, folder)
                arrays = read(folder, len(split))
    except OSError as error:
        raise TroubleError(
            f"cannot use the feature cache {folder.parent}: {error.strerror}; set HASHZOO_CACHE to another folder"
        ) from error
    if arrays is None:
        raise TroubleError(f"the features just written to {folder} cannot be read back; check the disk")
    return replace(split, images=StoredFeatures(arrays))


def read(folder: Path, rows: int) -> list[np.ndarray] | None:
    """The arrays of one cache folder, or None where they are missing or not whole."""
    try:
        count = json.loads((folder / "features.json").read_text())["arrays"]
        paths = [folder / name for name in ["pooled.npy", *(f"map{i}.npy" for i in range(count - 1))]]
        in_memory = sum(path.stat().st_size for path in paths) <= IN_MEMORY
        arrays = [np.load(path, mmap_mode=None if in_memory else "r", allow_pickle=False) for path in paths]
    except (OSError, ValueError, KeyError):
        return None
    return arrays if all(len(array) == rows for array in arrays) else None
