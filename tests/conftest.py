"""What every test gets: a cache of its own, and no plugins but the built-in ones. Some get a browser."""

from __future__ import annotations

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # workers whose threads wait for each other's take many times as long
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch and numba start theirs

import pytest

from tests import browsing


def pytest_configure(config):
    """Side by side, files keep their order: by default those of few tests, which may be the longest, come last."""
    if config.pluginmanager.hasplugin("xdist"):
        config.option.loadscopereorder = False


@pytest.fixture(autouse=True)
def _own_surroundings(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("HASHZOO_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("HASHZOO_PLUGINS", "off")


@pytest.fixture(scope="session")
def browser():
    yield from browsing.started()
