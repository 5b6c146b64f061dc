"""Codes of images in a file: packed bits, paths, and what they were made with. Nothing in it is ever run.

The file is an ``.npz``: for each code ``bits.NAME`` (N, ceil(K / 8)) uint8, whose first bit is the highest of byte 0,
or ``values.NAME`` (N, ...) for what is no bits; ``paths``, the N paths in UTF-8, a zero byte after each; ``about``, in
JSON; ``schema``; and ``digest`` over all of it.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch

from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.hamming.counting import pack, unpack
from hashzoo.index import Packed
from hashzoo.storage import npz
from hashzoo.storage.files import canonical_json, replace_bytes
from hashzoo.storage.schema import refuse_newer
from hashzoo.types import Codes

SCHEMA = 1
ORDER = "bit 0 is the highest of byte 0, and the last byte ends in zeros"
ROWS = 1 << 16  # that are unpacked at a time


@dataclass(frozen=True)
class KeptCodes:
    """Codes of N images.

    ``about`` is what :meth:`hashzoo.retrieval.encoder.Encoder.about` says, with ``codes``, the number of bits or the
    shape of the values of each, and ``root``, the folder that ``paths`` start at. ``arrays`` are those of the file
    that hold codes, and what an engine adds.
    """

    about: dict[str, Any]
    paths: Sequence[str]
    arrays: Mapping[str, np.ndarray[Any, Any]]

    def __len__(self) -> int:
        return len(self.paths)

    def some(self, start: int, stop: int) -> Codes:
        """The codes of some successive rows, as encoding gave them."""
        return {
            name: torch.from_numpy(
                unpack(self.arrays[f"bits.{name}"][start:stop], told["bits"])
                if "bits" in told
                else self.arrays[f"values.{name}"][start:stop]
            )
            for name, told in self.about["codes"].items()
        }

    def parts(self) -> Iterator[Codes]:
        """All codes, some rows at a time."""
        return (self.some(start, start + ROWS) for start in range(0, len(self), ROWS))

    def packed(self, name: str = "") -> tuple[str, int, np.ndarray[Any, Any]]:
        """The name of a code, its bits K, and (N, ceil(K / 8)) uint8; the first that is bits, unless one is named.

        UsageError where there is no such code.
        """
        bits = {code: told["bits"] for code, told in self.about["codes"].items() if "bits" in told}
        if not bits:
            raise UsageError(f"{self.about['method']} stores no bits, only {', '.join(self.about['codes'])}")
        name = name or next(iter(bits))
        if name not in bits:
            raise UsageError(f"there is no code {name!r}; there are: {', '.join(bits)}")
        return name, bits[name], self.arrays[f"bits.{name}"]


class Gathered:
    """Codes that are collected batch by batch, bits eight to a byte, to be kept in the end.

    ``only`` are the names of the codes that are wanted; None for all.
    """

    def __init__(self, only: Sequence[str] | None = None) -> None:
        self.only = only
        self._widths: dict[str, int] = {}
        self._bits: dict[str, Packed] = {}
        self._values: dict[str, list[np.ndarray[Any, Any]]] = {}

    def add(self, codes: Codes) -> None:
        """Append the codes of some images. UsageError where one that is wanted is missing."""
        if missing := [name for name in self.only or () if name not in codes]:
            raise UsageError(f"the index reads {missing[0]!r} but encode gave only {', '.join(codes) or 'nothing'}")
        for name in self.only or codes:
            values = codes[name].numpy()
            if values.dtype == bool:
                self._widths[name] = values.shape[1]
                self._bits.setdefault(name, Packed()).add(pack(values))
            else:
                self._values.setdefault(name, []).append(values)

    def kept(self, about: Mapping[str, Any], root: Path, paths: Sequence[PurePath]) -> KeptCodes:
        """All that was added, with where it comes from."""
        values = {name: np.concatenate(parts) for name, parts in self._values.items()}
        told: dict[str, Any] = {
            name: {"bits": bits, "bytes": -(-bits // 8), "order": ORDER} for name, bits in self._widths.items()
        }
        told |= {name: {"shape": list(array.shape[1:]), "type": str(array.dtype)} for name, array in values.items()}
        arrays = {f"bits.{name}": np.ascontiguousarray(packed.rows) for name, packed in self._bits.items()}
        arrays |= {f"values.{name}": array for name, array in values.items()}
        about = {**about, "codes": told, "pictures": len(paths), "root": str(root)}
        return KeptCodes(about, [path.as_posix() for path in paths], arrays)


def write(path: Path, kept: KeptCodes) -> None:
    """Write the file in one step or not at all. UsageError for a path with a zero byte; EnvironmentFailure by the
    disk.
    """
    if odd := next((name for name in kept.paths if "\0" in name), None):
        raise UsageError(f"the path {odd!r} holds a zero byte")
    text = "".join(f"{name}\0" for name in kept.paths).encode("utf-8", "surrogateescape")
    arrays = {
        **kept.arrays,
        "paths": np.frombuffer(text, np.uint8),
        "about": np.frombuffer(canonical_json(kept.about).encode(), np.uint8),
        "schema": np.array(SCHEMA),
    }
    buffer = io.BytesIO()
    np.savez(buffer, **arrays, digest=np.array(_digest(arrays)))  # type: ignore[arg-type]
    replace_bytes(path, buffer.getvalue())


def _digest(arrays: Mapping[str, np.ndarray[Any, Any]]) -> str:
    total = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        total.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()


def read(path: Path) -> KeptCodes:
    """What :func:`write` wrote. UsageError where there is no such file, EnvironmentFailure where it is damaged or
    newer.
    """
    try:
        stored = npz.read(path)
        digest = str(stored.pop("digest"))
        refuse_newer(path, int(stored["schema"]), SCHEMA, "make it anew")
        if _digest(stored) != digest:
            raise ValueError("its digest does not fit its content")
        about = json.loads(stored["about"].tobytes())
        names = stored["paths"].tobytes().decode("utf-8", "surrogateescape").split("\0")[:-1]
        arrays = {name: array for name, array in stored.items() if name not in ("about", "paths", "schema")}
        for name, told in about["codes"].items():
            array = arrays[f"bits.{name}" if "bits" in told else f"values.{name}"]
            fits = array.dtype == np.uint8 and array.shape[1:] == (-(-told["bits"] // 8),) if "bits" in told else True
            if len(array) != len(names) or not fits:
                raise ValueError(f"its code {name!r} does not fit its {len(names)} paths")
        about["method"], about["root"], about["run"]["key"], about["run"]["state"], about["run"]["cell"]
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {path}; hashzoo index build and encode make one") from error
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as error:
        raise EnvironmentFailure(f"{path} is damaged or no file of codes ({error}); make it anew") from error
    return KeptCodes(about, names, arrays)
