"""How a cell can end: the status and the reason of what was raised, or of a process that is no more."""

from __future__ import annotations

import signal
import traceback
from pathlib import Path

from hashzoo.errors import HashzooError
from hashzoo.method import NonFiniteError


class EndedError(HashzooError):
    """What became of a cell whose processes ended: a status, and the message is the reason."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def how(code: int | None) -> str:
    """How a process ended, by its exit code.

    >>> how(-9)
    'was ended by SIGKILL; often the system ending a process that takes too much memory'
    >>> how(3)
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
