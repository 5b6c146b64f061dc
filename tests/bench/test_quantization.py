"""The loss that ``[train] quantization`` adds: what it changes, what it leaves, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from hashzoo.bench import measure as measuring
from hashzoo.bench.benchmark_file import Benchmark
from hashzoo.bench.plan import plan
from hashzoo.bench.preview import preview
from hashzoo.bench.quantization import add_loss, add_quantization, record_quantization
from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.registry import zoo
from hashzoo.testing import Probe, synthetic_splits
from hashzoo.training.budget import Budget
from hashzoo.types import Batch, Output

HOUSE = zoo.load_plugins()
ADDED = "added hswd"


def benchmark(method, **train):
    values = {"name": "x", "dataset": "digits.small", "backbone": "tiny", "bits": [8], "methods": [method]}
    return Benchmark.model_validate(values | {"train": {"epochs": 1, **train}})


def job_of(method, **train):
    (job,) = plan(benchmark(method, **train), HOUSE, baselines=False)
    return job


def built(method="csq", **train):
    setting = synthetic_splits().setting(8)
    torch.manual_seed(0)
    made = HOUSE.method(method).factory(setting, Probe())
    budget = record_quantization(Budget(**train), HOUSE)
    return made, add_quantization(made, method, budget, HOUSE, setting)


def test_without_it_neither_the_budget_of_a_cell_nor_its_key_knows_of_it():
    assert not [name for name in Budget().recorded() if "quantization" in name]
    assert Budget(quantization_weight=3.0).recorded() == Budget().recorded()
    assert job_of("csq", quantization_weight=3.0).identity.key == job_of("csq").identity.key


def test_a_cell_is_keyed_by_the_loss_its_weight_and_its_code():
    plain, added = job_of("csq"), job_of("csq", quantization="hswd")
    heavy = job_of("csq", quantization="hswd", quantization_weight=1.0)
    assert len({one.identity.key for one in (plain, added, heavy)}) == 3
    name, digest = added.identity.budget["quantization"].split()
    assert (name, len(digest)) == ("hswd", 16)
    assert added.identity.code == plain.identity.code
    (seen,) = preview(benchmark("csq", quantization="hswd"), HOUSE, baselines=False).cells
    assert seen.identity.budget == added.identity.budget


def test_the_terms_are_those_of_both_losses_for_the_same_codes():
    plain, _ = built()
    method, quantization = built(quantization="hswd", quantization_weight=0.5)
    code = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    given = Output(code), Batch((None,), torch.eye(6), torch.arange(6))
    before, after = plain.loss(*given), method.loss(*given)
    assert after.keys() - before.keys() == {ADDED}
    assert all(torch.equal(after[name], value) for name, value in before.items())
    alone = HOUSE.losses["hswd"].factory(synthetic_splits().setting(8), weight=0.5)(*given)["hswd"]
    assert torch.equal(after[ADDED], alone)
    assert quantization.added.calls == 1
    assert method.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize("method", ["csq", "adsh", "mdsh"])
def test_a_training_logs_the_added_term_and_lowers_it(method):
    cell, _ = measuring.measure(job_of(method, quantization="hswd", quantization_weight=5.0, epochs=2))
    first, last = (epoch["loss"][ADDED] for epoch in cell.curve)
    assert last < first


@pytest.mark.parametrize("method", ["itq", "classifier"])
def test_a_method_without_a_loss_of_codes_stays_as_it_is(method):
    with_it = benchmark(method, quantization="hswd")
    (job,) = plan(with_it, HOUSE, base=Budget(epochs=1), baselines=False)
    assert job.identity.key == job_of(method).identity.key
    assert job.row.settings == ""
    (deep,) = plan(benchmark("csq", quantization="hswd"), HOUSE, base=Budget(epochs=1), baselines=False)
    assert deep.row.settings == "quantization=hswd"


def test_a_function_that_makes_a_method_without_a_loss_is_refused_when_it_is_built():
    made = HOUSE.method("itq").factory(synthetic_splits().setting(8), Probe())
    budget = record_quantization(Budget(quantization="hswd"), HOUSE)
    with pytest.raises(UsageError, match=r"mine does not extend hashzoo\.Deep"):
        add_quantization(made, "mine", budget, HOUSE, synthetic_splits().setting(8))


def test_a_training_that_does_not_call_its_loss_is_refused():
    with pytest.raises(
        UsageError, match="the training of hybrid-sc does not call its loss as a module, so hswd was not"
    ):
        measuring.measure(job_of("hybrid-sc", quantization="hswd"))


@pytest.mark.parametrize("name", ["hsdw", "csq", "hswd 0123456789abcdef"])
def test_a_name_that_is_no_loss_with_a_weight_is_refused(name):
    for method in ("dhn", "itq"):
        with pytest.raises(UsageError, match=r"\[train\] quantization: no loss with a weight .*hswd"):
            job_of(method, quantization=name)


def test_a_loss_that_learns_cannot_be_added():
    method, _ = built()
    with pytest.raises(ValueError, match="loss 'linear' has parameters or buffers"):
        add_loss(method.loss, "linear", nn.Linear(1, 1))


def test_code_that_changed_after_the_plan_is_refused():
    job = job_of("csq", quantization="hswd")
    budget = job.identity.budget | {"quantization": "hswd 0123456789abcdef"}
    changed = replace(job, identity=replace(job.identity, budget=budget))
    with pytest.raises(EnvironmentFailure, match="the code of the loss hswd changed after the sweep was planned"):
        measuring.measure(changed)
