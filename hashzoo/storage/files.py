"""Atomic writes, canonical JSON, digests, and disk errors that name the path."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from hashzoo.errors import DiskError, UsageError


def canonical_json(value: Any) -> str:
    """Canonical JSON text of a value: sorted keys, no spaces, no NaN. 1 and 1.0 give different texts.

    >>> canonical_json({"b": 1, "a": [1.0, True]})
    '{"a":[1.0,true],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def expand_user(path: Path) -> Path:
    """The path with the home folder in place of ``~``, as a shell expands it at the start of a word.

    A shell leaves ``--results=~/out`` as it is, and nothing expands a path in a TOML file. Raises UsageError for the
    home folder of an unknown user.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        user = path.parts[0][1:]
        problem = f"there is no user {user!r}" if user else "this user has no home folder; set HOME"
        other = f"write ./{path} for a folder of that name"
        raise UsageError(f"{path}: {problem}{', or' if not user else ';'} {other}") from None


def replace_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically: after a crash the file has either its old or its new content.

    Raises DiskError, which names the path and the fix, and leaves no temporary file behind.
    """
    with replace_file(path) as file:
        file.write(data)


@contextmanager
def replace_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write in parts that replaces ``path`` at the end, as :func:`replace_bytes` does.

    If the block raises, ``path`` keeps its content.
    """
    temporary = path.with_name(f".{os.getpid()}-{secrets.token_hex(6)}.tmp")
    try:
        with disk_errors("write", path):
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            _sync_folder(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that becomes ``path`` at the end of the block; nothing is left if the block raises.

    Raises UsageError if ``path`` exists, and DiskError, which names it.
    """
    if path.exists():
        raise UsageError(f"{path} exists; name a new folder, or remove it")
    with disk_errors("write", path):
        work = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.absolute().parent))
        try:
            yield work
            work.chmod(0o755)
            work.rename(path)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return  # folders cannot be opened on Windows, where a rename is durable anyway
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems do not support it
            raise
    finally:
        os.close(handle)


@contextmanager
def disk_errors(action: str, path: Path) -> Iterator[None]:
    """Convert an OSError to a DiskError: ``cannot {action} {path}``, the reason and the fix."""
    fixes = {
        errno.ENOSPC: "free some space, then run the same command again",
        errno.EDQUOT: "free some space, then run the same command again",
        errno.EACCES: "change its permissions or choose another folder",
        errno.EPERM: "change its permissions or choose another folder",
        errno.EROFS: "choose a folder on a disk that is not read-only",
    }
    try:
        yield
    except OSError as error:
        fix = fixes.get(error.errno or 0, "check the disk or choose another folder")
        raise DiskError(f"cannot {action} {path}: {error.strerror or error}; {fix}") from error


def file_sha256(path: Path) -> str:
    """SHA-256 digest of a file, in hexadecimal, read in blocks. Raises OSError."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256(data: bytes) -> str:
    """SHA-256 digest of bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
