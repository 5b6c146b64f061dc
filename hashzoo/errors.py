"""Errors for people: one line that says what was wrong, where, and the cure."""

from __future__ import annotations

import difflib
import signal
import traceback
from collections.abc import Iterable
from pathlib import Path


class HashzooError(Exception):
    """An error whose message is meant for the person at the terminal; ``exit_code`` is what the command returns."""

    exit_code = 1


class UsageError(HashzooError):
    """What was asked for cannot be: an unknown name, a wrong type, bits below one (exit code 2)."""

    exit_code = 2


class EnvironmentFailure(HashzooError):  # noqa: N818 - EnvironmentError is a builtin
    """The surroundings failed: a disk, a damaged image, a file of a newer schema (exit code 3)."""

    exit_code = 3


class DiskError(EnvironmentFailure):
    """A disk refused to keep or give something: no cell's fault, which is measured once the disk is as it should be."""


def first_line(error: BaseException) -> str:
    """The first line of what an error of others says; its type where it says nothing, or cannot even say it.

    >>> first_line(KeyError()), first_line(ValueError("so\\nand so"))
    ('KeyError', 'so')
    """
    try:
        return str(error).strip().splitlines()[0]
    except Exception:
        return type(error).__name__


def printable(value: object) -> str:
    """A message, path or name on one line; what breaks lines or steers a terminal is escaped, as are bytes of no text.

    >>> printable("a\\nb \\x1b[2J"), printable("caf\\udce9")
    ('a\\\\nb \\\\x1b[2J', 'caf\\\\xe9')
    """
    return "".join(c if c.isprintable() else _escaped(c) for c in str(value))


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte, as Python holds it in the names of files
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """The line for a name that does not exist, with the nearest that does.

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
    """A loss term or a code that is NaN or infinite; the cell's status becomes ``nan``."""


class ComposeError(UsageError):
    """A head and a loss that cannot be put together."""


class EndedError(HashzooError):
    """What became of a cell whose processes ended: a status, and the message is the reason."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def describe_exit(code: int | None) -> str:
    """How a process ended, by its exit code.

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


#: How libraries say that there is no memory left, where they raise something else than MemoryError.
_FULL = ("out of memory", "can't allocate memory", "cannot allocate memory", "bad_alloc", "not enough memory")


#: What they say where it is short, and may also say for other reasons.
_SHORT = ("could not create a primitive", "can't start new thread", "resource temporarily unavailable")


def status_of(error: BaseException, limited: bool = False) -> tuple[str, str]:
    """The status and the reason of a cell whose measurement raised, with its memory ``limited`` or not.

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
