"""The manifest of exported codes: a JSON file that tells other programs how to read them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hashzoo.hamming.packing import BIT_ORDER
from hashzoo.retrieval.code_file import CodeParts, StoredCodes
from hashzoo.storage.files import disk_errors, file_sha256, replace_bytes

SCHEMA = 1


def manifest_path(file: Path) -> Path:
    """The path of the manifest of a single exported file.

    >>> manifest_path(Path("codes.parquet")).name
    'codes.parquet.json'
    """
    return file.with_name(file.name + ".json")


def write(path: Path, target: str, metadata: Mapping[str, Any], files: Sequence[Path], **more: Any) -> None:
    """Write a manifest.

    Args:
        path: The file to write.
        target: Name of the export format.
        metadata: Description of the encoder and its codes.
        files: The exported files, whose names and SHA-256 digests are listed.
        more: Further entries of the format.
    """
    content = {
        "schema": SCHEMA,
        "target": target,
        "bit_order": BIT_ORDER,
        **metadata,
        "files": {file.name: _digest(file) for file in files},
        **more,
    }
    replace_bytes(path, json.dumps(content, indent=1).encode())


class DigestedParts:
    """The parts of codes, which are digested as they are read.

    Args:
        codes: The codes.
    """

    def __init__(self, codes: CodeParts) -> None:
        self._codes = codes
        self._digests = {name: hashlib.sha256() for name in codes.metadata["codes"]}

    def __iter__(self) -> Iterator[tuple[int, StoredCodes]]:
        """Each part with the row of its first item."""
        start = 0
        for part in self._codes.parts():
            for name, digest in self._digests.items():
                digest.update(np.ascontiguousarray(part.array(name)).data)
            yield start, part
            start += len(part)

    def digests(self) -> dict[str, str]:
        """SHA-256 of the bytes of each code, row by row, by the name of the code."""
        return {name: digest.hexdigest() for name, digest in self._digests.items()}


def code_digests(codes: CodeParts) -> dict[str, str]:
    """The digests of :class:`DigestedParts`."""
    parts = DigestedParts(codes)
    for _ in parts:
        pass
    return parts.digests()


def _digest(file: Path) -> str:
    with disk_errors("read", file):
        return file_sha256(file)


def utf8_path(path: str) -> str:
    """A path as valid UTF-8: bytes that are not UTF-8 are escaped.

    >>> utf8_path(os.fsdecode(b"caf\\xe9.jpg"))
    'caf\\\\xe9.jpg'
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")
