"""The benchmarks that train a network end to end as papers do, which need a GPU: what can be checked without one."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from hashzoo.api import Request, dry_run
from hashzoo.bench.benchmark_file import shipped

FILES = {name: path for name, path in shipped().items() if name.startswith("finetune/")}
HEADS = ("What:", "Command:", "Aims at:", "Needs:", "Time:", "Doubt:")
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "speed" / "finetune_hours.py"


@pytest.fixture(scope="module")
def hours() -> ModuleType:
    spec = importlib.util.spec_from_file_location("finetune_hours", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_is_one_for_each_dataset_and_network():
    datasets = ("cifar10", "imagenet100", "nus-wide-21", "coco")
    assert {*FILES} == {f"finetune/{data}-{network}" for data in datasets for network in ("alexnet", "resnet50")}


@pytest.mark.parametrize("name", FILES)
def test_it_says_what_it_needs_and_its_dry_run_is_complete(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = FILES[name].read_text(encoding="utf-8")
    places = [text.index(f"# {head}") for head in HEADS]
    assert places == sorted(places)
    assert f"hashzoo bench {name} " in text
    done = dry_run(Request(name))
    cells = [cell for preview in done.previews for cell in preview.cells]
    # seeds; methods, baselines and controls, with one more method on data with several labels
    assert len(cells) == 3 * (15 if name.split("/")[1].startswith(("coco", "nus")) else 14)
    assert [cell.refusal for cell in cells if cell.refusal] == []
    assert done.unused == []
    assert all(preview.backbones for preview in done.previews)


@pytest.mark.parametrize("name", FILES)
def test_its_hours_are_those_of_the_script(name, hours):
    lines = " ".join(line.lstrip("# ") for line in FILES[name].read_text(encoding="utf-8").splitlines())
    assert hours.sentence(FILES[name]) in lines


def test_the_flops_of_the_networks_are_those_of_the_literature(hours):
    # multiply-adds of a forward pass at 224 pixels, as torchvision lists them without the last layer
    assert hours.forward_flops("torchvision/resnet50") / 2 == pytest.approx(4.09e9, rel=0.01)
    assert hours.forward_flops("torchvision-fc/alexnet") / 2 == pytest.approx(0.714e9, rel=0.02)
