"""Compiled functions find a folder, or do without one that lasts, where a home or an installation cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import platformdirs
import pytest

from hashzoo.storage.cache import cache_folder
from hashzoo.storage.library_caches import MATPLOTLIB, NUMBA, WEIGHTS, provide_library_caches

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


FOLDERS = {NUMBA: "numba", MATPLOTLIB: "matplotlib"}


@pytest.fixture
def unset(monkeypatch):
    for variable in FOLDERS:
        monkeypatch.setenv(variable, "")
    for variable in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "HASHZOO_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    return monkeypatch


def test_a_home_that_can_be_written_is_left_to_the_libraries(unset, tmp_path):
    unset.setenv("HOME", str(tmp_path))
    provide_library_caches()
    assert [os.environ[variable] for variable in FOLDERS] == ["", ""]


@pytest.mark.parametrize("home", [NOWHERE, "/dev/null", "/etc/passwd/x/y"])
def test_without_a_home_the_cache_folder_of_hashzoo_is_used(unset, tmp_path, home):
    unset.setenv("HOME", home)
    unset.setenv("HASHZOO_CACHE", str(tmp_path / "cache"))
    provide_library_caches()
    for variable, name in FOLDERS.items():
        assert os.environ[variable] == str(tmp_path / "cache" / name)


def test_weights_are_downloaded_below_the_cache_folder_where_the_home_cannot_be_written(unset, tmp_path):
    unset.setenv("HOME", NOWHERE)
    unset.setenv("HASHZOO_CACHE", str(tmp_path / "cache"))
    for variable in WEIGHTS:
        unset.setenv(variable, "")
    provide_library_caches()
    assert {name: os.environ[name] for name in WEIGHTS} == {
        "TORCH_HOME": str(tmp_path / "cache" / "torch"),
        "HF_HOME": str(tmp_path / "cache" / "huggingface"),
    }


def test_weights_of_a_home_that_exists_stay_where_they_are(unset, tmp_path):
    unset.setenv("HOME", str(tmp_path))
    unset.setattr(os, "access", lambda path, mode: False)  # read-only, as in an image with weights
    for variable, name in WEIGHTS.items():
        unset.setenv(variable, "")
        (tmp_path / ".cache" / name).mkdir(parents=True)
    provide_library_caches()
    assert [os.environ[variable] for variable in WEIGHTS] == ["", ""]


@pytest.mark.parametrize("variable", FOLDERS)
def test_a_folder_that_the_user_names_is_kept(unset, variable):
    unset.setenv("HOME", NOWHERE)
    unset.setenv(variable, "/somewhere")
    provide_library_caches()
    assert os.environ[variable] == "/somewhere"


def test_a_home_that_must_not_be_looked_at_is_not_written(unset, tmp_path):
    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    unset.setenv("HOME", str(tmp_path / "other"))
    unset.setenv("HASHZOO_CACHE", str(tmp_path / "cache"))
    unset.setattr(os, "access", lambda path, mode: tmp_path / "other" not in (Path(path), *Path(path).parents))
    (tmp_path / "other").mkdir()
    unset.setattr(Path, "exists", denied)  # as for a folder in one that the user cannot enter
    provide_library_caches()
    assert os.environ[NUMBA] == str(tmp_path / "cache" / "numba")


@pytest.mark.skipif(sys.platform == "win32", reason="the home folder is not HOME")
@pytest.mark.parametrize("raises", [True, False])
def test_a_user_id_without_a_home_folder_has_that_of_docker(unset, raises):
    def without_home(*_names, **_options):
        if raises:
            raise RuntimeError("could not determine the home directory")
        return "~/.cache/hashzoo"  # of an older platformdirs

    unset.setattr(platformdirs, "user_cache_dir", without_home)
    assert cache_folder() == Path("/.cache/hashzoo")


def test_the_cache_folder_expands_the_home_folder(unset, tmp_path):
    unset.setenv("HOME", str(tmp_path))
    unset.setenv("HASHZOO_CACHE", "~/mine")
    assert cache_folder() == tmp_path / "mine"


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
