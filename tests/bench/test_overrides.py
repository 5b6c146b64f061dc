"""What the command line replaces in a benchmark file, and the settings of the file that are left."""

from __future__ import annotations

import pytest

from hashzoo.bench.benchmark_file import Benchmark, Quick, read, shipped
from hashzoo.bench.overrides import Overrides
from hashzoo.bench.plan import _check_settings
from hashzoo.errors import UsageError
from hashzoo.registry.zoo import load_plugins

HOUSE = load_plugins()
FILE = Benchmark(
    name="mine",
    dataset="digits.small",
    methods=["dhn", "tanh+dhn", "lsh"],
    backbone="torchvision/mobilenet_v2",
    set={
        "torchvision/mobilenet_v2": {"size": 32},
        "dhn": {"weight": 0.2},
        "tanh+dhn": {"weight": 0.3},
        "digits.small": {"seed": 1},
        "folder": {"size": 16},
    },
)


def changed(file: Benchmark = FILE, **given) -> tuple[Benchmark, list[str]]:
    notes: list[str] = []
    ((part, _),) = Overrides(**given).apply(file, HOUSE, notes.append)
    return part, notes


@pytest.mark.parametrize(
    ("given", "ignored"),
    [
        ({"backbone": "tiny"}, ["torchvision/mobilenet_v2"]),
        ({"methods": ["lsh"]}, []),  # that a method is left out is no news
        ({"datasets": ["digits.standard"]}, ["digits.small"]),
        ({"datasets": ["folder"]}, ["digits.small"]),
        ({}, []),
    ],
)
def test_settings_of_a_replaced_part_are_ignored_in_one_line(given, ignored):
    part, notes = changed(**given)
    line = "mine: settings of the file for parts that are not used here are ignored: "
    assert notes == ([line + ", ".join(ignored)] if ignored else [])
    assert not set(ignored) & part.set.keys()
    _check_settings(part, HOUSE, {name: HOUSE.method(name) for name in part.methods})


def test_a_misspelled_name_in_a_file_is_still_refused():
    file = FILE.model_copy(update={"set": {"torchvision/mobilenet_v3": {"size": 32}}})
    part, notes = changed(file, backbone="tiny")
    assert notes == []
    with pytest.raises(UsageError, match="torchvision/mobilenet_v3"):
        _check_settings(part, HOUSE, {})


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            {"backbone": "tiny", "settings": {"torchvision/mobilenet_v2": {"size": 64}}},
            "uses tiny; .* change --backbone",
        ),
        ({"settings": {"pixels": {}}}, "uses torchvision/mobilenet_v2; .* change --backbone"),
        (
            {"quick": True, "settings": {"digits.small": {"seed": 2}}},
            "with --quick, .* uses digits.standard; .* --quick",
        ),
        ({"quick": True, "datasets": ["folder"], "settings": {"digits.small": {}}}, "uses folder; .* change --dataset"),
        ({"settings": {"folder": {"size": 8}}}, "uses digits.small; .* change --dataset"),
    ],
)
def test_settings_on_the_command_line_for_a_dataset_or_backbone_that_is_not_used_are_refused(given, says):
    file = FILE.model_copy(update={"quick": Quick(dataset="digits.standard")})
    with pytest.raises(UsageError, match=rf"^settings for the \w+ {next(iter(given['settings']))} change .*{says}$"):
        changed(file, **given)


def test_settings_on_the_command_line_for_a_method_that_is_left_out_are_accepted():
    part, _ = changed(methods=["lsh"], settings={"dhn": {"weight": 0.3}})
    assert part.set["dhn"] == {"weight": 0.3}


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_benchmark_takes_another_backbone_and_trains_all_of_it(name):
    file = read(name)
    for part, _ in Overrides(backbone="torchvision/resnet50", settings={"train": {"backbone": "full"}}).apply(
        file, HOUSE
    ):
        assert part.train.backbone == "full"
        methods = {one: HOUSE.method(one) for one in HOUSE.match_methods([*part.baselines, *part.methods])}
        _check_settings(part, HOUSE, methods)
        assert {part.backbone_for(one, entry.card.kind) for one, entry in methods.items()} == {"torchvision/resnet50"}
