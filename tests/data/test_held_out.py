"""Images held out of a training set: which ones, and that nothing else is left."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hashzoo.data.held_out import HeldOut, parse
from hashzoo.errors import UsageError
from hashzoo.registry.zoo import load_plugins
from hashzoo.testing.fixtures import synthetic_splits

DATA = synthetic_splits()


def ids(split):
    return set(split.ids.tolist())


def test_folds_are_disjoint_and_cover_the_training_set():
    parts = [HeldOut(3, fold).apply(DATA) for fold in (1, 2, 3)]
    held = [part.query.ids.tolist() + part.database.ids.tolist() for part in parts]
    assert sorted(i for part in held for i in part) == sorted(DATA.train.ids.tolist())
    for part in parts:
        for split in (part.query, part.database):
            counts = split.labels.sum(0)
            assert counts.max() - counts.min() <= 1


@given(
    rows=st.integers(12, 60),
    part=st.builds(HeldOut, folds=st.just(3), fold=st.integers(1, 3), seed=st.integers(0, 9))
    | st.builds(HeldOut, fraction=st.sampled_from([0.2, 0.25, 0.5, 0.8]), seed=st.integers(0, 9)),
)
def test_training_images_queries_and_database_share_no_image_and_come_from_the_training_set(rows, part):
    data = replace(DATA, train=DATA.train.take(torch.arange(rows)))
    cut = part.apply(data)
    splits = [ids(split) for split in (cut.train, cut.query, cut.database)]
    assert set.union(*splits) == ids(data.train)
    assert sum(map(len, splits)) == rows
    assert 0 <= len(cut.query) - len(cut.database) <= 1


def test_a_fraction_holds_out_so_many_images():
    cut = HeldOut(fraction=0.2).apply(DATA)
    assert len(cut.query) + len(cut.database) == round(0.2 * len(DATA.train))


def test_a_seed_gives_other_images_and_the_same_one_the_same():
    drawn = [HeldOut(fraction=0.2, seed=seed).apply(DATA).query.ids.tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("part", [HeldOut(3, 2, seed=5), HeldOut(fraction=0.25), HeldOut(fraction=0.333, seed=1)])
def test_the_name_of_a_dataset_says_what_is_held_out(part):
    assert parse(f"digits.small{part.suffix}") == ("digits.small", part)


def test_a_dataset_of_held_out_images_has_the_options_of_the_dataset():
    zoo = load_plugins()
    held = zoo.dataset("digits.small@validation1of4.0")
    assert held.name == "digits.small@validation1of4.0"
    assert len(held.factory(seed=3).query) == 25


@pytest.mark.parametrize(
    ("name", "problem"), [("digits.small@validation5of4.0", "no fold 5 of 4"), ("digits.small@x", "@x")]
)
def test_a_part_that_does_not_exist_is_refused(name, problem):
    with pytest.raises(UsageError, match=problem):
        load_plugins().dataset(name)


def test_too_few_images_are_refused():
    with pytest.raises(UsageError, match="too few"):
        HeldOut(fraction=0.001).apply(DATA)
