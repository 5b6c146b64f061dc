"""What holds for the whole tree."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from hashzoo import hookspecs
from hashzoo.bench.benchmark_file import read, shipped
from hashzoo.registry import zoo
from hashzoo.registry.source import _collect, code_digest

ROOT = Path(__file__).parents[2]


def test_the_core_names_no_method():
    house = zoo.load_plugins()
    words = {name for kind in ("methods", "datasets") for name in getattr(house, kind)}
    words -= {"chance", "folder", "lists"}  # a word of statistics, and two that any program on files has
    pattern = re.compile(r"(?<![\w.-])(" + "|".join(map(re.escape, sorted(words))) + r")(?![\w-])")
    hits = []
    for file in sorted((ROOT / "hashzoo").glob("*.py")):
        code = re.sub(r'"""[\s\S]*?"""|#.*', "", file.read_text())  # prose may give examples
        hits += [f"{file.name}: {match[0]}" for match in pattern.finditer(code)]
    assert hits == []


def test_no_module_is_longer_than_400_lines():
    files = [*(ROOT / "hashzoo").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")]
    assert [f.name for f in files if len(f.read_text().splitlines()) > 400] == []


def test_every_hook_is_documented_and_used():
    text = (ROOT / "docs" / "plugins.md").read_text()
    hooks = [name for name in dir(hookspecs) if name.startswith("hashzoo_")]
    assert len(hooks) == 8
    house = zoo.load_plugins()
    for name in hooks:
        assert f"`{name}`" in text
        kind = name.removeprefix("hashzoo_")
        assert house.catalogue("trackers" if kind == "finished" else kind)


def test_every_built_in_plugin_loads():
    assert [p for p in zoo.load_plugins().plugins if p.reason] == []


@pytest.mark.parametrize("name", sorted(shipped()))
def test_every_shipped_benchmark_reads(name):
    file = read(name)
    assert file.name == Path(name).name
    assert f"# Command: hashzoo bench {name}" in shipped()[name].read_text()
    for part in file.each():
        assert part.title


BROKEN = {
    "raises": ("raise RuntimeError('at import')", "at import"),
    "exits": ("import sys; sys.exit(4)", "SystemExit"),
    "no_hook": ("x = 1", "it has no hook"),
    "undecorated": ("def hashzoo_methods(): return {}", "decorate hashzoo_methods"),
    "misspelt": ("from hashzoo import hookimpl\n@hookimpl\ndef hashzoo_metods(): return {}", "hashzoo_metods"),
    "repeats": (
        "from hashzoo import hookimpl\n@hookimpl\ndef hashzoo_methods(): return {'itq': list}",
        "both hashzoo and",
    ),
    "wrong_kind": (
        "from hashzoo import hookimpl\n@hookimpl\ndef hashzoo_methods(): return ['itq']",
        "must return a dict",
    ),
    "wrong_name": (
        "from hashzoo import hookimpl\n@hookimpl\ndef hashzoo_methods(): return {'=1+1': list}",
        "a name matches",
    ),
}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_broken_installed_plugin_shows_its_reason_and_the_rest_works(name, tmp_path, monkeypatch):
    code, reason = BROKEN[name]
    (tmp_path / f"stranger_{name}.py").write_text(code)
    about = tmp_path / f"stranger_{name}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: stranger-{name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[hashzoo]\nmine = stranger_{name}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("HASHZOO_PLUGINS")
    house = zoo.load_plugins()
    (found,) = [p for p in house.plugins if p.name.startswith("stranger")]
    assert reason in found.reason
    assert "itq" in house.methods
    assert house.methods["itq"].plugin == "hashzoo"


def test_a_sound_installed_plugin_is_found_and_can_be_turned_off(tmp_path, monkeypatch):
    code = textwrap.dedent("""
        from hashzoo import hookimpl, deep

        @hookimpl
        def hashzoo_methods():
            return {"theirs": deep("linear", "dhn", doc="theirs")}
        """)
    (tmp_path / "stranger_sound.py").write_text(code)
    about = tmp_path / "stranger_sound-2.5.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger-sound\nVersion: 2.5\n")
    (about / "entry_points.txt").write_text("[hashzoo]\nmine = stranger_sound\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "theirs" not in zoo.load_plugins().methods
    monkeypatch.delenv("HASHZOO_PLUGINS")
    entry = zoo.load_plugins().method("theirs")
    assert (entry.plugin, entry.version) == ("stranger-sound:mine", "2.5")


def test_the_code_digest_follows_what_a_plugin_imports_of_its_own_package_and_nothing_else():
    from hashzoo_plugins.shallow.itq import ITQ
    from hashzoo_plugins.shallow.lsh import LSH

    files: dict[str, Path] = {}
    _collect(__import__("hashzoo_plugins.shallow.itq", fromlist=["x"]), files)
    assert set(files) == {"hashzoo_plugins.shallow.itq", "hashzoo_plugins.shallow.projection"}
    assert code_digest(ITQ) != code_digest(LSH)
