"""Codes, and PostgreSQL servers."""

from __future__ import annotations

import pytest

from hashzoo.retrieval import code_file
from tests.export.postgresql_server import SERVERS, serve
from tests.export.stored import made_codes


@pytest.fixture(scope="module")
def kept():
    return made_codes()


@pytest.fixture(scope="module")
def index(kept, tmp_path_factory):
    file = tmp_path_factory.mktemp("kept") / "my.index"
    code_file.write(file, kept)
    return file


@pytest.fixture(scope="module", params=SERVERS or [None], ids=lambda folder: folder and folder.parent.name)
def psql(request):
    """Runs SQL on a PostgreSQL server of its own, on a socket in a folder of its own; gives the lines it prints."""
    with serve(request.param) as run:
        yield run
