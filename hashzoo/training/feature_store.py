"""Features of frozen backbones: extracted once, stored in the cache folder, and used in place of images."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import queue
import shutil
import tempfile
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashzoo.backbone import Backbone
from hashzoo.errors import DiskError, EnvironmentFailure
from hashzoo.storage.cache import cache_folder
from hashzoo.storage.schema import CACHE, NewerSchemaError, refuse_newer
from hashzoo.storage.tensors import tensor_digest
from hashzoo.types import Features, LazyTensors, ProgressCallback, SupportsTake, View

SCHEMA = 1  # of a folder of features; folders written before it existed have none

#: Pooled features up to this many bytes are read into memory; larger ones, and maps, are memory-mapped.
IN_MEMORY = 2**30

#: The types of 16 bits that a budget can ask for.
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}

#: Computes the features of images, given their rows (n,). Several extractors run concurrently, each in its own thread.
Extractor = Callable[[NDArray[np.int64]], Features]

#: Features of transformed images, given a view and the rows and seeds (n,) of the images.
ViewFeatures = Callable[[View, NDArray[np.int64], NDArray[np.int64]], Features]


def state_digest(module: torch.nn.Module) -> str:
    """Digest of every parameter and buffer in the state of a module."""
    state = module.state_dict()
    return tensor_digest({name: value for name, value in state.items() if isinstance(value, Tensor)})


class CheckedMap:
    """A map on disk that is compared with its checksum when rows of it are first read, since few methods read any."""

    def __init__(self, array: np.ndarray, path: Path, crc: int) -> None:
        self._array, self._path, self._crc, self._checked = array, path, crc, False

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Some rows. EnvironmentFailure, and the features leave the cache, if the file is damaged."""
        if not self._checked and _crc(self._path) != self._crc:
            shutil.rmtree(self._path.parent, ignore_errors=True)
            raise EnvironmentFailure(
                f"the cached features {self._path} were damaged and are removed; run the command again"
            )
        self._checked = True
        found: np.ndarray = self._array[rows]
        return found


#: Arrays of which some rows are read at a time.
Rows = np.ndarray | CheckedMap


class StoredFeatures(SupportsTake):
    """Stored features as the images of a split. Feature maps are read from disk only when they are used.

    ``rows`` (N,) selects rows of the ``arrays``: pooled (M, D), then the maps. ``view_features`` gives the features of
    transformed images, if these are stored too.
    """

    def __init__(
        self,
        arrays: Sequence[Rows],
        rows: NDArray[np.int64] | None = None,
        view_features: ViewFeatures | None = None,
    ) -> None:
        self.arrays = arrays
        self.rows = np.arange(len(arrays[0])) if rows is None else rows
        self.view_features = view_features

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Any) -> Any:
        """Features of some rows."""
        selected = self.rows[rows]

        def tensor(array: Rows) -> Tensor:
            return torch.from_numpy(np.asarray(array[selected], dtype=np.float32))

        pooled, *maps = self.arrays
        return Features(tensor(pooled), LazyTensors([partial(tensor, array) for array in maps]))

    def take(self, rows: Tensor) -> StoredFeatures:
        """Some rows, in the given order."""
        return StoredFeatures(self.arrays, self.rows[rows.numpy()], self.view_features)

    def under_view(self, view: View | None, rows: Tensor, seeds: Tensor) -> Features:
        """Features of some rows under a view; those of the original images if no views are stored."""
        if view is None or self.view_features is None:
            return self[rows.numpy()]  # type: ignore[no-any-return]
        return self.view_features(view, self.rows[rows.numpy()], seeds.numpy())


class PrecomputedBackbone(Backbone):
    """Replaces a frozen backbone when its features are stored: returns the features that it is given."""

    def __init__(self, original: Backbone, maps: bool) -> None:
        super().__init__()
        self.dim, self.map_dims, self.input = original.dim, original.map_dims if maps else (), original.input
        self.weights, self.trained_on = original.weights, original.trained_on

    def forward(self, images: Any) -> Features:
        """The stored features themselves."""
        features: Features = images
        return features


