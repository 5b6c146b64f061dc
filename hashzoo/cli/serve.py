"""`hashzoo serve`: a local search page. Imports torch and a web framework only when the command runs."""

from __future__ import annotations

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


@click.command()
@click.argument("indexes", nargs=-1, required=True, metavar="MY.index...", type=file_path)
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="0: any free port.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on; there is no password.")
@click.option("--name", "known_as", multiple=True, help="A host name to accept in requests; can be repeated.")
@click.option("--max-upload", type=click.IntRange(1, MOST), default=16, show_default=True, metavar="MIB")
@click.option("--run", type=file_path, metavar="CELL", help="The cell of the index, if it was moved.")
@click.option("--root", type=file_path, metavar="DIR", help="The folder of the images, if it was moved.")
@device_option
@plugin_option
def serve(
    indexes: tuple[Path, ...], port: int, host: str, known_as: tuple[str, ...], max_upload: int, **opening: Any
) -> None:
    """Serve a page on this machine that shows the neighbors of an image, its code and its attention map.

    Results of several indexes are shown side by side. Stop it with Ctrl-C.
    """
    if opening["run"] is not None and len(indexes) > 1:
        raise UsageError("--run applies to one index; name one index, or leave out --run")
    check_root(opening["root"])
    listening = _listening(host, port)
    from PIL import Image

    try:
        import uvicorn

        from hashzoo.serve.app import application
    except ImportError as error:
        raise EnvironmentFailure(f"hashzoo serve needs {error.name}; pip install 'hashzoo[ui]'") from None
    from hashzoo.retrieval.image_index import open_index

    opening["device"] = resolve_device(opening["device"])
    opened = dict(zip(names(indexes), (open_index(file, **opening) for file in indexes), strict=True))
    for index in opened.values():
        index.search(Image.new("RGB", (64, 64)), 1)  # compiles or loads the kernels
    app = application(opened, [host, *LOCAL, *known_as], max_upload << 20)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
    click.echo(f"http://{host}:{listening.getsockname()[1]}  stop with Ctrl-C")
    if host not in LOCAL:
        click.echo("warning: anyone who can reach this address can search and view these images", err=True)
    with suppress(KeyboardInterrupt):
        server.run(sockets=[listening])


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
