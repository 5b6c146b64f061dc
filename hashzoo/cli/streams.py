"""The output streams of a command: characters that they cannot encode, and a pipe whose reader has ended."""

from __future__ import annotations

import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

#: The exit code of a command that SIGPIPE ends, as shells report it.
CLOSED = 141


def replace_unprintable() -> None:
    """Print ``?`` for characters that the encoding of a stream lacks, such as ``±`` in ASCII, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")


@contextmanager
def closed_pipe_is_no_error() -> Iterator[None]:
    """Exit silently with ``CLOSED`` if the reader of the output has ended, as in ``hashzoo list methods | head -1``.

    click and rich turn a write to a closed pipe into exit code 1; and what is still buffered is written when the
    interpreter ends, which would print a traceback.
    """
    handles = dict[int, int]()
    for number in (1, 2):
        with suppress(OSError):  # the stream is closed
            handles[number] = os.dup(number)  # rich replaces the stream itself
    try:
        try:
            yield
        except SystemExit as ended:
            if ended.code == 1 and any(map(_has_no_reader, handles.values())):
                _exit(handles)
            _flush(handles)
            raise
        except BrokenPipeError:
            if not any(map(_has_no_reader, handles.values())):
                raise
            _exit(handles)
        _flush(handles)
    finally:
        for handle in handles.values():
            os.close(handle)


def _flush(handles: dict[int, int]) -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            _exit(handles)
        except (OSError, ValueError, AttributeError):  # closed, or not there: the interpreter reports what matters
            continue


def _exit(handles: dict[int, int]) -> None:
    for number, handle in handles.items():
        if _has_no_reader(handle):
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    sys.exit(CLOSED)


def _has_no_reader(handle: int) -> bool:
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(handle, select.POLLOUT)
    return any(event & select.POLLERR for _, event in poll.poll(0))
