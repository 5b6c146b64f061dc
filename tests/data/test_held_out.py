"""Images held out of a training set: which ones, and that nothing else is left."""

from __future__ import annotations

import pytest
import torch

from hashzoo.data.held_out import HeldOut, parse
from hashzoo.errors import UsageError
from hashzoo.registry.zoo import load_plugins
from hashzoo.testing.fixtures import synthetic_splits

DATA = synthetic_splits()


def test_folds_are_disjoint_and_cover_the_training_set():
    parts = [HeldOut(3, fold).apply(DATA) for fold in (1, 2, 3)]
    held = torch.cat([part.query.ids for part in parts])
    assert sorted(held.tolist()) == sorted(DATA.train.ids.tolist())
    for part in parts:
        assert not set(part.query.ids.tolist()) & set(part.train.ids.tolist())
        counts = part.query.labels.sum(0)
        assert counts.max() - counts.min() <= 1


def test_neither_queries_nor_database_are_left():
    part = HeldOut(fraction=0.2).apply(DATA)
    every = {*part.train.ids.tolist(), *part.database.ids.tolist(), *part.query.ids.tolist()}
    assert every == set(DATA.train.ids.tolist())
    assert len(part.query) == round(0.2 * len(DATA.train))


def test_a_seed_gives_other_images_and_the_same_one_the_same():
    drawn = [HeldOut(fraction=0.2, seed=seed).apply(DATA).query.ids.tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("part", [HeldOut(3, 2, seed=5), HeldOut(fraction=0.25), HeldOut(fraction=0.333, seed=1)])
def test_the_name_of_a_dataset_says_what_is_held_out(part):
    assert parse(f"digits.small{part.suffix}") == ("digits.small", part)


def test_a_dataset_of_held_out_images_has_the_options_of_the_dataset():
    zoo = load_plugins()
    held = zoo.dataset("digits.small@fold1of4.0")
    assert held.name == "digits.small@fold1of4.0"
    assert len(held.factory(seed=3).query) == 50


@pytest.mark.parametrize(("name", "problem"), [("digits.small@fold5of4.0", "no fold 5 of 4"), ("digits.small@x", "@x")])
def test_a_part_that_does_not_exist_is_refused(name, problem):
    with pytest.raises(UsageError, match=problem):
        load_plugins().dataset(name)


def test_too_few_images_are_refused():
    with pytest.raises(UsageError, match="too few"):
        HeldOut(fraction=0.001).apply(DATA)