class FrozenBackbone(Backbone):
    """A frozen backbone that takes images, for methods that train on views of them."""

    def __init__(self, original: Backbone, maps: bool) -> None:
        super().__init__()
        # A tuple hides the network from torch: it is neither trained nor saved, and stays in eval mode.
        self._network = (original.requires_grad_(False).eval(),)
        self.dim, self.map_dims, self.input = original.dim, original.map_dims if maps else (), original.input
        self.weights, self.trained_on, self.eyes = original.weights, original.trained_on, original.eyes

    def forward(self, images: Any) -> Features:
        """Features of images, without gradient."""
        with torch.no_grad():
            features: Features = self._network[0](images)
        return Features(features.pooled, features.maps if self.map_dims else ())


class MixedPrecisionBackbone(Backbone):
    """A backbone whose forward pass runs in the run's precision and returns float32 features.

    Only the backbone runs in mixed precision: it takes most of the time, and closed-form solvers and the inner products
    of pairwise losses lose too much accuracy in 16 bits.
    """

    def __init__(self, original: Backbone, device: str, precision: str = "bf16") -> None:
        super().__init__()
        self.inner = original  # the name is part of saved states
        self._device, self._lower = device, HALF[precision]
        self.dim, self.map_dims, self.input = original.dim, original.map_dims, original.input
        self.weights, self.trained_on, self.eyes = original.weights, original.trained_on, original.eyes

    def forward(self, images: Any) -> Features:
        """Features in float32, computed under autocast."""
        with torch.autocast(self._device, dtype=self._lower):
            features = self.inner(images)
        return Features(features.pooled.float(), tuple(m.float() for m in features.maps))


@dataclass(frozen=True)
class FeatureRequest:
    """The features to extract: of ``size`` images, with or without feature maps.

    The rows of each of the ``groups`` are computed together; rows in no group stay zero.
    """

    groups: Sequence[NDArray[np.int64]]
    size: int
    maps: bool


