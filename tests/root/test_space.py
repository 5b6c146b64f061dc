"""Ranges of hyperparameters: their points, their declaration, and that a declaration changes no key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hashzoo import Choice, Integer, Log, Uniform, UsageError, check_loss
from hashzoo.bench.search import SHARED, _sobol, search_of
from hashzoo.cli import listing
from hashzoo.factory import options
from hashzoo.registry.syntax import joined, reduced
from hashzoo.registry.zoo import load_plugins
from hashzoo.testing.fixtures import MOST_RANGES, range_findings
from hashzoo.training.budget import Budget

ZOO = load_plugins()
SPACES = [Uniform(0, 0.5), Log(1e-3, 10), Integer(1, 9), Integer(5, 200, log=True), Choice("a", "b", True)]
PARTS = [(kind, name) for kind in ("methods", "losses", "heads") for name in sorted(ZOO.catalogue(kind))]


@pytest.mark.parametrize("space", SPACES, ids=str)
@given(place=st.floats(0, 1, exclude_max=True))
def test_every_point_lies_in_its_range(space, place):
    where = space.place(space.at(place))
    assert where is not None
    assert 0 <= where <= 1


@pytest.mark.parametrize("make", [lambda: Log(0, 1), lambda: Uniform(1, 1), lambda: Integer(3, 2), lambda: Choice(1)])
def test_an_empty_range_is_refused(make):
    with pytest.raises(ValueError, match=r"range|choice"):
        make()


def test_every_default_of_the_zoo_lies_in_its_range_and_few_are_declared():
    declared = 0
    for kind, name in PARTS:
        entry = ZOO.method(name) if kind == "methods" else ZOO.catalogue(kind)[name]
        assert [one.why for one in range_findings(entry.factory) if not one.ok] == []
        found = [option for option in options(entry.factory).values() if option.space is not None]
        assert len(found) <= MOST_RANGES
        declared += len(found)
    assert declared > 100


def test_an_annotation_changes_no_digest():
    file = Path(__file__).parents[2] / "plugins" / "hashzoo_plugins" / "pairwise" / "dch.py"
    text = file.read_text()
    plain = text.replace("Annotated[float, Log(1, 100)]", "float").replace("Annotated[float, Log(1e-3, 10)]", "float")
    plain = plain.replace("from typing import Annotated\n", "").replace(", Log,", ",")
    assert "Annotated" in text
    assert "Annotated" not in plain
    digests = {joined({"dch": reduced(source.encode(), "dch", "")}) for source in (text, plain)}
    assert len(digests) == 1


def loss(setting, *, weight: Annotated[float, Log(0.1, 1)] = 5.0):
    return torch.nn.Identity()


def test_check_refuses_a_default_outside_its_range():
    (finding,) = range_findings(loss)
    assert not finding.ok
    assert finding.why == "the default 5.0 of weight is outside its range, 0.1 to 1 (log): widen the range"
    assert [one.check for one in check_loss(loss) if not one.ok] == ["ranges", "terms"]


def test_methods_share_the_points_of_what_they_share():
    budget = Budget(epochs=2)
    first, second = (search_of(ZOO.method(name), budget) for name in ("dch", "csq"))
    for number in (1, 2, 19, 40):
        points = [search.point(number, 0) for search in (first, second)]
        assert points[0]["train.lr"] == points[1]["train.lr"]
        assert points[0]["train.weight_decay"] == points[1]["train.weight_decay"]
    assert first.point(0, 0) == {}
    assert first.point(1, 0) != first.point(1, 1)


def test_more_trials_keep_the_first_ones():
    assert (_sobol(5, 0) == _sobol(7, 0)[:32]).all()
    assert _sobol(5, 0).shape[1] > len(SHARED)


def test_a_frozen_backbone_has_no_rate_of_its_own():
    names = {kind: set(search_of(ZOO.method("csq"), Budget(backbone=kind)).spaces) for kind in ("full", "frozen")}
    assert "train.backbone_lr" in names["full"] - names["frozen"]
    assert search_of(ZOO.method("itq"), Budget()).spaces.keys() == {"iterations"}


def test_dropout_is_searched_where_training_is_known_to_read_features_by_a_head():
    frozen = Budget(backbone="frozen")
    found = {name: "train.dropout" in search_of(ZOO.method(name), frozen).spaces for name in ("csq", "dhd", "adsh")}
    assert found == {"csq": True, "dhd": True, "adsh": False}


def test_the_listing_of_ranges_has_those_of_methods_and_of_the_budget():
    found = listing.spaces("methods", ZOO, ["dhn", "itq"])
    assert {
        "name": "dhn",
        "option": "weight",
        "default": "0.1",
        "range": "1e-05 to 100 (log)",
        "source": "paper",
    } in found
    assert [one["option"] for one in found if one["range"] == "1/30 to 30 times that of the benchmark (log)"] == [
        "train.lr"
    ]
    with pytest.raises(UsageError, match="--space applies to methods, losses and heads, not backbones"):
        listing.spaces("backbones", ZOO, [])
