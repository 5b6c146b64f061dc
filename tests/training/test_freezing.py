"""Stages of a network that are not trained."""

from __future__ import annotations

import pytest
import torch
from hashzoo_plugins.backbones import torchvision
from hashzoo_plugins.backbones.tiny import Tiny
from torch import nn

from hashzoo.bench.benchmark_file import Benchmark
from hashzoo.bench.measure import measure
from hashzoo.bench.plan import plan
from hashzoo.errors import UsageError
from hashzoo.registry import zoo
from hashzoo.training.freezing import freeze_stages


@pytest.mark.parametrize(
    ("name", "count", "first_trained"),
    [
        ("resnet18", 1, "layer1.0.conv1.weight"),
        ("resnet18", 2, "layer2.0.conv1.weight"),
        ("resnet18", 4, "layer4.0.conv1.weight"),
        ("squeezenet1_1", 1, "features.3.squeeze.weight"),
        ("mobilenet_v2", 2, "features.4.conv.0.0.weight"),
    ],
)
def test_stages_of_networks_end_where_their_blocks_do(name, count, first_trained):
    network = torchvision.build(name, (3, 32, 32), weights="random").network
    freeze_stages(network, count, torch.zeros(1, 3, 64, 64))
    states = [(key, parameter.requires_grad) for key, parameter in network.named_parameters()]
    trained = [key for key, grad in states if grad]
    assert trained[0] == first_trained
    assert [grad for _, grad in states] == sorted(grad for _, grad in states)  # frozen ones first, in order


def test_frozen_layers_keep_parameters_and_statistics_while_the_others_learn():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 2, 2), nn.BatchNorm2d(2), nn.Flatten()
    )
    assert freeze_stages(network, 1, torch.zeros(1, 1, 4, 4)) == ["0", "1"]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    network.train()
    network(torch.randn(8, 1, 4, 4)).square().mean().backward()
    optimizer.step()
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.partition(".")[0] for name in changed} == {"2", "3"}


def test_a_network_with_too_few_stages_is_named_with_their_number():
    with pytest.raises(UsageError, match=r"freeze = 'stages:9' needs a backbone with more than 9 .*; this one has \d"):
        freeze_stages(Tiny((1, 8, 8)), 9, torch.zeros(1, 1, 8, 8))


def test_the_budget_freezes_stages_of_a_cell(monkeypatch):
    frozen = []
    monkeypatch.setattr("hashzoo.bench.measure.freeze_stages", lambda *given: frozen.extend(freeze_stages(*given)))
    values = {"name": "x", "dataset": "digits.small", "backbone": "tiny", "bits": [8], "methods": ["csq"]}
    budget = {"epochs": 1, "freeze": "stages:1"}
    (job,) = plan(Benchmark.model_validate(values | {"train": budget}), zoo.load_plugins(), baselines=False)
    assert job.identity.budget["freeze"] == "stages:1"
    assert measure(job)[0].status == "ok"
    assert frozen
