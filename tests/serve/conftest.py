"""Two indexes, and the page of `hashzoo serve` over them, made once."""

from __future__ import annotations

import io
import socket
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image
from sklearn.datasets import load_digits

from tests.measured import cell_of

MOST = 1 << 20  # bytes of a request


def png(row: int) -> bytes:
    """A digit as a file."""
    buffer = io.BytesIO()
    Image.fromarray((load_digits().images[row] * 15).astype("uint8")).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """A folder with an index of two hundred digits by each of two methods."""
    from hashzoo import load_encoder
    from hashzoo.retrieval import code_file
    from hashzoo.retrieval.image_index import build

    folder = tmp_path_factory.mktemp("serve")
    for row, digit in enumerate(load_digits().target[:200]):
        (folder / "pictures" / str(digit)).mkdir(parents=True, exist_ok=True)
        (folder / "pictures" / str(digit) / f"{row}.png").write_bytes(png(row))
    for method, backbone in (("itq", "pixels"), ("dhn", "tiny")):
        cell = cell_of(folder / "r", method, backbone=backbone, train={"epochs": 10, "batch": 50, "lr": 3e-3})
        stored, skipped = build(load_encoder(cell), [folder / "pictures"])
        assert not skipped
        code_file.write(folder / f"{method}.index", stored)
    return folder


@contextmanager
def served(paths, limits):
    """A server of indexes; the port."""
    import uvicorn

    from hashzoo.serve.app import application
    from hashzoo.serve.served_index import ServedIndex

    indexes = {path.stem: ServedIndex(path) for path in paths}
    server = uvicorn.Server(uvicorn.Config(application(indexes, limits), log_level="error"))
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


@pytest.fixture(scope="session")
def port(made):
    """Where the page listens."""
    from hashzoo.serve.guard import Limits

    with served([made / "itq.index", made / "dhn.index"], Limits(["photos.example"], MOST)) as number:
        yield number
