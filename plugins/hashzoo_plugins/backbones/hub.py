"""The client of Hugging Face, from which timm downloads weights: without a network, it fails at once and in one line.

A factory is wrapped when it is registered, since the digest of its module is part of every key of a cell.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from logging import ERROR
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from hashzoo import Backbone, EnvironmentFailure

SECONDS = 10  # to wait for a connection


def with_one_attempt(build: Callable[..., Backbone]) -> Callable[..., Backbone]:
    """A factory whose downloads are not repeated, and not attempted if the server cannot be reached.

    The client repeats each request five times within half a minute, and prints two lines for each. Weights that it has
    downloaded before are used without the server.
    """

    @functools.wraps(build)
    def wrapper(name: str, *arguments: Any, **options: Any) -> Backbone:
        if options.get("weights", "default") != "default":
            return build(name, *arguments, **options)
        with _attempt() as unreachable:
            try:
                return build(name, *arguments, **options)
            except EnvironmentFailure as error:
                if not unreachable:
                    raise
                raise EnvironmentFailure(
                    f"cannot download the weights of timm/{name}: {unreachable}; "
                    f"use --set timm/{name}.weights=FILE or weights=random"
                ) from error

    return wrapper


@contextmanager
def _attempt() -> Iterator[str]:
    """Set the client to print no warnings, and to use only its cache if the server cannot be reached, which is said."""
    try:
        from huggingface_hub import constants
        from huggingface_hub.utils import logging
    except ImportError:  # an old version of timm
        yield ""
        return
    offline, verbosity = constants.HF_HUB_OFFLINE, logging.get_verbosity()
    unreachable = "" if offline else _unreachable(constants.ENDPOINT)
    logging.set_verbosity(ERROR)
    constants.HF_HUB_OFFLINE = offline or bool(unreachable)
    try:
        yield unreachable
    finally:
        constants.HF_HUB_OFFLINE = offline
        logging.set_verbosity(verbosity)


def _unreachable(address: str) -> str:
    """Why the server of an address cannot be reached, or an empty text; a proxy is not asked."""
    parts = urlsplit(address)
    if getproxies():
        return ""
    try:
        socket.create_connection((parts.hostname or "", parts.port or 443), SECONDS).close()
    except OSError as error:
        return f"{parts.hostname} cannot be reached ({error.strerror or error})"
    return ""
