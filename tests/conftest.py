"""What every test gets: a cache of its own, and no plugins but the built-in ones. Some get a browser."""

from __future__ import annotations

import pytest

from tests import browsing


@pytest.fixture(autouse=True)
def _own_surroundings(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("HASHZOO_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("HASHZOO_PLUGINS", "off")


@pytest.fixture(scope="session")
def browser():
    yield from browsing.started()
