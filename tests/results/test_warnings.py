"""Warnings of rows whose status is ok: what each one means, and that a row of several seeds counts them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashzoo.results import leaderboard
from hashzoo.results.leaderboard import board_frame, cells_frame
from hashzoo.results.warnings import (
    AT_CHANCE,
    LOSS_ROSE,
    ONE_A_CLASS,
    ONE_CODE,
    chance_facts,
    join_warnings,
    list_warnings,
    loss_rose,
)
from tests.results.test_leaderboard import a_cell, failed, row, shown

FACTS = {"stored_bits": 32, **chance_facts("map@all", 0.1, 0.01), "commonest_code": 0.02}


def curve(*losses):
    return [{"loss": {"pair": loss / 2, "quantization": loss / 2}} for loss in losses]


def a_trained_cell(score=0.5, losses=(3.0, 2.0), **facts):
    changes = {name: facts.pop(name) for name in ("seed", "method", "role") if name in facts}
    return a_cell(
        changes.pop("method", "dhn"), score, facts=FACTS | facts, provenance={"curve": curve(*losses)}, **changes
    )


@pytest.mark.parametrize(
    ("cell", "warnings"),
    [
        (a_trained_cell(), []),
        (a_trained_cell(score=0.116), [AT_CHANCE]),  # within 1.645 standard errors of the expected score
        (a_trained_cell(score=0.117), []),
        (a_trained_cell(score=0.05), [AT_CHANCE]),
        (a_trained_cell(losses=(2.0, 3.0)), [LOSS_ROSE]),
        (a_trained_cell(commonest_code=0.99), [ONE_CODE]),
        (a_trained_cell(commonest_code=0.989), []),
        (a_trained_cell(score=0.1, losses=(1.0, 1.5), commonest_code=1.0), [AT_CHANCE, LOSS_ROSE, ONE_CODE]),
        (a_trained_cell(distinct_codes=10, database_classes=10), [ONE_A_CLASS]),
        (a_trained_cell(distinct_codes=11, database_classes=10), []),
        (a_trained_cell(distinct_codes=2, database_classes=10, commonest_code=0.995), [ONE_CODE]),
        (a_cell(), []),  # of an older hashzoo
        (failed(provenance={"curve": curve(1, 2)}), []),
    ],
)
def test_each_warning_is_given_where_its_definition_applies(cell, warnings):
    assert list_warnings(cell) == warnings


def test_a_control_that_is_meant_to_be_at_chance_has_the_warning_too():
    assert list_warnings(a_trained_cell(score=0.1, method="chance", role="control")) == [AT_CHANCE]


def test_the_loss_begins_and_ends_with_the_mean_of_a_quarter_of_the_epochs():
    assert not loss_rose(curve(4, 1, 3, 3, 3, 3, 1, 3.5))
    assert loss_rose(curve(4, 1, 1, 1, 1, 1, 4, 1.5))
    assert not loss_rose(curve(4))
    assert not loss_rose([])


def test_stages_with_other_loss_terms_are_not_compared_with_each_other():
    first, second = [{"loss": {"a": 1.0}}, {"loss": {"a": 0.5}}], [{"loss": {"b": 90.0}}, {"loss": {"b": 80.0}}]
    assert not loss_rose([*first, *second])
    assert loss_rose([*first, *reversed(second)])


def test_a_loop_of_its_own_that_logs_its_loss_is_judged_by_it():
    assert loss_rose([{"logged": {"loss": 1.0, "rank": 1.0}}, {"logged": {"loss": 2.0, "rank": 1.0}}])
    assert not loss_rose([{"logged": {"rank": 1.0}}, {"logged": {"rank": 2.0}}])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=30))
def test_a_falling_loss_never_rose_and_a_rising_one_always_did(losses):
    falling = sorted(set(losses), reverse=True)
    if len(falling) > 1:
        assert not loss_rose(curve(*falling))
        assert loss_rose(curve(*reversed(falling)))


def test_a_row_says_how_many_of_its_seeds_have_a_warning():
    good, bad = a_trained_cell(), a_trained_cell(score=0.1, losses=(1, 2), seed=1)
    assert join_warnings([bad]) == "at chance; loss rose"
    assert join_warnings([good, bad]) == "at chance (1 of 2 seeds); loss rose (1 of 2 seeds)"
    assert row(board_frame([good, bad]))["warnings"] == join_warnings([good, bad])
    assert row(board_frame([good, bad]))["status"] == "ok"
    assert [found["warnings"] or "" for found in leaderboard.records(cells_frame([good, bad]))] == [
        "",
        "at chance; loss rose",
    ]


def test_show_has_a_column_of_warnings_only_if_there_are_any():
    assert "warnings" not in shown(board_frame([a_trained_cell()]))
    text = shown(board_frame([a_trained_cell(), a_trained_cell(score=0.1, method="itq")]))
    assert "warnings" in text
    assert "at chance" in text
    assert "warnings" not in leaderboard.metrics(board_frame([a_trained_cell()]))


def test_show_says_what_one_code_per_class_means_for_the_ranking():
    text = shown(board_frame([a_trained_cell(distinct_codes=10, database_classes=10)]))
    assert "at most one code per class: there are no more codes than classes, so ranking within a class is by" in text
    assert "ranking within a class" not in shown(board_frame([a_trained_cell(score=0.1)]))


def test_what_a_damaged_or_foreign_curve_holds_is_not_an_error():
    for odd in (
        None,
        3,
        "x",
        [1],
        [{"loss": 3}],
        [{"loss": {"a": "b"}}],
        [{"loss": {"a": float("nan")}}],
        {"loss": {}},
    ):
        assert list_warnings(a_cell(provenance={"curve": odd})) == []
