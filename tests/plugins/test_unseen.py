"""Classes that are never learned from: what stays out of what, and what a method is told."""

from __future__ import annotations

import pytest
import torch
from hashzoo_plugins.datasets import digits
from hashzoo_plugins.datasets.unseen import draw, unseen_classes

from hashzoo.bench.benchmark_file import Benchmark
from hashzoo.bench.measure import measure
from hashzoo.bench.plan import plan
from hashzoo.registry import zoo
from hashzoo.testing import synthetic_splits

HOUSE = zoo.load_plugins()


def drawn(asked, seed=0):
    return draw(digits.base_splits(seed), "digits", asked, unseen=3, train=300, queries=60, seed=seed)


def classes_of(split, data):
    return {data.class_names[c] for c in split.labels.argmax(1).tolist()}


@pytest.mark.parametrize("asked", ["unseen", "unseen-all", "seen-all"])
@pytest.mark.parametrize("seed", [0, 1])
def test_no_image_of_an_unseen_class_is_learned_from(asked, seed):
    data = drawn(asked, seed)
    out = {str(c) for c in unseen_classes("digits", 3, 10, seed)}
    assert set(data.class_names[-3:]) == out
    assert data.notes["unseen classes"] == ", ".join(data.class_names[-3:])
    assert not classes_of(data.train, data) & out
    assert classes_of(data.query, data) == (set("0123456789") - out if asked == "seen-all" else out)
    assert classes_of(data.database, data) == (out if asked == "unseen" else set("0123456789"))
    for one, other in (("query", "database"), ("train", "database"), ("train", "query")):
        ids = {int(i) for i in data.parts()[one].ids}
        assert not ids & {int(i) for i in data.parts()[other].ids}
    assert (len(data.train), len(data.query)) == (300, 60)


def test_labels_go_on_naming_the_same_images():
    whole = digits.base_splits(0)
    known = {}
    for part in (whole.train, whole.query):
        known |= dict(zip(part.ids.tolist(), part.labels.argmax(1).tolist(), strict=True))
    data = drawn("unseen-all")
    for split in data.parts().values():
        for i, c in zip(split.ids.tolist(), split.labels.argmax(1).tolist(), strict=True):
            assert data.class_names[c] == str(known[i])


def test_a_method_is_told_of_the_seen_classes_only():
    data = drawn("unseen")
    setting = data.setting(8)
    assert setting.classes == data.train.labels.shape[1] == 7
    assert (setting.class_counts > 0).all()
    assert data.query.labels.shape[1] == 10


def test_the_same_seed_draws_the_same_and_another_seed_other_classes():
    assert torch.equal(drawn("unseen").database.ids, drawn("unseen").database.ids)
    assert drawn("unseen").class_names != drawn("unseen", seed=1).class_names


@pytest.mark.parametrize(
    ("count", "says"), [(0, "1 to 8 can be left out, not 0"), (9, "1 to 8 can be left out, not 9")]
)
def test_leaving_out_none_or_nearly_all_is_refused(count, says):
    with pytest.raises(ValueError, match=says):
        draw(digits.base_splits(0), "digits", "unseen", unseen=count, train=100, queries=10, seed=0)


def test_images_with_several_labels_are_refused():
    with pytest.raises(ValueError, match="one label each"):
        draw(synthetic_splits(multilabel=True), "x", "unseen", unseen=1, train=10, queries=5, seed=0)


@pytest.mark.parametrize("name", ["itq", "sdh", "csq", "classifier", "dhn", "lthnet", "cnnh"])
def test_methods_learn_seen_classes_and_are_scored_on_unseen_ones(name):
    values = {"name": "x", "dataset": "digits.unseen", "backbone": "pixels", "bits": [16], "methods": [name]}
    (job,) = plan(Benchmark.model_validate(values | {"train": {"epochs": 2}}), HOUSE, baselines=False)
    cell, _ = measure(job)
    assert cell.status == "ok"
    assert cell.metrics["map@all"] > 0.35  # of three classes by chance: 0.34
    assert (cell.facts["train"], cell.facts["train_in_database"]) == (500, 0)
