"""Frozen backbones: features extracted once, kept in a cache folder, and handed out as if they were images."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import queue
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor

from hashzoo.backbone import Backbone
from hashzoo.errors import DiskError, EnvironmentFailure
from hashzoo.storage.cache import cache_folder
from hashzoo.storage.schema import CACHE, NewerSchemaError, refuse_newer
from hashzoo.storage.tensors import tensor_digest
from hashzoo.types import Features, LazyTensors, ProgressCallback, SupportsTake, View

SCHEMA = 1  # of a folder of features; folders from before it was written lack it

#: Pooled features up to this many bytes are read into memory; larger ones, and maps, are memory-mapped.
IN_MEMORY = 2**30


def digest_of_state(module: torch.nn.Module) -> str:
    """A digest of every parameter and buffer of a module."""
    state = module.state_dict()
    return tensor_digest({name: value for name, value in state.items() if isinstance(value, Tensor)})


#: The features of every row under one view: (rows, draws) -> Features.
Looks = Callable[[View, NDArray[np.int64], NDArray[np.int64]], Features]


class StoredFeatures(SupportsTake):
    """Features of images, standing where a split keeps its images. Maps are read only when looked at.

    ``rows`` are those of the arrays that stand here; ``looks`` gives the features of transformed images, where these
    are stored too.
    """

    def __init__(
        self, arrays: Sequence[np.ndarray], rows: NDArray[np.int64] | None = None, looks: Looks | None = None
    ) -> None:
        self.arrays = arrays  # pooled (M, D), then the maps
        self.rows = np.arange(len(arrays[0])) if rows is None else rows  # (N,)
        self.looks = looks

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Any) -> Any:
        """Features of some rows."""
        at = self.rows[rows]

        def tensor(array: np.ndarray) -> Tensor:
            return torch.from_numpy(np.asarray(array[at], dtype=np.float32))

        pooled, *maps = self.arrays
        return Features(tensor(pooled), LazyTensors([partial(tensor, array) for array in maps]))

    def take(self, rows: Tensor) -> StoredFeatures:
        """Some rows, in their order."""
        return StoredFeatures(self.arrays, self.rows[rows.numpy()], self.looks)

    def seen(self, view: View | None, rows: Tensor, seeds: Tensor) -> Features:
        """Features of some rows under a view; those of the images as they are, where views are not stored."""
        if view is None or self.looks is None:
            return self[rows.numpy()]  # type: ignore[no-any-return]
        return self.looks(view, self.rows[rows.numpy()], seeds.numpy())


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
    """A frozen backbone that still takes images, for methods that learn from views of them."""

    def __init__(self, of: Backbone, maps: bool) -> None:
        super().__init__()
        # in a tuple it is no part of the method: neither trained nor saved, and it stays in eval mode
        self._of = (of.requires_grad_(False).eval(),)
        self.dim, self.map_dims, self.input = of.dim, of.map_dims if maps else (), of.input
        self.weights, self.trained_on, self.eyes = of.weights, of.trained_on, of.eyes

    def forward(self, images: Any) -> Features:
        """Features of images, without gradient."""
        with torch.no_grad():
            features: Features = self._of[0](images)
        return Features(features.pooled, features.maps if self.map_dims else ())


class Mixed(Backbone):
    """A backbone whose forward pass runs under the run's precision; its features come back as float32.

    Only the backbone is mixed: it is where the time goes, and neither a closed-form solver nor the inner products
    of a pairwise loss survive sixteen bits well.
    """

    def __init__(self, of: Backbone, fabric: Fabric) -> None:
        super().__init__()
        self.inner = of
        self._fabric = fabric
        self.dim, self.map_dims, self.input = of.dim, of.map_dims, of.input
        self.weights, self.trained_on, self.eyes = of.weights, of.trained_on, of.eyes

    def forward(self, images: Any) -> Features:
        """Features in float32, computed under autocast."""
        with self._fabric.autocast():
            features = self.inner(images)
        return Features(features.pooled.float(), tuple(m.float() for m in features.maps))


#: Computes the features of some rows. Several of them may be used at once, each by one thread.
Eye = Callable[[NDArray[np.int64]], Features]


def extract(
    eyes: Sequence[Eye],
    groups: Sequence[NDArray[np.int64]],
    size: int,
    maps: bool,
    folder: Path,
    tell: ProgressCallback | None = None,
) -> None:
    """Write ``pooled.npy`` and ``map0.npy``... of ``size`` images into a new folder, all or nothing.

    ``groups`` of rows are computed together, and rows in none of them stay zero. Each of the ``eyes`` has a thread of
    its own; what is computed does not depend on how many there are.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=folder.name + ".", suffix=".tmp", dir=folder.parent))

    def values(eye: Eye, group: NDArray[np.int64]) -> list[np.ndarray]:
        with torch.no_grad():
            features = eye(group)
            parts = [features.pooled, *(features.maps if maps else ())]
            found = [part.float().cpu().numpy() for part in parts]
        if not all(np.isfinite(one).all() for one in found):
            raise EnvironmentFailure(
                f"the features of rows {group[0]} to {group[-1]} are not finite; check the weights of the backbone"
            )
        return found

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # each eye has its thread, and what it sees must not depend on who looks
    try:
        first = values(eyes[0], groups[0])
        names = ["pooled", *(f"map{i}" for i in range(len(first) - 1))]
        files = [
            np.lib.format.open_memmap(work / f"{name}.npy", mode="w+", dtype=np.float32, shape=(size, *value.shape[1:]))
            for name, value in zip(names, first, strict=True)
        ]
        free: queue.SimpleQueue[Eye] = queue.SimpleQueue()
        for eye in eyes:
            free.put(eye)

        def fill(group: NDArray[np.int64]) -> int:
            eye = free.get()
            try:
                for file, value in zip(files, values(eye, group), strict=True):
                    file[group] = value
            finally:
                free.put(eye)
            return len(group)

        for name in names:
            _reserve(work / f"{name}.npy")
        for file, value in zip(files, first, strict=True):
            file[groups[0]] = value
        done = len(groups[0])
        with ThreadPoolExecutor(len(eyes)) as pool:
            for count in pool.map(fill, groups[1:]):
                done += count
                if tell:
                    tell(done, sum(map(len, groups)))
        for file in files:
            file.flush()
        crc = [_crc(work / f"{name}.npy") for name in names]
        about = {"schema": SCHEMA, "rows": size, "arrays": len(files), "crc": crc}
        (work / "features.json").write_text(json.dumps(about))
        os.replace(work, folder)
    except OSError as error:
        raise DiskError(
            f"cannot keep features in {folder.parent}: {error.strerror}; set HASHZOO_CACHE to a folder with room"
        ) from error
    finally:
        torch.set_num_threads(threads)
        shutil.rmtree(work, ignore_errors=True)


