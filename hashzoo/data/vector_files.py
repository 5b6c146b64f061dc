"""Files of vectors: .npy, .npz, .safetensors, .fvecs and the like, HDF5, Parquet, Arrow, saved Hugging Face datasets.

Nothing in a file is run: arrays of Python objects are refused.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hashzoo.data.vectors import BFLOAT16, ArrayMatrix, FileMatrix, Matrix
from hashzoo.errors import EnvironmentFailure, UsageError, first_line, printable
from hashzoo.storage import npz

#: Names of arrays in a file of several that are taken if no name is given.
VECTOR_NAMES = ("vectors", "embeddings", "embedding", "emb", "train", "database", "base", "x", "X")
QUERY_NAMES = ("queries", "query", "test")

_VECS = {".fvecs": "<f4", ".bvecs": "u1", ".ivecs": "<i4"}
_BIN = {".fbin": "<f4", ".u8bin": "u1", ".i8bin": "i1"}
_TENSORS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I8": "i1", "U8": "u1", "I16": "<i2", "I32": "<i4"}
_TABLES = (".parquet", ".arrow", ".feather")
_DISTANCES = {"angular": "cosine", "cosine": "cosine", "dot": "ip", "ip": "ip", "euclidean": "l2", "l2": "l2"}
FORMS = ".npy, .npz, .safetensors, .fvecs, .bvecs, .ivecs, .fbin, .u8bin, .i8bin, .hdf5, .parquet, .arrow"


@dataclass(frozen=True)
class VectorFile:
    """The vectors of a file.

    Attributes:
        matrix: The vectors.
        queries: The queries that the same file has; None if it has none.
        metric: The metric that the file names; empty if it names none.
    """

    matrix: Matrix
    queries: Matrix | None = None
    metric: str = ""


def read_vectors(path: Path, key: str = "", names: Sequence[str] = VECTOR_NAMES) -> VectorFile:
    """Open a file of vectors. Only its header is read if its rows can be read from disk one by one.

    Args:
        path: The file, or the folder of a saved Hugging Face dataset.
        key: The name of the array or column, in a file that has several.
        names: The names that are looked for without a key.

    Raises:
        UsageError: If there is no such file, it has another form, or its arrays are no vectors.
        EnvironmentFailure: If it is damaged, a folder of other files, or a package that reads it is not installed.
    """
    readers: dict[str, Callable[[Path, str, Sequence[str]], VectorFile]] = {
        ".npy": _npy,
        ".npz": _npz,
        ".safetensors": _safetensors,
        **dict.fromkeys(_VECS, _vecs),
        **dict.fromkeys(_BIN, _bin),
        **dict.fromkeys((".hdf5", ".h5"), _hdf5),
        **dict.fromkeys(_TABLES, _table),
    }
    shown, suffix = printable(path), path.suffix.lower()
    if path.is_dir() and (path / "state.json").is_file():
        suffix, readers = "", {"": _saved_dataset}
    elif path.is_dir():
        raise EnvironmentFailure(f"{shown} is a folder, and no saved Hugging Face dataset; name a file ({FORMS})")
    elif not path.is_file():
        raise UsageError(f"there is no file {shown}")
    elif suffix not in readers:
        raise UsageError(f"{shown} is no file of vectors that hashzoo reads; save them in one of {FORMS}")
    try:
        found = readers[suffix](path, key, names)
    except OSError as error:
        raise EnvironmentFailure(f"cannot read {shown}: {error.strerror or first_line(error)}") from error
    for matrix in filter(None, (found.matrix, found.queries)):
        if not matrix.shape[0] or not matrix.shape[1]:
            raise UsageError(f"{matrix.name} has {matrix.shape[0]} rows of {matrix.shape[1]} numbers; it needs some")
    return found


def array_matrix(given: Any, name: str) -> ArrayMatrix:
    """Vectors in an array of NumPy or torch, or in anything that NumPy makes an array of.

    >>> array_matrix(np.eye(3, dtype=np.float16), "the array").shape
    (3, 3)

    Args:
        given: The array (N, D).
        name: Its name in messages.

    Raises:
        UsageError: If it is not an array of vectors.
    """
    if isinstance(given, torch.Tensor):
        held = given.detach().cpu()
        given = (held.float() if held.dtype == torch.bfloat16 else held).numpy()
    try:
        array = np.asarray(given)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{name} is no array of numbers ({first_line(error)}); give an array (N, D)") from error
    kind = _checked(name, array.shape, array.dtype)
    if not array.size:
        raise UsageError(f"{name} has {array.shape[0]} rows of {array.shape[1]} numbers; it needs some")
    return ArrayMatrix(_plain(array, kind), name, kind)


def _npy(path: Path, key: str, names: Sequence[str]) -> VectorFile:
    if key:
        raise UsageError(f"{printable(path)} is one array, and {key!r} names one of several; leave out the key")
    shown = printable(path)
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            known = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            shape, fortran, dtype = known.get(version, np.lib.format.read_array_header_2_0)(file)
            start = file.tell()
    except ValueError as error:
        raise EnvironmentFailure(f"{shown} is not a readable .npy file ({first_line(error)}); save it again") from error
    kind = _checked(shown, shape, dtype)
    if fortran and min(shape) > 1:
        try:
            array = np.load(path, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise EnvironmentFailure(f"{shown} is damaged ({first_line(error)}); save it again") from error
        return VectorFile(ArrayMatrix(np.ascontiguousarray(_plain(array, kind)), shown, kind))
    stored = np.dtype("<u2") if kind == BFLOAT16 else dtype
    return VectorFile(FileMatrix(path, (shape[0], shape[1]), stored, start, kind=kind))


def _checked(name: str, shape: Sequence[int], dtype: np.dtype[Any]) -> str:
    """The name of the type of an array of vectors. UsageError for any other array."""
    if dtype.hasobject:
        raise UsageError(
            f"{name} holds Python objects, which are not read, such as rows of different lengths; save an array of "
            "numbers with as many in each row: np.stack(rows).astype(np.float32)"
        )
    if len(shape) != 2:
        cure = "save one vector a row, x[None] for a single one" if len(shape) < 2 else "save x.reshape(len(x), -1)"
        raise UsageError(f"{name} has the shape {tuple(shape)}, and vectors are (N, D); {cure}")
    if dtype.kind == "V" and dtype.itemsize == 2 and dtype.fields is None:
        return BFLOAT16  # as ml_dtypes writes it
    if dtype.kind == "b":
        raise UsageError(f"{name} holds bool, so these are codes and no vectors; score them with hashzoo evaluate")
    if dtype.kind not in "fiu" or dtype.itemsize > (4 if dtype.kind in "iu" else 8):
        raise UsageError(f"{name} holds {dtype}; save float64, float32, float16, bfloat16, int8 or uint8")
    return dtype.newbyteorder("=").name


def _plain(array: NDArray[Any], kind: str) -> NDArray[Any]:
    """An array in native byte order, bfloat16 as uint16."""
    return array.view("<u2") if kind == BFLOAT16 else array.astype(array.dtype.newbyteorder("="), copy=False)


def _choose(path: Path, key: str, names: Sequence[str], known: Sequence[str], matrices: Sequence[str]) -> str:
    """The name of the array with the vectors, among those of a file; ``matrices`` are those that can be it."""
    shown = printable(path)
    if key:
        if key not in known:
            raise UsageError(f"{shown} has no {key!r}; it has {', '.join(known) or 'nothing'}")
        return key
    if chosen := next((name for name in names if name in known), None):
        return chosen
    if len(matrices) == 1:
        return matrices[0]
    if not matrices:
        raise UsageError(f"{shown} has no array of vectors (N, D); it has {', '.join(known) or 'nothing'}")
    raise UsageError(f"{shown} has several arrays, {', '.join(matrices)}; name one with the option key")


def _queries_of(known: Sequence[str], chosen: str) -> str:
    """The name of the array with queries beside one with vectors; empty if there is none."""
    return next((name for name in QUERY_NAMES if name in known and name != chosen and chosen not in QUERY_NAMES), "")


def _npz(path: Path, key: str, names: Sequence[str]) -> VectorFile:
    try:
        arrays = npz.read(path)
    except ValueError as error:
        reason = "it holds Python objects, which are not read" if "allow_pickle" in str(error) else str(error)
        raise EnvironmentFailure(f"{printable(path)} is not a readable .npz file of numbers: {reason}") from error
    chosen = _choose(path, key, names, list(arrays), [n for n, a in arrays.items() if a.ndim == 2])

    def matrix(name: str) -> Matrix:
        shown, array = f"{name} of {printable(path)}", arrays[name]
        kind = _checked(shown, array.shape, array.dtype)
        return ArrayMatrix(np.ascontiguousarray(_plain(array, kind)), shown, kind)

    other = _queries_of(list(arrays), chosen)
    return VectorFile(matrix(chosen), matrix(other) if other else None)


def _safetensors(path: Path, key: str, names: Sequence[str]) -> VectorFile:
    shown = printable(path)
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if size > path.stat().st_size - 8:
                raise ValueError("its header is longer than the file")
            header = json.loads(file.read(size))
        tensors = {name: one for name, one in header.items() if name != "__metadata__"}
        shapes = {name: tuple(map(int, one["shape"])) for name, one in tensors.items()}
        starts = {name: 8 + size + int(one["data_offsets"][0]) for name, one in tensors.items()}
        kinds = {name: str(one["dtype"]) for name, one in tensors.items()}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise EnvironmentFailure(f"{shown} is not a readable .safetensors file ({first_line(error)})") from error
    chosen = _choose(path, key, names, list(shapes), [name for name, shape in shapes.items() if len(shape) == 2])

    def matrix(name: str) -> Matrix:
        if kinds[name] not in _TENSORS:
            raise UsageError(f"{name} of {shown} holds {kinds[name]}; save F64, F32, F16, BF16, I8 or U8")
        dtype = np.dtype(_TENSORS[kinds[name]])
        kind = BFLOAT16 if kinds[name] == "BF16" else _checked(f"{name} of {shown}", shapes[name], dtype)
        rows, columns = shapes[name] if len(shapes[name]) == 2 else (0, 0)
        return FileMatrix(path, (rows, columns), dtype, starts[name], kind=kind)

    other = _queries_of(list(shapes), chosen)
    return VectorFile(matrix(chosen), matrix(other) if other else None)


class _VecsMatrix(FileMatrix):
    """A matrix of a .fvecs file: the number of dimensions stands before each row."""

    def check(self, raw: NDArray[np.uint8], rows: NDArray[np.int64]) -> None:
        """Raise EnvironmentFailure for a row of another length."""
        given = np.ascontiguousarray(raw[:, :4]).view("<i4")[:, 0]
        if (other := np.flatnonzero(given != self.shape[1])).size:
            raise EnvironmentFailure(
                f"row {int(rows[other[0]])} of {self.name} says that it has {int(given[other[0]])} numbers, and row 0 "
                f"has {self.shape[1]}; write all rows with the same number"
            )


def _vecs(path: Path, key: str, names: Sequence[str]) -> VectorFile:
    shown, size, dtype = printable(path), path.stat().st_size, np.dtype(_VECS[path.suffix.lower()])
    with path.open("rb") as file:
        dim = int.from_bytes(file.read(4), "little", signed=True)
    record = 4 + dim * dtype.itemsize
    if size and (dim < 1 or record > size):
        raise EnvironmentFailure(f"{shown} is damaged: its first row says that it has {dim} numbers; write it again")
    if size % record:
        raise EnvironmentFailure(
            f"{shown} is cut off or its rows differ in length: {size:,} bytes are {size // record:,} rows of {dim} "
            f"numbers and {size % record} bytes more; write the file again"
        )
    return VectorFile(_VecsMatrix(path, (size // record, max(dim, 0)), dtype, 0, before=4))


def _bin(path: Path, key: str, names: Sequence[str]) -> VectorFile:
    with path.open("rb") as file:
        head = file.read(8)
    if len(head) < 8:
        raise EnvironmentFailure(f"{printable(path)} is damaged: it has no header of two numbers; write it again")
    rows, dim = (int(value) for value in np.frombuffer(head, "<u4"))
    return VectorFile(FileMatrix(path, (rows, dim), _BIN[path.suffix.lower()], 8))


class _StoredMatrix(Matrix):
    """A matrix in an HDF5 file, read through h5py."""

    def __init__(self, array: Any, name: str) -> None:
        self.array, self.name = array, name
        self.kind = _checked(name, array.shape, array.dtype)
        self.shape = (int(array.shape[0]), int(array.shape[1]))

    def read(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Some rows. Raises EnvironmentFailure if the file cannot be read."""
        try:
            if len(rows) and int(rows[-1]) - int(rows[0]) == len(rows) - 1 and (np.diff(rows) == 1).all():
                return np.asarray(self.array[int(rows[0]) : int(rows[-1]) + 1])
            ordered, place = np.unique(rows, return_inverse=True)  # h5py takes increasing rows only
            return np.asarray(self.array[ordered])[place]
        except (OSError, RuntimeError) as error:
            raise EnvironmentFailure(f"cannot read {self.name}: {first_line(error)}; write the file again") from error


