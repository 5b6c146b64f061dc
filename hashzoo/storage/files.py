"""Files written whole or not at all: atomic replacement, canonical JSON, digests, and errors that name the path."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hashzoo.errors import DiskError


def canonical(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces, no NaN; 1 and 1.0 stay apart.

    >>> canonical({"b": 1, "a": [1.0, True]})
    '{"a":[1.0,true],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def replace_bytes(path: Path, data: bytes) -> None:
    """Puts ``data`` at ``path`` in one step: after a crash the file is the old one or the new one.

    Raises EnvironmentFailure with the path and the cure, and leaves no temporary file behind.
    """
    temporary = path.with_name(f".{os.getpid()}-{secrets.token_hex(6)}.tmp")
    try:
        with disk_errors("write", path):
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            _sync(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    if os.name != "posix":
        return  # elsewhere a folder cannot be opened, and the rename is durable without
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network folders know no fsync
            raise
    finally:
        os.close(handle)


@contextmanager
def disk_errors(doing: str, path: Path) -> Iterator[None]:
    """Turns an OSError into one line that names the path and the cure."""
    cures = {
        errno.ENOSPC: "free some space, then run the same command again",
        errno.EDQUOT: "free some space, then run the same command again",
        errno.EACCES: "change its permissions or choose another folder",
        errno.EPERM: "change its permissions or choose another folder",
        errno.EROFS: "choose a folder on a disk that is not read-only",
    }
    try:
        yield
    except OSError as error:
        cure = cures.get(error.errno or 0, "check the disk or choose another folder")
        raise DiskError(f"cannot {doing} {path}: {error.strerror or error}; {cure}") from error


def sha256(data: bytes) -> str:
    """The SHA-256 digest of bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
