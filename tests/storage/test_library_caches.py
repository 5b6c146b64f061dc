"""Compiled functions find a folder, or do without one that lasts, where a home or an installation cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from hashzoo.storage.numba_cache import VARIABLE, provide_numba_cache

NOWHERE = "/dev/null/home"  # cannot be created, by root neither
PLUGIN = textwrap.dedent("""
    from numba import njit
    import hashzoo


    @njit(cache=True)
    def one():
        return 1


    class Loss(hashzoo.Loss):
        def forward(self, output, batch):
            return {"x": output.code.square().mean() * one()}


    @hashzoo.hookimpl
    def hashzoo_losses():
        return {"compiled": lambda setting: Loss()}
""")


@pytest.fixture
def unset(monkeypatch):
    monkeypatch.setenv(VARIABLE, "")
    return monkeypatch


def test_a_home_that_can_be_written_is_left_to_numba(unset, tmp_path):
    unset.setenv("HOME", str(tmp_path))
    unset.delenv("XDG_CACHE_HOME", raising=False)
    provide_numba_cache()
    assert os.environ[VARIABLE] == ""


@pytest.mark.parametrize("home", [NOWHERE, "/dev/null", "/etc/passwd/x/y"])
def test_without_a_home_the_cache_folder_of_hashzoo_is_used(unset, tmp_path, home):
    unset.setenv("HOME", home)
    unset.delenv("XDG_CACHE_HOME", raising=False)
    unset.setenv("HASHZOO_CACHE", str(tmp_path / "cache"))
    provide_numba_cache()
    assert os.environ[VARIABLE] == str(tmp_path / "cache" / "numba")


def test_a_folder_that_the_user_names_is_kept(unset):
    unset.setenv("HOME", NOWHERE)
    unset.setenv(VARIABLE, "/somewhere")
    provide_numba_cache()
    assert os.environ[VARIABLE] == "/somewhere"


@pytest.mark.parametrize("cache", ["a folder", "nowhere"])
def test_a_plugin_that_compiles_loads_where_neither_its_folder_nor_the_home_can_be_written(tmp_path, cache):
    (tmp_path / "mine.py").write_text(PLUGIN)
    (tmp_path / "__pycache__").write_text("no folder, so that nothing can be cached beside the source")
    kept = str(tmp_path / "cache") if cache == "a folder" else f"{NOWHERE}/cache"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA", "XDG"))}
    environment |= {"HOME": NOWHERE, "HASHZOO_CACHE": kept, "TMPDIR": str(tmp_path)}
    code = "import sys; from hashzoo.cli.main import main; sys.argv[1:] = ['check', 'mine.py']; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "ok      gradient" in done.stdout
    assert not list(tmp_path.glob("hashzoo-numba-*"))  # the temporary folder is removed
    assert (tmp_path / "cache" / "numba").exists() == (cache == "a folder")


def test_a_plugin_that_did_not_load_is_named_where_no_method_matches():
    from hashzoo.errors import UsageError
    from hashzoo.registry.zoo import Plugin, Zoo

    zoo = Zoo(plugins=[Plugin("broken-package", "1", "x", reason="ImportError: x")])
    for wanted in ("itq", "it*"):
        with pytest.raises(UsageError, match="broken-package did not load: see hashzoo list plugins"):
            zoo.match_methods([wanted])
