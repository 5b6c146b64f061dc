"""The backbone of a benchmark where its package is not installed, and boards that keep one backbone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from hashzoo.bench.benchmark_file import Benchmark, read
from hashzoo.bench.fallback import choose_backbone, require_same_backbone
from hashzoo.errors import UsageError
from hashzoo.hookspecs import Outline

FILE = Benchmark.model_validate(
    {
        "name": "own",
        "dataset": "folder",
        "backbone": "network",
        "set": {"folder": {"size": 224, "seed": 1}},
        "fallback": {"backbone": "scattering", "set": {"folder": {"size": 96}}},
    }
)


def lacking(*names):
    missing = {name: f"backbone {name} needs a package; pip install 'hashzoo[weights]'" for name in names}
    return SimpleNamespace(outline=lambda kind, name, values: Outline(missing=missing.get(name, "")))


def chosen(given=None, *missing):
    said = []
    made = choose_backbone(FILE, lacking(*missing), given, said.append)
    return made.backbone, made.set["folder"], said


def cells(*backbones, benchmark="own"):
    return [SimpleNamespace(benchmark=benchmark, identity=SimpleNamespace(backbone=name)) for name in backbones]


def require(measured, planned, *missing):
    identities = [cell.identity for cell in cells(planned)]
    require_same_backbone(FILE, lacking(*missing), Path("board"), measured, identities)


def test_the_backbone_of_the_file_is_used_where_it_is_installed():
    assert chosen() == ("network", {"size": 224, "seed": 1}, [])


def test_the_fallback_is_used_and_named_in_one_line_where_it_is_not():
    line = "backbone network needs a package; pip install 'hashzoo[weights]'; measuring on scattering instead"
    assert chosen(None, "network") == ("scattering", {"size": 96, "seed": 1}, [line])


def test_naming_the_fallback_measures_the_same_cells_on_every_machine():
    assert chosen("scattering") == ("scattering", {"size": 96, "seed": 1}, [])
    assert chosen("another", "network") == ("network", {"size": 224, "seed": 1}, [])  # replaced by the command line


def test_a_board_goes_on_with_the_backbone_that_it_has():
    require([], "network")
    require(cells("network"), "network")
    require(cells("network", "scattering"), "scattering")
    require(cells("network", benchmark="another"), "scattering", "network")
    require(cells("scattering"), "identity")  # vectors have no other
    with pytest.raises(UsageError, match=r"board was measured on network; .* pip install 'hashzoo\[weights\]', or"):
        require(cells("network"), "scattering", "network")
    with pytest.raises(UsageError, match=r"board was measured on scattering.* add --backbone scattering to go on"):
        require(cells("scattering"), "network")


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ('backbone = "a"\n[fallback]\nbackbone = "b"\nbits = [3]', "fallback: no key 'bits'"),
        ('[fallback]\nbackbone = "b"', "fallback needs a backbone of its own, and one of the benchmark"),
        ('backbone = "a"\n[fallback.set.x]\ny = 1', "fallback needs a backbone of its own"),
    ],
)
def test_a_wrong_fallback_is_refused(tmp_path, table, says):
    file = tmp_path / "x.toml"
    file.write_text(f'dataset = "digits.small"\n{table}\n')
    with pytest.raises(UsageError, match=says):
        read(str(file))


@pytest.mark.parametrize("name", ["folder", "cifar10", "cifar10-unseen", "imagenette-longtail", "miml"])
def test_benchmarks_of_photographs_use_the_weights_of_the_package_index(name):
    file = read(name)
    assert (file.backbone, file.fallback["backbone"]) == ("efficientnet-lite0", "scattering")