def import_package(path: Path, module: str, extra: str) -> Any:
    """Import an optional package. Raises EnvironmentFailure with the extra that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise EnvironmentFailure(f"{printable(path)} needs {package}; pip install 'hashzoo[{extra}]'") from error


def _hdf5(path: Path, key: str, names: Sequence[str]) -> VectorFile:
    h5py = import_package(path, "h5py", "hdf5")
    file = h5py.File(path, "r")
    known = [name for name in file if isinstance(file[name], h5py.Dataset)]
    chosen = _choose(path, key, names, known, [n for n in known if file[n].ndim == 2 and file[n].dtype.kind == "f"])
    other = _queries_of(known, chosen)
    shown, distance = printable(path), str(file.attrs.get("distance", ""))
    queries = _StoredMatrix(file[other], f"{other} of {shown}") if other else None
    return VectorFile(_StoredMatrix(file[chosen], f"{chosen} of {shown}"), queries, _DISTANCES.get(distance, ""))


def _table(path: Path, key: str, names: Sequence[str]) -> VectorFile:
    import_package(path, "pyarrow", "parquet")
    from hashzoo.data import vector_tables

    if path.suffix.lower() == ".parquet":
        return VectorFile(vector_tables.parquet_matrix(path, key, names, _choose))
    return VectorFile(vector_tables.arrow_matrix([path], path, key, names, _choose))


def _saved_dataset(path: Path, key: str, names: Sequence[str]) -> VectorFile:
    import_package(path, "pyarrow", "parquet")
    from hashzoo.data import vector_tables

    try:
        files = [path / str(one["filename"]) for one in json.loads((path / "state.json").read_text())["_data_files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise EnvironmentFailure(
            f"{printable(path)}: state.json is not that of a saved dataset; save it again"
        ) from error
    return VectorFile(vector_tables.arrow_matrix(files, path, key, names, _choose))
