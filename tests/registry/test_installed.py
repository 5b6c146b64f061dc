"""Digests of installed code that are kept between commands."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hashzoo.registry import zoo
from hashzoo.registry.installed import _cache_file, installed_code

PAIR = ("itq", "pixels")

PLUGIN = """
import hashzoo


def loss(setting, *, weight=0.5):
    return None


@hashzoo.hookimpl
def hashzoo_methods():
    return {"mine": hashzoo.deep("tanh", loss)}
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HASHZOO_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def loads(monkeypatch):
    """How often plugins are loaded."""
    counted, load = [], zoo.load_plugins
    monkeypatch.setattr(zoo, "load_plugins", lambda *given: counted.append(given) or load(*given))
    return counted


def test_digests_are_those_of_the_zoo_and_none_for_what_is_not_installed(loads):
    found = installed_code()([PAIR, ("itq", "gone"), ("gone", "pixels"), ("linear+dhn", "torchvision/resnet18")])
    assert found == zoo.load_plugins().code_digests(found)
    assert [digest is None for digest in found.values()] == [False, True, True, False]


def test_plugins_are_loaded_for_new_pairs_alone(loads):
    first = installed_code()([PAIR])
    assert installed_code()([PAIR]) == first
    assert len(loads) == 1
    assert installed_code()([PAIR, ("lsh", "pixels")]).items() > first.items()
    assert len(loads) == 2
    assert installed_code()([("lsh", "pixels"), PAIR]).items() > first.items()
    assert len(loads) == 2


def test_a_changed_plugin_has_another_digest(loads, tmp_path):
    file, pair = tmp_path / "mine.py", ("mine", "pixels")
    file.write_text(PLUGIN)
    assert installed_code()([pair])[pair] is None
    was = installed_code([str(file)])([pair])[pair]
    assert was is not None
    file.write_text(PLUGIN.replace("0.5", "0.25"))
    now = installed_code([str(file)])([pair])[pair]
    assert now not in (None, was)
    assert len(loads) == 3


@pytest.mark.parametrize("content", ["", "{", "[]", '{"state": 1}', '{"state": "x", "digests": 3}'])
def test_a_damaged_cache_is_written_again(loads, content):
    installed_code()([PAIR])
    was = _cache_file().read_text()
    _cache_file().write_text(content)
    installed_code()([PAIR])
    assert json.loads(_cache_file().read_text()) == json.loads(was)
    _cache_file().write_text(json.dumps(json.loads(was) | {"digests": [[1]]}))
    installed_code()([PAIR])
    assert _cache_file().read_text() == was


def test_a_cache_that_cannot_be_written_is_done_without(loads, tmp_path):
    (tmp_path / "cache").write_text("a file")
    assert installed_code()([PAIR]) == installed_code()([PAIR])
    assert len(loads) == 2


def test_a_board_is_shown_without_torch_once_the_digests_are_known(tmp_path):
    board = str(Path(__file__).parents[2] / "results" / "cifar10-tuned")
    code = f"""
import sys
from hashzoo.cli.main import main
sys.argv[1:] = ["show", {board!r}]
try:
    main()
finally:
    print("torch" in sys.modules)
"""
    ends = []
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        ends.append(done.stdout.split()[-1])
    assert ends == ["True", "False"]
