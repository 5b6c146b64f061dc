"""``[train] ema`` and ``compile``: which weights are averaged and scored, whose keys change, what is compiled."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hashzoo.bench.benchmark_file import Benchmark
from hashzoo.bench.measure import measure
from hashzoo.bench.plan import plan
from hashzoo.registry import zoo
from hashzoo.run import Run
from hashzoo.testing import Probe, synthetic_splits
from hashzoo.training.averaging import WeightAverage
from hashzoo.training.budget import Budget

HOUSE = zoo.load_plugins()


def job_of(method, **train):
    values = {"name": "x", "dataset": "digits.small", "backbone": "tiny", "bits": [8], "methods": [method]}
    made = Benchmark.model_validate(values | {"train": {"epochs": 2, "batch": 50, **train}})
    (job,) = plan(made, HOUSE, base=Budget(epochs=2, batch=50), baselines=False)
    return job


def test_the_average_is_that_of_a_plain_loop_over_the_steps():
    torch.manual_seed(0)
    method = HOUSE.method("csq").factory(synthetic_splits().setting(8), Probe())
    run, seen = Run(Budget(epochs=2, batch=16), 0), []
    run.average = WeightAverage(method, 0.5)
    update = run.average.update
    run.average.update = lambda: (seen.append(next(method.head.parameters()).detach().clone()), update())[1]
    expected = next(method.head.parameters()).detach().clone()
    method.fit(synthetic_splits().train, run)
    for step, weight in enumerate(seen, 1):
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weight
    last = next(method.head.parameters()).detach().clone()
    assert len(seen) > 3
    with run.average.applied():
        torch.testing.assert_close(next(method.head.parameters()).detach(), expected)
    assert torch.equal(next(method.head.parameters()), last)


def test_statistics_are_averaged_and_other_buffers_and_frozen_weights_are_not():
    module = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1))
    module.register_buffer("memory", torch.zeros(2))
    module[1].bias.requires_grad_(False)
    average = WeightAverage(module, 0.9)
    with torch.no_grad():
        for value in (module[0].running_mean, module.memory, module[1].bias):
            value += 10
    average.update()
    with average.applied():
        assert 0 < float(module[0].running_mean[0]) < 10
        assert module.memory.tolist() == [10, 10]
        assert float(module[1].bias) >= 9


def test_the_average_is_scored_and_selected():
    plain, averaged = measure(job_of("csq", lr=0.03)), measure(job_of("csq", lr=0.03, ema=0.95))
    assert plain[0].metrics != averaged[0].metrics
    assert plain[0].provenance["curve"][0]["loss"] == averaged[0].provenance["curve"][0]["loss"]  # trained alike


@pytest.mark.parametrize("method", ["itq", "adsh", "lthnet"])
def test_methods_with_a_loop_of_their_own_keep_their_cells(method):
    assert job_of(method, ema=0.9).identity.key == job_of(method).identity.key
    assert job_of(method, ema=0.9).row.settings == ""
    assert job_of("csq", ema=0.9).identity.key != job_of("csq").identity.key
    assert job_of("csq", ema=0.9).row.settings == "ema=0.9"


def test_only_a_backbone_that_is_trained_is_compiled(monkeypatch):
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda module: compiled.append(type(module).__name__))
    measure(job_of("csq", compile=True))
    assert compiled == ["Tiny"]
    measure(job_of("csq", compile=True, backbone="stored"))
    assert compiled == ["Tiny"]
    assert "compile" not in Budget().recorded()
