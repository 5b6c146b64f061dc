"""Parts of the program that must not use the network: a report is made of what is on this disk."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Audit events that precede any use of the network, also by libraries: https://docs.python.org/3/library/audit_events
_EVENTS = frozenset(
    {
        *("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname"),
        *("urllib.Request", "http.client.connect", "ftplib.connect"),
    }
)
_lock = threading.Lock()
_depth = 0
_has_hook = False


class OfflineError(ConnectionError):
    """The network was used where it must not be."""

    def __init__(self) -> None:
        super().__init__("this command does not use the network")


def is_offline() -> bool:
    """Whether the running command must not use the network; a dataset then reports missing files as an error."""
    return _depth > 0


@contextmanager
def offline() -> Iterator[None]:
    """Refuse any use of the network in this process: it raises OfflineError. Sockets of this machine are allowed."""
    global _depth, _has_hook
    with _lock:
        _depth += 1
        if not _has_hook:  # a hook cannot be removed
            sys.addaudithook(_refuse)
            _has_hook = True
    former = os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = "1"  # read by Hugging Face libraries that are imported from here on
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
        if former is None:
            os.environ.pop("HF_HUB_OFFLINE", None)
        else:
            os.environ["HF_HUB_OFFLINE"] = former


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if _depth and event in _EVENTS:
        source = arguments[0] if arguments else None
        if isinstance(source, socket.socket) and source.family == getattr(socket, "AF_UNIX", None):
            return
        raise OfflineError
