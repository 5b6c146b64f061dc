"""What strangers bring: a package of their own, data that is damaged or empty; and hashzoo as an installed wheel."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

from tests.cli.command import hashzoo

ROOT = Path(__file__).parents[2]

DATA = textwrap.dedent('''
    import torch
    from hashzoo import Split, Splits, hookimpl
    from hashzoo_plugins.datasets import digits
    from PIL import Image

    class Files(list):
        def __getitem__(self, row):
            if row in (3, 5):
                raise OSError(f"image-{row}.jpg is truncated")
            return super().__getitem__(row)

    def damaged():
        """Digits as PIL images, two of which do not decode."""
        data = digits.small()
        def part(split, kind):
            images = kind(Image.fromarray(p[0].numpy()).convert("RGB") for p in split.images)
            return Split(images, split.labels, split.ids)
        parts = part(data.train, Files), part(data.database, list), part(data.query, list)
        return Splits(*parts, False, data.class_names)

    def empty():
        """Digits without a query."""
        data = digits.small()
        nothing = data.query.take(torch.arange(0))
        return Splits(data.train, data.database, nothing, False, data.class_names)

    @hookimpl
    def hashzoo_datasets():
        return {"mine.damaged": damaged, "mine.empty": empty}
    ''')


def rows(path: Path) -> dict[str, dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return {row["method"]: row for row in csv.DictReader(file)}


def test_a_damaged_image_is_named_and_can_be_skipped_and_an_empty_part_is_refused(tmp_path):
    (tmp_path / "data.py").write_text(DATA)
    common = (
        "bench",
        "digits",
        "--quick",
        "--methods",
        "lsh",
        "--no-baselines",
        "--plugin",
        "data.py",
        "--results",
        "r",
    )
    stopped = hashzoo(*common, "--dataset", "mine.damaged", cwd=tmp_path)
    assert stopped.returncode == 3
    assert "image-3.jpg is truncated" in stopped.stderr
    assert "--on-bad-image skip (2 in total)" in stopped.stderr
    assert len(stopped.stderr.strip().splitlines()) == 1
    skipped = hashzoo(*common, "--dataset", "mine.damaged", "--on-bad-image", "skip", cwd=tmp_path)
    assert skipped.returncode == 0, skipped.stderr
    (cell,) = (tmp_path / "r" / "cells").glob("*.json")
    assert '"bad_pictures":2' in cell.read_text().replace(" ", "")
    refused = hashzoo(*common, "--dataset", "mine.empty", cwd=tmp_path)
    assert refused.returncode == 2
    assert "the query split of mine.empty is empty" in refused.stderr


def built(folder: Path, source: Path) -> Path:
    """The wheel of a project, made by its own build backend."""
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


def installed(wheel: Path, folder: Path) -> Path:
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(folder),
        str(wheel),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_plugin_package_is_built_installed_and_on_the_board(tmp_path):
    project = tmp_path / "project"
    (project / "agreeable").mkdir(parents=True)
    (project / "pyproject.toml").write_text(
        textwrap.dedent("""
        [build-system]
        requires = ["hatchling"]
        build-backend = "hatchling.build"
        [project]
        name = "agreeable"
        version = "3.1"
        [project.entry-points.hashzoo]
        all = "agreeable"
        """)
    )
    (project / "agreeable" / "__init__.py").write_text(
        "from hashzoo import deep, hookimpl\n\n@hookimpl\ndef hashzoo_methods():\n"
        "    return {'agreeable': deep('norm-tanh', 'dhn', doc='batch-normalised dhn')}\n"
    )
    site = installed(built(tmp_path / "wheels", project), tmp_path / "site")
    result = hashzoo(
        "bench", "digits", "--quick", "--methods", "agreeable", "--results", "r",
        cwd=tmp_path, PYTHONPATH=os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]), HASHZOO_PLUGINS="on",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    found = rows(tmp_path / "r" / "leaderboard.csv")
    assert (found["agreeable"]["plugin"], found["agreeable"]["plugin_version"]) == ("agreeable:all", "3.1")
    assert float(found["agreeable"]["map@all"]) > float(found["itq"]["map@all"])


@pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="needs the checkout")
def test_an_installed_wheel_finds_its_benchmarks_and_plugins(tmp_path):
    wheel = built(tmp_path / "wheels", ROOT)
    names = zipfile.ZipFile(wheel).namelist()
    assert "hashzoo/benchmarks/digits.toml" in names
    assert "hashzoo_plugins/shallow/itq.py" in names
    beside = (
        "report/templates/report.html",
        "report/static/page.js",
        "registry/templates/loss.py.jinja",
        "serve/page.html",
    )
    assert {f"hashzoo/{file}" for file in beside} < {*names}
    assert not [n for n in names if n.startswith(("tests/", "docs/", "results/"))]
    site = installed(wheel, tmp_path / "site")
    result = hashzoo("bench", "digits", "--quick", "--methods", "lsh", "--dry-run", cwd=tmp_path, PYTHONPATH=str(site))
    assert result.returncode == 0, result.stderr
    where = subprocess.run(
        [sys.executable, "-c", "import hashzoo.bench.benchmark_file as b; print(b.shipped()['digits'])"],
        env={**os.environ, "PYTHONPATH": str(site)}, cwd=tmp_path, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert where.strip() == str(site / "hashzoo" / "benchmarks" / "digits.toml")


def test_the_path_of_a_weights_file_is_no_part_of_a_cells_key(tmp_path):
    import torch
    from hashzoo_plugins.backbones.torchvision import build

    from hashzoo.bench.benchmark_file import read
    from hashzoo.bench.plan import plan
    from hashzoo.registry.zoo import load_plugins

    house, keys = load_plugins(), []
    network = build("squeezenet1_1", (3, 8, 8), weights="random").network
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        torch.save(network.state_dict(), tmp_path / folder / "w.pth")
        (tmp_path / folder / "w.pth").write_bytes((tmp_path / "a" / "w.pth").read_bytes())
        file = read("digits")
        name = "torchvision/squeezenet1_1"
        given = {name: {"weights": str(tmp_path / folder / "w.pth"), "allow_missing": ("classifier.*",)}}
        changes = {"methods": ["lsh"], "backbone": name, "backbones": {}, "set": given, "bits": [8]}
        (job,) = plan(file.model_copy(update=changes), house, baselines=False)
        keys.append(job.identity.key)
        assert str(tmp_path) not in job.row.settings
    assert keys[0] == keys[1]
