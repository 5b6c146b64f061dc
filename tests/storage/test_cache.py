"""The cache folder: HASHZOO_CACHE, else the platform's."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hashzoo.storage.cache import cache_folder


def test_the_environment_variable_comes_first(monkeypatch, tmp_path):
    monkeypatch.setenv("HASHZOO_CACHE", str(tmp_path / "cache"))
    assert cache_folder() == tmp_path / "cache"


@pytest.mark.skipif(sys.platform == "win32", reason="the home folder is not HOME")
def test_the_default_folders_are_those_of_earlier_versions(monkeypatch, tmp_path):
    monkeypatch.delenv("HASHZOO_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    usual = Path("Library/Caches") if sys.platform == "darwin" else Path(".cache")
    assert cache_folder() == tmp_path / usual / "hashzoo"
    if sys.platform != "darwin":
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert cache_folder() == tmp_path / "xdg" / "hashzoo"
