"""Errors for people: one line that says what was wrong, where, and the cure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HashzooError(Exception):
    """An error whose message is meant for the person at the terminal; ``exit_code`` is what the command returns."""

    exit_code = 1


class UsageError(HashzooError):
    """What was asked for cannot be: an unknown name, a wrong type, bits below one (exit code 2)."""

    exit_code = 2


class TroubleError(HashzooError):
    """The surroundings failed: a disk, a damaged picture, a file of a newer schema (exit code 3)."""

    exit_code = 3


class DiskError(TroubleError):
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


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The line for a name that does not exist, with the nearest that does.

    >>> unknown("method", "iqt", ["itq", "lsh"])
    "no method 'iqt'; did you mean 'itq'?"
    >>> unknown("method", "zebra", ["itq", "lsh"])
    "no method 'zebra'; there are: itq, lsh"
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if near:
        return f"no {kind} {name!r}; did you mean {near[0]!r}?"
    listing = ", ".join(known[:20]) + (f" and {len(known) - 20} more" if len(known) > 20 else "")
    return f"no {kind} {name!r}; there are: {listing or 'none'}"