def _reserve(path: Path) -> None:
    """Take the room of a file that will be written through memory, where a full disk ends the process."""
    if sys.platform in ("win32", "darwin"):  # these have no such call
        return
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # some file systems cannot
                raise


def _crc(path: Path) -> int:
    """The CRC-32 of a file, read by blocks so that a large one takes no memory."""
    found = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found = zlib.crc32(block, found)
    return found


def stored(
    eyes: Callable[[], Sequence[Eye]],
    groups: Sequence[NDArray[np.int64]],
    size: int,
    *,
    maps: bool,
    name: str,
    tell: ProgressCallback | None = None,
) -> list[np.ndarray]:
    """The arrays of features of ``size`` images, from the cache where it has them; ``groups`` of rows are computed.

    ``name`` says all that tells these features from others: the images, the network and its weights, its input, the
    precision. Processes that want the same features wait for the one that extracts them.
    """
    folder = cache_folder() / "features" / hashlib.sha256(f"{name} {maps}".encode()).hexdigest()[:32]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{folder}.lock"):
            arrays = read(folder, size)
            if arrays is None:
                for left in [folder, *folder.parent.glob(f"{folder.name}.*.tmp")]:  # by who was killed
                    shutil.rmtree(left, ignore_errors=True)
                extract(eyes(), groups, size, maps, folder, tell)
                arrays = read(folder, size)
    except OSError as error:
        raise DiskError(
            f"cannot use the feature cache {folder.parent}: {error.strerror}; set HASHZOO_CACHE to another folder"
        ) from error
    if arrays is None:
        raise EnvironmentFailure(f"the features just written to {folder} cannot be read back; check the disk")
    return arrays


def read(folder: Path, rows: int) -> list[np.ndarray] | None:
    """The arrays of one cache folder, or None where they are missing or not what was written. NewerSchemaError.

    Of maps above ``IN_MEMORY``, which are read a few rows at a time, only type and size are looked at.
    """
    try:
        about = json.loads((folder / "features.json").read_text())
        refuse_newer(folder, about.get("schema", SCHEMA), SCHEMA, CACHE)  # hours of work of a later hashzoo's
        count, crc = about["arrays"], about.get("crc") or []  # none in what an older hashzoo kept
        paths = [folder / name for name in ["pooled.npy", *(f"map{i}.npy" for i in range(count - 1))]]
        modes: list[Any] = [None if path.stat().st_size <= IN_MEMORY else "r" for path in paths]
        modes[1:] = ["r"] * len(modes[1:])  # maps: few methods look at them
        arrays = [np.load(path, mode, allow_pickle=False) for path, mode in zip(paths, modes, strict=True)]
        small = [path == paths[0] or path.stat().st_size <= IN_MEMORY for path in paths]
        sound = all(_crc(path) == kept for path, kept, check in zip(paths, crc, small, strict=bool(crc)) if check)
        plain = all(array.shape[:1] == (rows,) and array.dtype == np.float32 for array in arrays)
        mapped = [(array, path) for array, path in zip(arrays, paths, strict=True) if isinstance(array, np.memmap)]
        full = all(array.offset + array.nbytes == path.stat().st_size for array, path in mapped)
        return arrays if sound and plain and full else None
    except NewerSchemaError:
        raise
    except Exception:  # whatever a damaged file makes of its readers, it is extracted anew
        return None
