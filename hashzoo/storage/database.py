"""SQLite databases in write-ahead mode: opened to read or to write, with errors of one line; conditions in SQL."""

from __future__ import annotations

import os
import re
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from hashzoo.errors import DiskError, EnvironmentFailure, UsageError

BUSY_SECONDS = 60.0  # that a step of one connection waits for another one
CONDITION_SECONDS = 10.0  # that a condition may take
CONDITION_BYTES = 1 << 20  # of a value that a condition computes
STEPS = 1000  # of SQLite's machine between two looks at the clock

#: What a condition may call: nothing that reads files, loads code, or makes long values.
FUNCTIONS = frozenset(
    (
        *(
            "abs",
            "coalesce",
            "date",
            "datetime",
            "glob",
            "ifnull",
            "iif",
            "instr",
            "julianday",
            "length",
            "like",
            "lower",
        ),
        *("ltrim", "max", "min", "nullif", "round", "rtrim", "sign", "strftime", "substr", "substring", "time", "trim"),
        *("typeof", "unixepoch", "upper"),
    )
)

_FIXES = {
    "SQLITE_FULL": "free some space, then run the same command again",
    "SQLITE_READONLY": "change its permissions or choose another folder",
    "SQLITE_PERM": "change its permissions or choose another folder",
    "SQLITE_CANTOPEN": "change its permissions or choose another folder",
    "SQLITE_IOERR": "check the disk or choose another folder",
    "SQLITE_BUSY": "another process holds it; try again later",
    "SQLITE_LOCKED": "another process holds it; try again later",
}


@contextmanager
def database_errors(action: str, path: Path) -> Iterator[None]:
    """Convert an error of SQLite to one of hashzoo: the path, the reason and the fix.

    Raises DiskError for a disk that fails, and EnvironmentFailure for a damaged database.
    """
    try:
        yield
    except sqlite3.Error as error:
        name = str(getattr(error, "sqlite_errorname", ""))
        fix = next((text for start, text in _FIXES.items() if name.startswith(start)), None)
        if fix is not None:
            raise DiskError(f"cannot {action} {path}: {error}; {fix}") from error
        raise EnvironmentFailure(f"{path} is damaged ({error}); restore it from a copy, or build it again") from error


def open_writable(path: Path) -> sqlite3.Connection:
    """A connection that writes, and begins its transactions by itself. The file is created if there is none."""
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def open_readable(path: Path) -> sqlite3.Connection:
    """A connection that reads only, usable from any thread.

    In a folder that cannot be written, SQLite cannot create the files that readers and writers share. Without a
    write-ahead log, the file is then read as one that does not change.
    """
    address = "file:" + quote(os.path.abspath(path).replace(os.sep, "/")) + "?mode=ro"  # noqa: PTH100 - links stay
    log = path.with_name(path.name + "-wal")
    for more in ("", "&immutable=1"):
        connection = sqlite3.connect(
            address + more, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            return connection
        except sqlite3.OperationalError as error:
            connection.close()
            unshared = getattr(error, "sqlite_errorname", "").startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY"))
            if more or not unshared or (log.exists() and log.stat().st_size):
                raise
    raise AssertionError("not reached")


def select_where(connection: sqlite3.Connection, key: str, table: str, condition: str) -> list[int]:
    """The keys of the rows of a table that meet a condition, in their order.

    The condition is one expression of SQL. It can read the columns of this table and call harmless functions; it cannot
    contain a query or a second statement, and it is ended after ``CONDITION_SECONDS``.

    Args:
        connection: A connection that reads, whose authorizer and limits are changed meanwhile.
        key: An integer column of the table.
        table: The table.
        condition: The expression.

    Raises:
        UsageError: If the condition is none, is not permitted, or takes too long.
    """
    columns = [str(row[1]) for row in connection.execute(f"PRAGMA table_info({table})")]
    problem = _problem(condition, columns)
    if problem:
        raise UsageError(f"the condition {condition!r} {problem}")
    end, selects = time.monotonic() + CONDITION_SECONDS, 0

    def authorize(action: int, first: str | None, second: str | None, *_: str | None) -> int:
        nonlocal selects
        selects += action == sqlite3.SQLITE_SELECT
        allowed = (
            (action == sqlite3.SQLITE_SELECT and selects == 1)
            or (action == sqlite3.SQLITE_READ and first == table)
            or (action == sqlite3.SQLITE_FUNCTION and str(second).lower() in FUNCTIONS)
        )
        return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY

    former = connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, CONDITION_BYTES)
    connection.set_authorizer(authorize)
    connection.set_progress_handler(lambda: int(time.monotonic() > end), STEPS)
    try:
        # not executed with arguments: a condition has none, and a question mark in it is an error
        found = connection.execute(f"SELECT {key} FROM {table} WHERE ({condition}\n) ORDER BY {key}")
        return [int(row[0]) for row in found]
    except (sqlite3.Error, sqlite3.Warning) as error:
        # columns of the index itself begin with an underscore
        known = ", ".join(column for column in columns if not column.startswith("_"))
        reason = f"takes more than {CONDITION_SECONDS:g} s" if "interrupted" in str(error) else f"fails: {error}"
        raise UsageError(
            f"the condition {condition!r} {reason}; write one expression of the columns {known}"
        ) from error
    finally:
        connection.set_progress_handler(None, 0)
        connection.set_authorizer(None)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, former)


_QUOTED = re.compile(r"'(?:[^']|'')*'|\"((?:[^\"]|\"\")*)\"|`((?:[^`]|``)*)`|\[([^\]]*)\]")


def _problem(condition: str, columns: Sequence[str]) -> str:
    """Why a text is not one expression; empty if it can be one.

    >>> _problem("year > 2020 AND place LIKE 'a;b%'", ["year", "place"])
    ''
    >>> _problem("1) OR (1", []), _problem("yeer > 1; DROP TABLE a", [])
    ('has a parenthesis too many', "contains ';', which only a text in quotes can")
    >>> _problem('"yeer" > 1', ["year"])
    'names the column "yeer", which does not exist'
    """
    if not condition.strip() or "\0" in condition:
        return "is empty; write an expression such as year > 2020"
    for match in _QUOTED.finditer(condition):
        name = next((text for text in match.groups() if text is not None), None)
        # SQLite reads a name in double quotes as text if there is no such column
        if name is not None and name.lower() not in [column.lower() for column in columns]:
            return f'names the column "{name}", which does not exist'
    plain = _QUOTED.sub(" ", condition)
    for sign in (";", "--", "/*", "'", '"', "`", "["):
        if sign in plain:
            return f"contains {sign!r}, which only a text in quotes can"
    if re.search(r"\b(select|with|values)\b", plain, re.I):
        return "contains a query"
    depth = 0
    for sign in plain:
        depth += (sign == "(") - (sign == ")")
        if depth < 0:
            return "has a parenthesis too many"
    return "has a parenthesis that is not closed" if depth else ""
