"""Data that can give no score, and methods that cannot learn from it, are refused before anything is trained."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from hashzoo.bench.plan import refusal
from hashzoo.bench.suitability import require_relevant, stored_views_refusal
from hashzoo.errors import UsageError
from hashzoo.factory import options
from hashzoo.registry import zoo
from hashzoo.testing import Probe, synthetic_splits
from hashzoo.training.budget import Budget
from hashzoo.types import Pairs, Split, Splits
from tests.cli.command import hashzoo
from tests.plugins.test_folder import filled

HOUSE = zoo.load_plugins()
DATA, MULTI = synthetic_splits(), synthetic_splits(multilabel=True)


def without(split: Split, rows: torch.Tensor) -> Split:
    return split.take(torch.nonzero(~rows)[:, 0])


def only(split: Split, classes: list[int], inside: bool) -> Split:
    """The images of a split that have one of these classes, or none of them."""
    rows = (split.labels[:, classes] > 0).any(1)
    return split.take(torch.nonzero(rows if inside else ~rows)[:, 0])


def unlabelled(split: Split, count: int | None = None) -> Split:
    labels = split.labels.clone()
    labels[:count] = 0
    return replace(split, labels=labels)


def pairs_of_nothing(data: Splits) -> Splits:
    rows = torch.arange(3)
    return replace(data, pairs=Pairs("intersection", rows, rows + 1, torch.zeros(3, data.query.labels.shape[1])))


NOTHING = {
    "a class that is not stored": replace(
        DATA, query=only(DATA.query, [2], True), database=only(DATA.database, [2], False)
    ),
    "two of them": replace(DATA, query=only(DATA.query, [0, 1], True), database=only(DATA.database, [0, 1], False)),
    "queries without labels": replace(DATA, query=unlabelled(DATA.query)),
    "a database without labels": replace(DATA, database=unlabelled(DATA.database)),
    "several labels": replace(MULTI, database=unlabelled(MULTI.database)),
    "composed queries without labels": pairs_of_nothing(MULTI),
}


@pytest.mark.parametrize("name", NOTHING)
def test_data_in_which_no_query_has_a_relevant_item_is_refused(name):
    with pytest.raises(UsageError, match=r"queries of mine has a relevant item, so every score would be nan"):
        require_relevant("mine", NOTHING[name], ["map@all"], "", {})


def test_one_query_with_a_relevant_item_is_enough():
    for data in (DATA, MULTI, replace(DATA, query=unlabelled(DATA.query, len(DATA.query) - 1))):
        require_relevant("mine", data, ["map@all", "p@h2"], "", {})


def test_a_group_of_classes_without_any_query_is_refused_if_no_other_metric_is_asked_for():
    tail = DATA.train.labels.sum(0).argsort(descending=True, stable=True)[-DATA.train.labels.shape[1] // 3 :].tolist()
    data = replace(DATA, query=only(DATA.query, tail, False))
    require_relevant("mine", data, ["map@all/head", "map@all/tail"], "", {})
    with pytest.raises(UsageError, match=r"no query of mine that map@all/tail counts has a relevant item"):
        require_relevant("mine", data, ["map@all/tail"], "", {})


def test_validation_images_without_a_relevant_training_image_are_refused_for_a_selection():
    data = replace(DATA, validation=only(DATA.query, [1], True), train=only(DATA.train, [1], False))
    require_relevant("mine", data, ["map@all"], "", {})
    with pytest.raises(UsageError, match=r"train\.select = 'map@all' would be nan"):
        require_relevant("mine", data, ["map@all"], "map@all", {})


@pytest.mark.parametrize("method", ["csq", "dpn", "orthohash", "dhd", "shc"])
def test_methods_that_need_a_label_say_so_before_training(method):
    entry = HOUSE.method(method)
    values = {name: option.default for name, option in options(entry.factory).items()}
    data = replace(MULTI, train=unlabelled(MULTI.train, 5))
    known = options(HOUSE.dataset("lists").factory)
    reason = refusal(entry, data, Probe(), 8, values, "lists", known)
    assert f"{method} needs at least one label per image, and 5 of the" in reason
    assert reason.endswith("leave them out with --set lists.unlabelled=drop")
    assert "--set" not in refusal(entry, data, Probe(), 8, values, "mine", {})
    assert refusal(entry, MULTI, Probe(), 8, values) == ""


@pytest.mark.parametrize("method", ["dch", "hashnet", "itq", "ksh"])
def test_methods_that_need_no_label_take_images_without_one(method):
    entry = HOUSE.method(method)
    values = {name: option.default for name, option in options(entry.factory).items()}
    assert refusal(entry, replace(MULTI, train=unlabelled(MULTI.train, 5)), Probe(), 8, values) == ""


def test_the_command_ends_with_2_before_anything_is_trained(tmp_path):
    names = [f"{kind}/{n}.png" for kind in ("cat", "dog", "emu") for n in range(4)]
    root = filled(tmp_path / "p", names)
    parts = {"cat": "train", "dog": "database", "emu": "query"}
    rows = [f"{name},{name[:3]},{parts[name[:3]]}" for name in names]
    (root / "t.csv").write_text("path,label,part\n" + "\n".join(rows))
    options = ("--dataset", "folder", "--root", root / "t.csv", "--set", "folder.size=8", "--no-baselines")
    found = hashzoo("bench", "digits", *options, "--methods", "itq", "--bits", 8, "--results", "r", cwd=tmp_path)
    assert found.returncode == 2
    assert "none of the 4 queries of folder has a relevant item" in found.stderr
    assert len(found.stderr.splitlines()) == 1
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("method", "budget", "refused"),
    [
        ("wch", {"draws": 2}, True),
        ("wch", {}, False),
        ("wch", {"draws": 2, "backbone": "full"}, False),
        ("nsh", {"draws": 2}, False),
        ("multigrain", {"draws": 2, "augment": "flip"}, True),
        ("multigrain", {"draws": 2}, False),
    ],
)
def test_a_method_that_needs_maps_is_refused_where_views_are_stored_without_them(method, budget, refused):
    entry = HOUSE.method(method)
    train = Budget.model_validate({"backbone": "frozen", **budget})
    reason = stored_views_refusal(entry, DATA.setting(8), Probe(), {}, train)
    assert bool(reason) == refused
    if refused:
        assert reason == (
            f"{method} learns from feature maps of views, and [train] draws = 2 stores their pooled features only; "
            "set draws = 0"
        )
