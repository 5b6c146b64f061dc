"""What a reader of exported codes must know, as a JSON file beside them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hashzoo.retrieval.code_file import ORDER, KeptCodes
from hashzoo.storage.files import replace_bytes

SCHEMA = 1


def beside(file: Path) -> Path:
    """Where the manifest of one exported file lies.

    >>> beside(Path("codes.parquet")).name
    'codes.parquet.json'
    """
    return file.with_name(file.name + ".json")


def write(path: Path, target: str, about: Mapping[str, Any], files: Mapping[str, bytes], **more: Any) -> None:
    """Write a manifest: what an encoder says of itself, the SHA-256 of each file, and what a target has to add."""
    content = {
        "schema": SCHEMA,
        "target": target,
        "bit_order": ORDER,
        **about,
        "files": {name: digest(data) for name, data in files.items()},
        **more,
    }
    replace_bytes(path, json.dumps(content, indent=1).encode())


def digest(data: bytes) -> str:
    """The SHA-256 of some bytes, in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def digests(kept: KeptCodes) -> dict[str, str]:
    """The SHA-256 of each code's bytes, row after row, by the code's name."""
    return {
        name: digest(np.ascontiguousarray(kept.arrays[array_of(name, told)]).tobytes())
        for name, told in kept.about["codes"].items()
    }


def array_of(name: str, told: Mapping[str, Any]) -> str:
    """What the array of a code is called."""
    return f"bits.{name}" if "bits" in told else f"values.{name}"


def text(path: str) -> str:
    """A path as text that every database takes: bytes that are no UTF-8 are escaped.

    >>> text(os.fsdecode(b"caf\\xe9.jpg"))
    'caf\\\\xe9.jpg'
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")
