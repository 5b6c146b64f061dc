"""The lock and the transaction of an index folder: one writer at a time, whose changes take effect together."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import filelock

from hashzoo.errors import EnvironmentFailure, UsageError, printable
from hashzoo.retrieval.index_snapshot import DATABASE, ENCODER, LOCK, SEGMENTS, check_folder, is_folder, read_about
from hashzoo.retrieval.index_writer import IndexWriter
from hashzoo.storage.database import database_errors, open_writable
from hashzoo.storage.files import disk_errors


@contextmanager
def writing(path: Path, wait: float = 0.0) -> Iterator[IndexWriter]:
    """Change an index folder. All changes take effect when the block ends, or none if it raises.

    Args:
        path: The folder.
        wait: Seconds to wait for another writer.

    Yields:
        The writer.

    Raises:
        UsageError: If there is no index.
        EnvironmentFailure: If another process is changing the index, or the disk fails.
    """
    check_folder(path)
    with _locked(path, wait), _connection(path) as connection:
        with database_errors("read", path / DATABASE):
            metadata, _ = read_about(connection, path)
        yield from _committed(IndexWriter(path, connection, metadata))


@contextmanager
def new_folder(path: Path) -> Iterator[None]:
    """A folder to create an index in, locked; it is deleted again if the block raises.

    Raises UsageError if the path exists, unless it is empty, or what a process left that ended while it created an
    index.
    """
    taken = UsageError(
        f"{printable(path)} exists; change it with hashzoo index update, delete it, or name another path"
    )
    ours = (DATABASE, SEGMENTS, LOCK, ENCODER.removesuffix("json"), ".")
    if path.exists() and not (path.is_dir() and all(entry.name.startswith(ours) for entry in path.iterdir())):
        raise taken
    with disk_errors("create", path):
        (path / SEGMENTS).mkdir(parents=True, exist_ok=True)
    with _locked(path):
        if is_folder(path) and _is_complete(path):
            raise taken
        try:
            yield
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise


@contextmanager
def creating(path: Path, metadata: Mapping[str, Any]) -> Iterator[IndexWriter]:
    """Create the index in a new folder; its content takes effect when the block ends.

    Args:
        path: The folder, inside :func:`new_folder`.
        metadata: The description of what encodes queries, with ``codes`` and ``root``.

    Yields:
        The writer.

    Raises:
        EnvironmentFailure: If the disk fails.
    """
    with _connection(path) as connection:
        writer = IndexWriter(path, connection, dict(metadata))
        with database_errors("write", path / DATABASE):
            writer.create_tables()
        yield from _committed(writer)


def _committed(writer: IndexWriter) -> Iterator[IndexWriter]:
    """The writer; afterwards, its changes are committed, or rolled back if the block raised."""
    try:
        with database_errors("write", writer.path / DATABASE):
            yield writer
            writer.commit()
    except BaseException:
        writer.roll_back()
        raise


@contextmanager
def _locked(path: Path, wait: float = 0.0) -> Iterator[None]:
    """Hold the lock of an index folder. The system releases it when the process ends, in whatever way.

    Raises EnvironmentFailure if another process holds it.
    """
    lock = filelock.FileLock(path / LOCK, timeout=wait)
    with disk_errors("write", path / LOCK):
        try:
            lock.acquire()
        except filelock.Timeout:
            raise EnvironmentFailure(
                f"another process is changing {printable(path)}; wait for it with --wait SECONDS, or try again later"
            ) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _connection(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that writes. At the end, the write-ahead log is moved into the database if no reader needs it."""
    with database_errors("write", path / DATABASE):
        connection = open_writable(path / DATABASE)
    try:
        yield connection
    finally:
        with suppress(sqlite3.Error):  # a full disk: the next connection does it
            connection.execute("PRAGMA busy_timeout = 0")  # does not wait for a reader of a former state
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with suppress(sqlite3.Error):
            connection.close()


def _is_complete(path: Path) -> bool:
    """Whether the creation of an index was committed."""
    with database_errors("read", path / DATABASE), _connection(path) as connection:
        return connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'about'").fetchone() is not None
