"""Exceptions whose message is one line: the problem, where it is, and the fix; statuses of failed cells."""

from __future__ import annotations

import difflib
import signal
import traceback
from collections.abc import Iterable
from pathlib import Path


class HashzooError(Exception):
    """Base class of errors whose message is shown to the user; ``exit_code`` is the exit code of the command."""

    exit_code = 1


class UsageError(HashzooError):
    """The request is invalid: an unknown name, a wrong type, a number of bits below 1 (exit code 2)."""

    exit_code = 2


class UnknownItemError(UsageError):
    """An index has no item of an id.

    Args:
        index: The index, in words.
        item: The id.
        note: What to do, or what was done.
    """

    def __init__(self, index: str, item: str, note: str = "") -> None:
        self.item = item
        super().__init__(f"{index} has no image {printable(item)}{note}")


class EnvironmentFailure(HashzooError):  # noqa: N818 - EnvironmentError is a builtin
    """The environment failed: disk, damaged file, missing device, file of a newer schema (exit code 3)."""

    exit_code = 3


class DiskError(EnvironmentFailure):
    """A read or write failed for lack of space or access. No cell is recorded as failed: it is measured again later."""


def first_line(error: BaseException) -> str:
    """The first line of the message of any exception; the name of its type if the message is empty or raises.

    >>> first_line(KeyError()), first_line(ValueError("so\\nand so"))
    ('KeyError', 'so')
    """
    try:
        return str(error).strip().splitlines()[0]
    except Exception:
        return type(error).__name__


def printable(value: object) -> str:
    """Escape a message, path or name to one printable line.

    Line breaks, terminal control characters and bytes that are not valid UTF-8 are escaped.


    >>> printable("a\\nb \\x1b[2J"), printable("caf\\udce9")
    ('a\\\\nb \\\\x1b[2J', 'caf\\\\xe9')
    """
    return "".join(c if c.isprintable() else _escaped(c) for c in str(value))


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte that is not UTF-8, as Python represents it in file names
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """The message for an unknown name: it suggests the most similar known name, or lists the known ones.

    Args:
        kind: Kind of thing that is named, as "method".
        name: The unknown name.
        known: All known names.

    Returns:
        One line.

    >>> unknown_name("method", "iqt", ["itq", "lsh"])
    "no method 'iqt'; did you mean 'itq'?"
    >>> unknown_name("method", "zebra", ["itq", "lsh"])
    "no method 'zebra'; there are: itq, lsh"
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if near:
        return f"no {kind} {name!r}; did you mean {near[0]!r}?"
    listing = ", ".join(known[:20]) + (f" and {len(known) - 20} more" if len(known) > 20 else "")
    return f"no {kind} {name!r}; there are: {listing or 'none'}"


class NonFiniteError(ArithmeticError):
    """A loss term or a code is NaN or infinite; the status of the cell is ``nan``."""


class ComposeError(UsageError):
    """A head and a loss cannot be composed."""


class EndedError(HashzooError):
    """The processes of a cell ended without a result; ``status`` is that of the cell and the message the reason."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def describe_exit(code: int | None) -> str:
    """Describe how a process ended, from its exit code.

    >>> describe_exit(-9)
    'was ended by SIGKILL; often the system ending a process that takes too much memory'
    >>> describe_exit(3)
    'ended with code 3 and left no result'
    """
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        hint = "; often the system ending a process that takes too much memory" if name == "SIGKILL" else ""
        return f"was ended by {name}{hint}"
    return f"ended with code {code} and left no result"


#: Messages of libraries that run out of memory without raising MemoryError.
_FULL = ("out of memory", "can't allocate memory", "cannot allocate memory", "bad_alloc", "not enough memory")


#: Messages that mean the same only if memory is limited; there can be other reasons for them.
_SHORT = ("could not create a primitive", "can't start new thread", "resource temporarily unavailable")


def status_of(error: BaseException, limited: bool = False) -> tuple[str, str]:
    """The status of a cell whose measurement raised an error, and the reason.

    Args:
        error: The error.
        limited: Whether the memory of the process was limited.

    Returns:
        ``oom``, ``nan``, ``failed`` or the status of an EndedError; and one line.

    >>> status_of(MemoryError())
    ('oom', 'MemoryError')
    >>> status_of(NonFiniteError("loss term 'pair' is nan"))
    ('nan', "loss term 'pair' is nan")
    """
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else ""
    if isinstance(error, EndedError):
        return error.status, text
    if isinstance(error, NonFiniteError):
        return "nan", text
    named = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if isinstance(error, MemoryError) or any(
        sign in str(error).lower() for sign in (*_FULL, *(_SHORT if limited else ()))
    ):
        return "oom", named
    if isinstance(error, HashzooError):
        return "failed", text
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return "failed", named + where
