"""Files of codes of images or of vectors: packed bits, image paths, and the method that made them.

Reading one never runs code.

The file is an ``.npz`` with these arrays:

- ``bits.NAME``: (N, ceil(K / 8)) uint8, a binary code of K bits. Bit 0 is the highest bit of byte 0.
- ``values.NAME``: (N, ...), a code that is not binary.
- ``paths``: the N paths in UTF-8, each followed by a zero byte; nothing for vectors, which are named by their rows.
- ``about``: metadata as JSON.
- ``schema``: the version of this format.
- ``digest``: SHA-256 of the arrays above.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from hashzoo.errors import EnvironmentFailure, UsageError, printable
from hashzoo.hamming.packing import BIT_ORDER, pack, unpack
from hashzoo.storage import npz
from hashzoo.storage.files import canonical_json, replace_bytes
from hashzoo.storage.schema import refuse_newer

if TYPE_CHECKING:  # torch is imported where tensors are made, so that a search with codes starts without it
    from hashzoo.index import PackedRows
    from hashzoo.types import Codes

SCHEMA = 1
CHUNK_ROWS = 1 << 16  # rows unpacked at a time


class PackedCode(NamedTuple):
    """One binary code of N images: its name, its K bits, and ``rows`` (N, ceil(K / 8)) uint8."""

    name: str
    bits: int
    rows: NDArray[np.uint8]


class RowNames(Sequence[str]):
    """The names of N vectors: their rows, from ``start``.

    >>> list(RowNames(3)), RowNames(3)[1:], list(RowNames(2, 10))
    (['0', '1', '2'], ['1', '2'], ['10', '11'])
    """

    def __init__(self, count: int, start: int = 0) -> None:
        self._rows = range(start, start + count)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: Any) -> Any:
        found = self._rows[row]
        return str(found) if isinstance(found, int) else [str(one) for one in found]


class CodeParts(Protocol):
    """Codes of a collection that are read in parts, so that all of them need not be in memory."""

    @property
    def metadata(self) -> dict[str, Any]:
        """As that of :class:`StoredCodes`."""

    def __len__(self) -> int: ...

    def parts(self) -> Iterator[StoredCodes]:
        """The codes, in the order of the collection."""


@dataclass(frozen=True)
class StoredCodes:
    """Codes of N images or vectors.

    Attributes:
        metadata: The description of the encoder (its method ``describe``), plus ``codes``, which maps the name
            of each code to its number of bits or to the shape of its values; ``count``, the number N; and ``root``,
            the folder that ``paths`` are relative to. Of vectors, ``vectors`` says how they are compared, and ``root``
            is their file.
        paths: The path of each image, in UTF-8 with ``/`` as separator.
        arrays: The arrays of the file that hold codes, and arrays that a search engine adds.
        ids: The id of each image of an index folder; None where paths are the ids.
    """

    metadata: dict[str, Any]
    paths: Sequence[str]
    arrays: Mapping[str, np.ndarray[Any, Any]]
    ids: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def parts(self) -> Iterator[StoredCodes]:
        """All codes as one part."""
        yield self

    @property
    def names(self) -> Sequence[str]:
        """The id of each image of an index folder, else its path."""
        return self.paths if self.ids is None else self.ids

    @property
    def of_vectors(self) -> bool:
        """Whether these are codes of vectors, and not of images."""
        return "vectors" in self.metadata

    def array(self, name: str) -> np.ndarray[Any, Any]:
        """The stored array of a code: packed bits (N, ceil(K / 8)), or values (N, ...)."""
        return self.arrays[array_name(name, self.metadata["codes"][name])]

    def codes(self, start: int, stop: int) -> Codes:
        """The codes of rows ``start`` to ``stop``, as the encoder returned them."""
        import torch

        return {
            name: torch.from_numpy(
                unpack(self.array(name)[start:stop], spec["bits"]) if "bits" in spec else self.array(name)[start:stop]
            )
            for name, spec in self.metadata["codes"].items()
        }

    def chunks(self) -> Iterator[Codes]:
        """All codes, ``CHUNK_ROWS`` rows at a time."""
        return (self.codes(start, start + CHUNK_ROWS) for start in range(0, len(self), CHUNK_ROWS))

    def packed_code(self, name: str = "") -> PackedCode:
        """A binary code by name; by default ``code``, or else the first one. Raises UsageError if there is none."""
        name, bits = binary_code(self.metadata, name)
        return PackedCode(name, bits, self.array(name))


def binary_codes(metadata: Mapping[str, Any]) -> dict[str, int]:
    """The bits of each binary code by its name."""
    return {name: spec["bits"] for name, spec in metadata["codes"].items() if "bits" in spec}


def binary_code(metadata: Mapping[str, Any], name: str = "") -> tuple[str, int]:
    """Name and bits of a binary code; by default ``code``, or else the first. Raises UsageError if there is none."""
    bits = binary_codes(metadata)
    if not bits:
        codes = ", ".join(metadata["codes"])
        raise UsageError(f"{metadata['method']} stores no binary code, only {codes}; choose another method")
    name = name or ("code" if "code" in bits else next(iter(bits)))
    if name not in bits:
        raise UsageError(f"there is no code {name!r}; there are: {', '.join(bits)}")
    return name, bits[name]


class CodeCollector:
    """Collects codes batch by batch and packs bits into bytes.

    Args:
        names: The codes to keep; None keeps all.
    """

    def __init__(self, names: Sequence[str] | None = None) -> None:
        self.names = names
        self._widths: dict[str, int] = {}
        self._bits: dict[str, PackedRows] = {}
        self._values: dict[str, list[np.ndarray[Any, Any]]] = {}

    def add(self, codes: Codes) -> None:
        """Append the codes of a batch. Raises UsageError if a required code is missing."""
        from hashzoo.index import PackedRows

        if missing := [name for name in self.names or () if name not in codes]:
            raise UsageError(f"the index reads {missing[0]!r} but encode returned {', '.join(codes) or 'no codes'}")
        for name in self.names or codes:
            values = codes[name].numpy()
            if values.dtype == bool:
                self._widths[name] = values.shape[1]
                self._bits.setdefault(name, PackedRows()).add(pack(values))
            else:
                self._values.setdefault(name, []).append(values)

    def finish(self, metadata: Mapping[str, Any], root: Path, paths: Sequence[PurePath] | RowNames) -> StoredCodes:
        """All codes that were added, with the description of their encoder and the paths of their images."""
        values = {name: np.concatenate(parts) for name, parts in self._values.items()}
        specs: dict[str, Any] = {
            name: {"bits": bits, "bytes": -(-bits // 8), "order": BIT_ORDER} for name, bits in self._widths.items()
        }
        specs |= {name: {"shape": list(array.shape[1:]), "type": str(array.dtype)} for name, array in values.items()}
        contents = {name: np.ascontiguousarray(packed.rows) for name, packed in self._bits.items()} | values
        arrays = {array_name(name, specs[name]): array for name, array in contents.items()}
        metadata = {**metadata, "codes": specs, "count": len(paths), "root": str(root)}
        named = paths if isinstance(paths, RowNames) else [path.as_posix() for path in paths]
        return StoredCodes(metadata, named, arrays)


class RelativeTo:
    """Codes with paths relative to another folder.

    Args:
        codes: The codes.
        root: The folder. Parts that have an image which is not in it raise UsageError.
    """

    def __init__(self, codes: CodeParts, root: Path) -> None:
        if "vectors" in codes.metadata:
            raise UsageError("--root is the folder of images, and these are codes of vectors; leave it out")
        self._codes = codes
        self.metadata = {**codes.metadata, "root": os.path.abspath(root)}  # noqa: PTH100 - links stay

    def __len__(self) -> int:
        return len(self._codes)

    def parts(self) -> Iterator[StoredCodes]:
        """The parts of the codes."""
        old, new = PurePath(self._codes.metadata["root"]), PurePath(self.metadata["root"])
        for stored in self._codes.parts():
            paths = []
            for path in stored.paths:
                if not (old / path).is_relative_to(new):
                    image = printable(old / path)
                    raise UsageError(f"--root: the image {image} is not in {printable(new)}; name a folder above it")
                paths.append((old / path).relative_to(new).as_posix())
            yield replace(stored, metadata=self.metadata, paths=paths)


def write(path: Path, stored: StoredCodes) -> None:
    """Write a file of codes atomically.

    Raises:
        UsageError: If an image path contains a zero byte.
        EnvironmentFailure: If the disk refuses the file.
    """
    if not stored.of_vectors and (invalid := next((name for name in stored.paths if "\0" in name), None)):
        raise UsageError(f"the path {invalid!r} contains a zero byte; rename the file")
    text = "".join(f"{name}\0" for name in ([] if stored.of_vectors else stored.paths)).encode(
        "utf-8", "surrogateescape"
    )
    arrays = {
        **stored.arrays,
        "paths": np.frombuffer(text, np.uint8),
        "about": np.frombuffer(canonical_json(stored.metadata).encode(), np.uint8),
        "schema": np.array(SCHEMA),
    }
    buffer = io.BytesIO()
    np.savez(buffer, **arrays, digest=np.array(_digest(arrays)))  # type: ignore[arg-type]
    replace_bytes(path, buffer.getvalue())


def read(path: Path) -> StoredCodes:
    """Read a file that :func:`write` wrote.

    Raises:
        UsageError: If there is no such file.
        EnvironmentFailure: If the file is damaged, or a newer hashzoo wrote it.
    """
    try:
        arrays = npz.read(path)
        digest = str(arrays.pop("digest"))
        refuse_newer(path, int(arrays["schema"]), SCHEMA, "create the file again")
        if _digest(arrays) != digest:
            raise ValueError("its digest does not match its content")
        return _parse(arrays)
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {path}; create it with hashzoo index build or hashzoo encode") from error
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as error:
        raise EnvironmentFailure(f"{path} is damaged or not a file of codes ({error}); create it again") from error


def holds_vectors(path: Path) -> bool:
    """Whether a file of codes holds those of vectors. Only its metadata is read; False for a file that is damaged."""
    try:
        with path.open("rb") as stream:  # numpy leaves a damaged file open
            return "vectors" in json.loads(np.load(stream, allow_pickle=False)["about"].tobytes())
    except (OSError, ValueError, LookupError, TypeError, EOFError, AttributeError, zipfile.BadZipFile):
        return False


def _parse(arrays: Mapping[str, np.ndarray[Any, Any]]) -> StoredCodes:
    """The codes in the arrays of a file. Raises an error of Python if an array is missing or inconsistent."""
    metadata = json.loads(arrays["about"].tobytes())
    paths: Sequence[str] = arrays["paths"].tobytes().decode("utf-8", "surrogateescape").split("\0")[:-1]
    if "vectors" in metadata:
        paths = RowNames(int(metadata.get("count", metadata.get("pictures"))))
        metadata["vectors"]["metric"], metadata["vectors"]["dim"]
    for name, spec in metadata["codes"].items():
        array = arrays[array_name(name, spec)]
        packed = array.dtype == np.uint8 and "bits" in spec and array.shape[1:] == (-(-spec["bits"] // 8),)
        if len(array) != len(paths) or ("bits" in spec and not packed):
            raise ValueError(f"its code {name!r} does not match its {len(paths)} paths")
    metadata["method"], metadata["root"], metadata["run"]["key"], metadata["run"]["state"], metadata["run"]["cell"]
    codes = {name: array for name, array in arrays.items() if name not in ("about", "paths", "schema")}
    return StoredCodes(metadata, paths, codes)


def array_name(name: str, spec: Mapping[str, Any]) -> str:
    """The name of the array that holds a code."""
    return f"bits.{name}" if "bits" in spec else f"values.{name}"


def _digest(arrays: Mapping[str, np.ndarray[Any, Any]]) -> str:
    total = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        total.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()
