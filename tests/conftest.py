"""What every test gets: a cache of its own, and no plugins but the built-in ones."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _own_surroundings(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("HASHZOO_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("HASHZOO_PLUGINS", "off")
