"""One method against the others: `report` and `compare --against` say the same, and only what was tested."""

import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashzoo.errors import UsageError
from hashzoo.registry import zoo
from hashzoo.report.page import _leaderboard
from hashzoo.results import against, store
from hashzoo.results.against import ALIKE, DIFFERENT, FEW_SEEDS, UNTESTED, blocks_against, notes_against
from hashzoo.results.board import read_board
from hashzoo.results.by_dataset import read
from hashzoo.results.gaps import gaps_to_best
from tests.results.test_leaderboard import a_cell
from tests.results.test_paired import FACTS, a_board, compared, put

QUERIES = 24
HOUSE = zoo.load_plugins()


def a_random_board(folder, methods, arrays):
    """Methods by name, each with its level, its deviation over seeds and over queries, and its seeds."""
    for number, (name, (level, of_seeds, of_queries, seeds)) in enumerate(sorted(methods.items())):
        for seed in range(seeds):
            draws = np.random.default_rng([number, seed])
            values = level + of_seeds * draws.normal() + of_queries * draws.normal(size=QUERIES)
            cell = a_cell(name, float(values.mean()), seed=seed, facts=FACTS)
            store.write(folder, cell, {"map@all": values} if arrays else {})


METHODS = st.dictionaries(
    st.sampled_from(["adsh", "csq", "dhn", "itq", "lsh"]),
    st.tuples(
        st.sampled_from([0.4, 0.45, 0.5, 0.6]),
        st.sampled_from([0.0, 0.01, 0.05]),
        st.sampled_from([0.0, 0.05]),
        st.sampled_from([1, 2, 3, 5]),
    ),
    min_size=2,
    max_size=5,
)


@settings(max_examples=25, deadline=None)
@given(methods=METHODS, arrays=st.booleans())
def test_a_row_is_said_to_be_like_the_best_only_if_its_interval_includes_0_in_both_commands(methods, arrays):
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        a_random_board(folder, methods, arrays)
        results = read(folder)
        [board] = results.boards
        best = board.best(32)
        gaps = {e.name: gaps_to_best(board, 32)[id(e)] for e in board.entries_at(32) if e is not best}
        [block] = blocks_against(read_board(folder), best.facts["method"], "map@all")
        assert {row.facts["method"]: gap for row, gap in block.others} == gaps
        said = _leaderboard(results, HOUSE)["summaries"][0, 32]
    listed = re.search(r"cannot be told from it \(5 %\): ([^.]*)\.", said)
    alike = set(listed[1].split(", ")) if listed else set()
    assert alike == {name for name, gap in gaps.items() if gap.verdict == ALIKE}
    for name, gap in gaps.items():
        many = min(methods[name][3], methods[best.name][3]) > 1
        assert (name in alike) == (many and gap.p is not None and gap.interval[0] <= 0 <= gap.interval[1])
        if gap.verdict == DIFFERENT:
            assert gap.p < 0.05
            assert not gap.interval[0] <= 0 <= gap.interval[1]
        if not many:
            assert gap.verdict == UNTESTED
    if any(min(methods[name][3], methods[best.name][3]) == 1 for name in gaps) and arrays:
        assert FEW_SEEDS in said


def test_compare_against_prints_the_p_values_and_intervals_of_the_report(tmp_path):
    a_board(tmp_path / "a", dhn=0.5, itq=0.495, lsh=0.3)
    put(tmp_path / "a", "csq", 0.4)
    [board] = read(tmp_path / "a").boards
    gaps = {e.name: gaps_to_best(board, 32)[id(e)] for e in board.entries_at(32) if e.name != "dhn"}
    printed = compared(tmp_path, "a", "--against", "dhn")
    assert printed.returncode == 0, printed.stderr
    rows = {line.split()[0]: line for line in printed.stdout.splitlines() if line.split()[:1]}
    for name, gap in gaps.items():
        assert f"{gap.interval[0]:+.4f} {gap.interval[1]:+.4f}" in rows[name]
        assert (f"{gap.p:.3f}" if gap.p >= 0.001 else "<0.001") in rows[name]
        assert gap.verdict in rows[name]
    assert FEW_SEEDS in rows["csq"]
    assert "corrected for all rows of the table (Holm), as in hashzoo report" in " ".join(printed.stdout.split())


def test_a_corrected_p_value_above_the_level_does_not_make_rows_alike_whose_interval_excludes_0():
    gap = against.Gap(-0.1, (-0.19, -0.01), 0.08, "training")
    assert gap.verdict not in (ALIKE, DIFFERENT)


def test_any_method_can_be_the_reference_and_controls_are_not_tested(tmp_path):
    a_board(tmp_path / "a", dhn=0.5, itq=0.4)
    put(tmp_path / "a", "chance", 0.1, role="control")
    [block] = blocks_against(read_board(tmp_path / "a"), "itq", "map@all")
    assert [row.facts["method"] for row, _ in block.others] == ["dhn"]
    [block] = blocks_against(read_board(tmp_path / "a"), "chance", "map@all")
    assert [row.facts["method"] for row, _ in block.others] == ["dhn", "itq"]
    assert [gap.verdict for _, gap in block.others] == [UNTESTED, UNTESTED]
    assert FEW_SEEDS in " ".join(notes_against([block]))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("a", "--against", "iqt"), "did you mean 'itq'"),
        (("a", "--against", "itq", "--metric", "map@al"), "did you mean 'map@all'"),
        (("a", "--against", "itq", "--between", "itq,dhn"), "name two boards, or one board and the methods"),
        (("a", "a", "--against", "itq"), "name two boards, or one board and the methods"),
        (("a", "--against", "itq", "--fail-on", "map@all:-1%"), "leave out --against"),
        (("a",), "--against method"),
    ],
)
def test_what_cannot_be_compared_against_is_said_in_one_line(arguments, said, tmp_path):
    a_board(tmp_path / "a", dhn=0.5, itq=0.4)
    result = compared(tmp_path, *arguments)
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1)
    assert said in result.stderr


def test_a_method_alone_in_its_block_has_nothing_to_be_compared_with(tmp_path):
    put(tmp_path / "a", "dhn", 0.5)
    with pytest.raises(UsageError, match="has no score beside another method"):
        blocks_against(read_board(tmp_path / "a"), "dhn", "map@all")
