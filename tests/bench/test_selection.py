"""The epoch that validation images choose, beside the last one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from hashzoo.backbone import Backbone
from hashzoo.bench.benchmark_file import Benchmark
from hashzoo.bench.measure import measure
from hashzoo.bench.plan import plan
from hashzoo.bench.selection import BestState
from hashzoo.method import Method
from hashzoo.registry import zoo
from hashzoo.run import Run
from hashzoo.testing import synthetic_splits
from hashzoo.training.budget import Budget
from hashzoo.types import Features

HOUSE = zoo.load_plugins()


def job_of(method="csq", validation=0.3, **train):
    values = {"name": "x", "dataset": "digits.small", "backbone": "tiny", "bits": [8], "methods": [method]}
    budget = {"epochs": 3, "batch": 20, **train}
    extra = {"train": budget, "set": {"digits.small": {"validation": validation}}}
    (job,) = plan(Benchmark.model_validate(values | extra), HOUSE, baselines=False)
    return job


def test_last_and_selected_epoch_are_both_scored():
    plain, _ = measure(job_of())
    both, arrays = measure(job_of(select="map@all"))
    assert both.metrics["map@all"] == plain.metrics["map@all"]  # looking changed nothing
    assert both.facts["validation map@all"] == plain.facts["validation map@all"]
    assert 1 <= both.facts["selected_epoch"] <= 3
    assert "map@all/selected" in both.metrics
    assert arrays["map@all/selected"].shape == arrays["map@all"].shape
    assert "map@all/selected" not in plain.metrics


class Dull(Backbone):
    """The image's mean."""

    def __init__(self):
        super().__init__()
        self.dim = 1

    def forward(self, images):
        return Features(images.flatten(1).mean(1, keepdim=True))


class Spoiled(Method):
    """Knows the labels of even images after the second epoch, and forgets them after."""

    def __init__(self):
        super().__init__()
        self.register_buffer("good", torch.zeros(()))
        self.norm = nn.BatchNorm1d(1).eval()

    def fit(self, train, run):
        for batch in run.batches(train):
            self.good.fill_(float(run.epochs == 1))
            assert (self.training, self.norm.training, len(batch) > 0) == (True, False, True)

    def encode(self, batch):
        code = batch.images.flatten(1)[:, :8] > 0
        return {"code": code if self.good else torch.zeros_like(code)}


def test_the_state_after_the_best_epoch_comes_back_and_modes_stay_as_they_were():
    data = synthetic_splits()
    method, run = Spoiled(), Run(Budget(epochs=4, select="map@all"), 0)
    method.train()
    method.norm.eval()
    chosen = BestState(method, run, replace(data, validation=data.query), {})
    method.fit(data.train, run)
    assert (chosen.epoch, float(method.good)) == (2, 0.0)
    chosen.load_best()
    assert float(method.good) == 1.0


def test_training_stops_after_epochs_without_a_better_score():
    data = synthetic_splits()
    method, run = Spoiled(), Run(Budget(epochs=9, select="map@all", patience=3), 0)
    chosen = BestState(method, run, replace(data, validation=data.query), {})
    method.fit(data.train, run)
    assert (chosen.epoch, run.epochs, run.stopped) == (2, 5, True)
    assert run.progress == 1.0
    method.fit(data.train, run)  # a second phase waits for a better score again
    assert run.epochs == 8


def test_a_cell_says_at_which_epoch_it_stopped_and_its_key_has_the_patience():
    plain, stopped = job_of(select="map@all", epochs=9), job_of(select="map@all", epochs=9, patience=1, lr=1e-9)
    cell, _ = measure(stopped)
    assert cell.facts["stopped_epoch"] == cell.facts["selected_epoch"] + 1 < 9
    assert len(cell.provenance["curve"]) == cell.facts["stopped_epoch"]
    assert "patience" not in plain.identity.budget
    assert stopped.identity.budget["patience"] == 1


def test_without_validation_images_selecting_is_refused_before_training():
    from hashzoo.errors import UsageError

    with pytest.raises(UsageError, match="validation"):
        job_of(validation=0.0, select="map@all")


def test_an_unknown_metric_to_select_by_is_named_before_training():
    from hashzoo.errors import UsageError

    with pytest.raises(UsageError, match="did you mean 'map@all'"):
        job_of(select="mpa@all")


@pytest.mark.parametrize(
    ("select", "says"), [("map@all/first", "has no composed queries"), ("map@all/heads", "no metric")]
)
def test_a_part_to_select_by_that_the_data_does_not_have_is_refused_before_training(select, says):
    from hashzoo.errors import UsageError

    with pytest.raises(UsageError, match=says):
        job_of(select=select)
