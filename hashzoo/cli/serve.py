"""`hashzoo serve`: a local search page. Imports torch and a web framework only when the command runs."""

from __future__ import annotations

import os
import socket
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from hashzoo.cli.options import check_root, device_option, file_path, plugin_option, resolve_device
from hashzoo.errors import EnvironmentFailure, UsageError

LOCAL = ("127.0.0.1", "localhost")
MOST = 1024  # MiB of a request
RATE = 100  # requests a second of one address, unless only this machine can connect
SHORTEST = 16  # characters of a token
GRACE = 30  # seconds for requests in progress when the server stops


@click.command()
@click.argument("indexes", nargs=-1, required=True, metavar="MY.index...", type=file_path)
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="0: any free port.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--token-file", type=file_path, metavar="FILE", help="A file with the token  [default: HASHZOO_TOKEN].")
@click.option("--name", "known_as", multiple=True, help="A host name to accept in requests; can be repeated.")
@click.option("--max-upload", type=click.IntRange(1, MOST), default=16, show_default=True, metavar="MIB")
@click.option(
    "--rate",
    type=click.FloatRange(min=0),
    help=f"Requests a second of one address; 0: any  [default: {RATE}; 0 on 127.0.0.1].",
)
@click.option(
    "--pending", type=click.IntRange(min=1), default=128, show_default=True, help="Requests that can wait at once."
)
@click.option("--run", type=file_path, metavar="CELL", help="The cell of the index, if it was moved.")
@click.option("--root", type=file_path, metavar="DIR", help="The folder of the images, if it was moved.")
@device_option
@plugin_option
def serve(
    indexes: tuple[Path, ...],
    port: int,
    host: str,
    known_as: tuple[str, ...],
    token_file: Path | None,
    **options: Any,
) -> None:
    """Serve indexes: a search page and an API, described by /openapi.json.

    The page shows the neighbors of an image, its code and its attention map, of several indexes side by side. The API
    searches, encodes, and adds and deletes images of index folders. Changes require a token, and so does everything
    unless the server listens on 127.0.0.1. Stop it with Ctrl-C.
    """
    size, rate, pending = (options.pop(name) for name in ("max_upload", "rate", "pending"))
    opening, local, token = options, host in LOCAL, read_token(token_file)
    if opening["run"] is not None and len(indexes) > 1:
        raise UsageError("--run applies to one index; name one index, or leave out --run")
    if not (local or token):
        raise UsageError(f"--host {host} requires a token: name a file with --token-file, or set HASHZOO_TOKEN")
    check_root(opening["root"])
    listening = _listening(host, port)
    from PIL import Image

    try:
        import uvicorn

        from hashzoo.serve.app import application
    except ImportError as error:
        raise EnvironmentFailure(f"hashzoo serve needs {error.name}; pip install 'hashzoo[ui]'") from None
    from hashzoo.serve.guard import Limits
    from hashzoo.serve.served_index import ServedIndex

    opening["device"] = resolve_device(opening["device"])
    opened = dict(zip(names(indexes), (ServedIndex(file, **opening) for file in indexes), strict=True))
    for index in opened.values():
        index.search(index.encode([Image.new("RGB", (64, 64))]), 1)  # compiles or loads the kernels
    rate = rate if rate is not None else 0 if local else RATE
    limits = Limits([host, *LOCAL, *known_as], size << 20, token, private=not local, rate=rate, pending=pending)
    config = uvicorn.Config(
        application(opened, limits), log_level="warning", access_log=False, timeout_graceful_shutdown=GRACE
    )
    server = uvicorn.Server(config)
    click.echo(f"http://{host}:{listening.getsockname()[1]}  stop with Ctrl-C")
    with suppress(KeyboardInterrupt):
        server.run(sockets=[listening])


def read_token(file: Path | None) -> str:
    """The token in a file, or else that of the environment; empty if there is none.

    Raises UsageError if it is short, and EnvironmentFailure if the file cannot be read.
    """
    try:
        token = os.environ.get("HASHZOO_TOKEN", "") if file is None else file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise EnvironmentFailure(f"cannot read {file}: {reason}; name a file with the token") from error
    token = token.strip()
    if (token or file is not None) and (len(token) < SHORTEST or not token.isascii() or not token.isprintable()):
        raise UsageError(
            f"the token of {file or 'HASHZOO_TOKEN'} is not {SHORTEST} or more printable ASCII characters; "
            "make one with openssl rand -hex 32"
        )
    return token


def _listening(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise EnvironmentFailure(
            f"cannot listen on {host}, port {port}: {error.strerror or error}; choose another --port or --host"
        ) from error


def names(files: tuple[Path, ...]) -> list[str]:
    """Names of indexes: the names of their files, or their paths if two files have the same name.

    >>> names((Path("a/itq.index"), Path("b/dhn.index"))), names((Path("a/x.index"), Path("b/x.index")))
    (['itq', 'dhn'], ['a/x.index', 'b/x.index'])
    """
    stems = Counter(file.stem for file in files)
    found = [file.stem if stems[file.stem] == 1 else str(file) for file in files]
    if twice := [name for name, count in Counter(found).items() if count > 1]:
        raise UsageError(f"{twice[0]} is given twice; name each index once")
    return found
