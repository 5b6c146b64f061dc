"""``[train] dropout``: which features it drops, when, whose keys it changes, and what is refused."""

from __future__ import annotations

import pytest
import torch

from hashzoo.bench import measure as measuring
from hashzoo.bench.benchmark_file import Benchmark
from hashzoo.bench.dropout import FeatureDropout, add_dropout
from hashzoo.bench.plan import plan
from hashzoo.errors import UsageError
from hashzoo.registry import zoo
from hashzoo.testing import Probe, synthetic_splits
from hashzoo.training.budget import Budget
from hashzoo.types import Features, LazyTensors

HOUSE = zoo.load_plugins()


def job_of(method, **train):
    values = {"name": "x", "dataset": "digits.small", "backbone": "tiny", "bits": [8], "methods": [method]}
    made = Benchmark.model_validate(values | {"train": {"epochs": 1, **train}})
    (job,) = plan(made, HOUSE, base=Budget(epochs=1), baselines=False)
    return job


def test_without_it_keys_are_the_same_and_with_it_those_of_shallow_methods_are():
    assert "dropout" not in Budget().recorded()
    assert job_of("itq", dropout=0.5).identity.key == job_of("itq").identity.key
    for method in ("csq", "classifier"):
        dropped = job_of(method, dropout=0.5)
        assert dropped.identity.key != job_of(method).identity.key
        assert dropped.row.settings == "dropout=0.5"


def test_features_are_dropped_in_training_only_and_their_mean_is_kept():
    torch.manual_seed(0)
    method = HOUSE.method("csq").factory(synthetic_splits().setting(8), Probe())
    added, seen = add_dropout(method, "csq", Budget(dropout=0.25)), []
    method.head.register_forward_pre_hook(lambda head, inputs: seen.append(inputs[0]))
    features = Features(torch.ones(400, 128), (torch.ones(400, 16, 2, 3),))
    method.train().head(features)
    method.eval().head(features)
    trained, encoded = seen
    assert added.calls == 1
    assert trained.pooled.unique().tolist() == pytest.approx([0, 4 / 3])
    assert float(trained.pooled.mean()) == pytest.approx(1, abs=0.02)
    channels = trained.maps[0].flatten(2)
    assert torch.equal(channels.amin(2), channels.amax(2))
    assert encoded is features


def test_stored_maps_are_read_only_if_the_head_uses_them():
    reads = []
    maps = LazyTensors([lambda: reads.append(0) or torch.ones(50, 8, 2, 2)])
    hook = FeatureDropout("x", 0.5)
    (dropped,) = hook(torch.nn.Identity().train(), (Features(torch.ones(50, 8), maps),))
    assert reads == []
    assert set(dropped.maps[0].unique().tolist()) == {0.0, 2.0}
    assert dropped.maps[0].amin((2, 3)).equal(dropped.maps[0].amax((2, 3)))
    assert reads == [0]


def test_a_head_that_reads_a_tensor_is_dropped_too():
    hook = FeatureDropout("x", 0.5)
    (dropped,) = hook(torch.nn.Identity().train(), (torch.ones(50, 8),))
    assert set(dropped.unique().tolist()) == {0.0, 2.0}


@pytest.mark.parametrize(("method", "train"), [("csq", {"backbone": "frozen"}), ("classifier", {}), ("adsh", {})])
def test_it_changes_the_training_of_methods_with_and_without_their_own_loop(method, train):
    plain, dropped = (measuring.measure(job_of(method, **train, **more))[0] for more in ({}, {"dropout": 0.5}))
    assert plain.provenance["trained"] != dropped.provenance["trained"]


def test_a_method_without_a_head_and_a_head_that_is_not_called_are_refused():
    itq = HOUSE.method("itq").factory(synthetic_splits().setting(8), Probe())
    with pytest.raises(UsageError, match=r"\[train\] dropout: mine has no module head"):
        add_dropout(itq, "mine", Budget(dropout=0.5))
    with pytest.raises(UsageError, match="mine does not call its head as a module"):
        FeatureDropout("mine", 0.5).require_use()


def test_a_probability_of_one_is_refused():
    with pytest.raises(ValueError, match="dropout"):
        Budget(dropout=1.0)
