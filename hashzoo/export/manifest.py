"""The manifest of exported codes: a JSON file that tells other programs how to read them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hashzoo.hamming.packing import BIT_ORDER
from hashzoo.retrieval.code_file import StoredCodes
from hashzoo.storage.files import replace_bytes, sha256

SCHEMA = 1


def manifest_path(file: Path) -> Path:
    """The path of the manifest of a single exported file.

    >>> manifest_path(Path("codes.parquet")).name
    'codes.parquet.json'
    """
    return file.with_name(file.name + ".json")


def write(path: Path, target: str, metadata: Mapping[str, Any], files: Mapping[str, bytes], **more: Any) -> None:
    """Write a manifest.

    Args:
        path: The file to write.
        target: Name of the export format.
        metadata: Description of the encoder and its codes.
        files: The exported files, whose SHA-256 digests are listed.
        more: Further entries of the format.
    """
    content = {
        "schema": SCHEMA,
        "target": target,
        "bit_order": BIT_ORDER,
        **metadata,
        "files": {name: sha256(data) for name, data in files.items()},
        **more,
    }
    replace_bytes(path, json.dumps(content, indent=1).encode())


def code_digests(stored: StoredCodes) -> dict[str, str]:
    """SHA-256 of the bytes of each code, row by row, by the name of the code."""
    return {name: sha256(np.ascontiguousarray(stored.array(name)).tobytes()) for name in stored.metadata["codes"]}


def utf8_path(path: str) -> str:
    """A path as valid UTF-8: bytes that are not UTF-8 are escaped.

    >>> utf8_path(os.fsdecode(b"caf\\xe9.jpg"))
    'caf\\\\xe9.jpg'
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")