def extract(
    extractors: Sequence[Extractor],
    request: FeatureRequest,
    folder: Path,
    progress: ProgressCallback | None = None,
) -> None:
    """Write the requested features to ``pooled.npy``, ``map0.npy``... in a new folder, all or nothing.

    Each extractor runs in a thread of its own; the features do not depend on the number of extractors.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=folder.name + ".", suffix=".tmp", dir=folder.parent))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # one thread per extractor, so that the features do not depend on their number
    try:
        names = _write_arrays(work, extractors, request, progress)
        crc = [_crc(work / f"{name}.npy") for name in names]
        description = {"schema": SCHEMA, "rows": request.size, "arrays": len(names), "crc": crc}
        (work / "features.json").write_text(json.dumps(description))
        os.replace(work, folder)
    except OSError as error:
        raise DiskError(
            f"cannot write features to {folder.parent}: {error.strerror}; "
            "set HASHZOO_CACHE to a folder with enough free space"
        ) from error
    finally:
        torch.set_num_threads(threads)
        shutil.rmtree(work, ignore_errors=True)


def _write_arrays(
    folder: Path, extractors: Sequence[Extractor], request: FeatureRequest, progress: ProgressCallback | None
) -> list[str]:
    """Extract features into memory-mapped files; returns the names of the arrays."""
    groups, total = request.groups, sum(map(len, request.groups))
    first = _compute(extractors[0], groups[0], request.maps)
    names = ["pooled", *(f"map{i}" for i in range(len(first) - 1))]
    arrays = [
        np.lib.format.open_memmap(
            folder / f"{name}.npy", mode="w+", dtype=np.float32, shape=(request.size, *value.shape[1:])
        )
        for name, value in zip(names, first, strict=True)
    ]
    for name in names:
        _reserve(folder / f"{name}.npy")
    for array, value in zip(arrays, first, strict=True):
        array[groups[0]] = value
    idle: queue.SimpleQueue[Extractor] = queue.SimpleQueue()
    for extractor in extractors:
        idle.put(extractor)

    def fill(group: NDArray[np.int64]) -> int:
        extractor = idle.get()
        try:
            for array, value in zip(arrays, _compute(extractor, group, request.maps), strict=True):
                array[group] = value
        finally:
            idle.put(extractor)
        return len(group)

    done = len(groups[0])
    with ThreadPoolExecutor(len(extractors)) as pool:
        for count in pool.map(fill, groups[1:]):
            done += count
            if progress:
                progress(done, total)
    for array in arrays:
        array.flush()
    return names


def _compute(extractor: Extractor, group: NDArray[np.int64], maps: bool) -> list[np.ndarray]:
    """The arrays of a group of rows: pooled features, then the maps."""
    with torch.no_grad():
        features = extractor(group)
        parts = [features.pooled, *(features.maps if maps else ())]
        arrays = [part.float().cpu().numpy() for part in parts]
    if not all(np.isfinite(array).all() for array in arrays):
        raise EnvironmentFailure(
            f"the features of rows {group[0]} to {group[-1]} are not finite; check the weights of the backbone"
        )
    return arrays


def _reserve(path: Path) -> None:
    """Allocate the disk space of a file before it is written through memory, where a full disk kills the process."""
    if not hasattr(os, "posix_fallocate"):  # macOS and Windows
        return
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # some file systems do not support it
                raise


def _crc(path: Path) -> int:
    """CRC-32 of a file, read block by block."""
    crc = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            crc = zlib.crc32(block, crc)
    return crc


def load_or_extract(
    extractors: Callable[[], Sequence[Extractor]],
    request: FeatureRequest,
    name: str,
    progress: ProgressCallback | None = None,
) -> list[Rows]:
    """The arrays of the requested features, from the cache if it has them.

    ``name`` identifies the features: the images, the network, its weights and input, the precision. ``extractors`` is
    called only if features are computed. Processes that need the same features wait for the one that extracts them.
    """
    folder = cache_folder() / "features" / hashlib.sha256(f"{name} {request.maps}".encode()).hexdigest()[:32]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{folder}.lock"):
            arrays = read(folder, request.size)
            if arrays is None:
                for leftover in [folder, *folder.parent.glob(f"{folder.name}.*.tmp")]:  # of killed processes
                    shutil.rmtree(leftover, ignore_errors=True)
                extract(extractors(), request, folder, progress)
                arrays = read(folder, request.size)
    except OSError as error:
        raise DiskError(
            f"cannot use the feature cache {folder.parent}: {error.strerror}; set HASHZOO_CACHE to another folder"
        ) from error
    if arrays is None:
        raise EnvironmentFailure(f"the features just written to {folder} cannot be read back; check the disk")
    return arrays


def read(folder: Path, rows: int) -> list[Rows] | None:
    """The arrays of a cache folder; None if they are missing or damaged. Raises NewerSchemaError.

    Maps up to ``IN_MEMORY`` bytes are checked when they are first used, larger ones only by type and size.
    """
    try:
        description = json.loads((folder / "features.json").read_text())
        # refused, not replaced: extracting the features of a newer hashzoo can have taken hours
        refuse_newer(folder, description.get("schema", SCHEMA), SCHEMA, CACHE)
        count, crc = description["arrays"], description.get("crc") or []  # older versions wrote no checksums
        pooled, *maps = (folder / name for name in ["pooled.npy", *(f"map{i}.npy" for i in range(count - 1))])
        mode: Any = None if pooled.stat().st_size <= IN_MEMORY else "r"
        arrays = [np.load(pooled, mode, allow_pickle=False), *(np.load(path, "r", allow_pickle=False) for path in maps)]
        intact = not crc or (len(crc) == count and _crc(pooled) == crc[0])
        well_formed = all(array.shape[:1] == (rows,) and array.dtype == np.float32 for array in arrays)
        mapped = [
            (array, path) for array, path in zip(arrays, [pooled, *maps], strict=True) if isinstance(array, np.memmap)
        ]
        complete = all(array.offset + array.nbytes == path.stat().st_size for array, path in mapped)
        if not (intact and well_formed and complete):
            return None
    except NewerSchemaError:
        raise
    except Exception:  # damaged files raise many types of exceptions; the features are then extracted again
        return None
    checks = zip(arrays[1:], maps, crc[1:], strict=True) if crc else ()
    checked = [CheckedMap(*one) if one[0].nbytes <= IN_MEMORY else one[0] for one in checks]
    return [arrays[0], *(checked or arrays[1:])]
