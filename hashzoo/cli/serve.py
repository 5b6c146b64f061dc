"""``hashzoo serve``: a local page over indexes. Nothing here imports torch or a web framework before it is needed."""

from __future__ import annotations

import socket
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from hashzoo.cli.options import device_option, insist_on_root, plugin_option
from hashzoo.errors import EnvironmentFailure, UsageError

LOCAL = ("127.0.0.1", "localhost")
MOST = 1024  # MiB of a request


@click.command()
@click.argument("indexes", nargs=-1, required=True, metavar="MY.index...", type=click.Path(path_type=Path))
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="0: any that is free.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at; there is no password.")
@click.option("--name", "known_as", multiple=True, help="A name that it is asked for by; may be repeated.")
@click.option("--max-upload", type=click.IntRange(1, MOST), default=16, show_default=True, metavar="MIB")
@click.option("--run", type=click.Path(path_type=Path), metavar="RUN", help="The cell of the index, if it was moved.")
@click.option("--root", type=click.Path(path_type=Path), metavar="DIR", help="The folder of its images, likewise.")
@device_option
@plugin_option
def serve(
    indexes: tuple[Path, ...], port: int, host: str, known_as: tuple[str, ...], max_upload: int, **opening: Any
) -> None:
    """A page on this machine: drop an image, see its neighbours, its code, and where the method looked.

    Several indexes answer side by side. Stop it with Ctrl-C.
    """
    if opening["run"] is not None and len(indexes) > 1:
        raise UsageError("--run says where the cell of one index is; name one index, or leave it out")
    insist_on_root(opening["root"])
    listening = _listening(host, port)
    from PIL import Image

    try:
        import uvicorn

        from hashzoo.serve.app import application
    except ImportError as error:
        raise EnvironmentFailure(f"hashzoo serve needs {error.name}; pip install 'hashzoo[ui]'") from None
    from hashzoo.retrieval.image_index import open_index

    opened = dict(zip(names(indexes), (open_index(file, **opening) for file in indexes), strict=True))
    for index in opened.values():
        index.search(Image.new("RGB", (64, 64)), 1)  # loads what is compiled
    app = application(opened, [host, *LOCAL, *known_as], max_upload << 20)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
    click.echo(f"http://{host}:{listening.getsockname()[1]}  stop with Ctrl-C")
    if host not in LOCAL:
        click.echo("anybody who reaches this address can search and see these images", err=True)
    with suppress(KeyboardInterrupt):
        server.run(sockets=[listening])


def _listening(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise EnvironmentFailure(
            f"cannot listen at {host}, port {port}: {error.strerror or error}; name another with --port or --host"
        ) from error


def names(files: tuple[Path, ...]) -> list[str]:
    """What to call indexes: their files' names, with their folders where two have one name.

    >>> names((Path("a/itq.index"), Path("b/dhn.index"))), names((Path("a/x.index"), Path("b/x.index")))
    (['itq', 'dhn'], ['a/x.index', 'b/x.index'])
    """
    stems = Counter(file.stem for file in files)
    found = [file.stem if stems[file.stem] == 1 else str(file) for file in files]
    if twice := [name for name, count in Counter(found).items() if count > 1]:
        raise UsageError(f"{twice[0]} is named twice")
    return found
