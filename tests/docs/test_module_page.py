"""The page of modules lists every module of the core with what it holds."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def module_page():
    spec = importlib.util.spec_from_file_location("module_page", ROOT / "docs" / "module_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_module_is_listed_once_with_what_it_holds(tmp_path):
    page, core = module_page(), ROOT / "hashzoo"
    page.write(core, tmp_path / "modules.md", page.rooms(ROOT / "docs" / "architecture.md"))
    rows = re.findall(r"^\| `(\w+\.py)` \| (.+) \|$", (tmp_path / "modules.md").read_text(), re.MULTILINE)
    files = [f for f in core.rglob("*.py") if not f.name.startswith("_") and f.parent.name != "templates"]
    assert sorted(name for name, _ in rows) == sorted(file.name for file in files)
    assert len(rows) > 90
    assert all(len(holds) > 20 for _, holds in rows)


def test_a_module_without_a_docstring_is_seen(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "__init__.py").write_text('"""Holds things."""')
    (tmp_path / "a" / "b.py").write_text("x = 1")
    module_page().write(tmp_path, tmp_path / "m.md", ["a"])
    assert "| `b.py` |  |" in (tmp_path / "m.md").read_text()
