"""The loss of every epoch: what a run collects, what a cell keeps, and what a resumed training keeps of it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hashzoo.bench.measure import measure
from hashzoo.results import store
from hashzoo.training.checkpoints import Checkpoints
from tests.root.test_run import a_run, split
from tests.training.test_checkpoints import ended_after, job_of


def trained(run, terms, **options):
    layer = nn.Linear(1, 1)
    optimizer = run.optimizer(layer)
    for number, _ in enumerate(run.batches(split(), **options)):
        run.step(optimizer, {name: layer.weight.sum() * 0 + value(number) for name, value in terms.items()})


def test_an_epoch_has_the_mean_of_each_loss_term_over_its_steps():
    run = a_run(epochs=2)  # of 5 steps
    trained(run, {"pair": float, "quantization": lambda number: 2.0})
    assert run.curve.epochs == [{"loss": {"pair": mean, "quantization": 2.0}} for mean in (2.0, 7.0)]


def test_each_epoch_is_reported_with_its_number_and_means():
    said = []
    run = a_run(epochs=2)
    run.report = lambda progress, values: said.append((progress, values))
    trained(run, {"pair": float})
    assert said == [(0.5, {"pair": 2.0, "epoch": 1.0}), (1.0, {"pair": 7.0, "epoch": 2.0})]
    assert run.logged == {"pair": 9.0}  # the cell keeps the latest value too


def test_a_loop_of_its_own_that_only_logs_has_a_curve_of_what_it_logs():
    run = a_run(epochs=1)
    run.log({"before": 1.0})  # belongs to no epoch
    for number, _ in enumerate(run.batches(split())):
        run.log({"loss": torch.tensor(float(number))})
    assert run.curve.epochs == [{"logged": {"loss": 2.0}}]


def test_two_iterators_of_one_epoch_make_one_entry():
    run = a_run(epochs=2)
    layer = nn.Linear(1, 1)
    optimizer = run.optimizer(layer)
    for _ in zip(run.batches(split()), run.batches(split()), strict=True):
        run.step(optimizer, {"pair": layer.weight.sum() * 0 + 1.0})
    assert run.curve.epochs == [{"loss": {"pair": 1.0}}] * 2


def test_stages_follow_each_other():
    run = a_run(epochs=1)
    trained(run, {"first": float})
    trained(run, {"second": float})
    assert run.curve.epochs == [{"loss": {"first": 2.0}}, {"loss": {"second": 2.0}}]


@pytest.mark.parametrize("method", ["csq", "bbn", "dsdh", "adsh"])
def test_methods_with_any_training_loop_keep_the_loss_of_every_epoch(method, tmp_path):
    job = job_of(method)
    cell, arrays = measure(job)
    cell = store.read(store.write(tmp_path, cell, arrays))
    assert len(cell.curve) >= 4
    assert all(epoch["loss"] for epoch in cell.curve)


def test_a_shallow_method_has_no_curve():
    cell, _ = measure(job_of("lsh"))
    assert cell.curve == []


def test_validation_scores_are_in_the_curve_of_epochs_that_are_selected_by_them():
    cell, _ = measure(job_of("csq", validation=0.3, select="map@all"))
    scores = [epoch["validation"]["map@all"] for epoch in cell.curve]
    assert len(scores) == 4
    assert max(scores) == cell.facts["selected validation map@all"]
    assert scores.index(max(scores)) + 1 == cell.facts["selected_epoch"]


def test_a_resumed_training_has_the_curve_of_one_that_was_not_interrupted(tmp_path):
    job = job_of("csq", validation=0.3, select="map@all")
    whole, _ = measure(job)
    ended_after(3, job, tmp_path / "x.checkpoint")
    resumed, _ = measure(job, checkpoints=Checkpoints(tmp_path / "x.checkpoint", job.checkpoint_facts))
    assert resumed.provenance["resumed_after_epoch"] == 2
    assert resumed.curve == whole.curve
    assert resumed.metrics == whole.metrics
