import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hashzoo.errors import UsageError
from hashzoo.results.leaderboard import board_frame
from hashzoo.results.mean_ranks import (
    can_differ,
    critical_difference,
    friedman,
    longest_runs,
    mean_ranks,
    not_different,
    notes,
    rank,
    render,
)
from tests.results.test_leaderboard import a_cell, failed

PLACES = [{"dataset": d, "bits": b} for d in ("one", "two", "three") for b in (16, 32, 64)]
TWO_BLOCKS = {("one", 16), ("two", 16)}
LEVELS = {"best": 0.9, "good": 0.6, "bad": 0.3}


def cells(**levels):
    """Boards on which each method keeps its level at nine places, but for a little."""
    generator = np.random.default_rng(0)
    return [
        a_cell(method, level + generator.uniform(-0.01, 0.01), **place)
        for place in PLACES
        for method, level in levels.items()
    ]


def test_methods_stand_by_their_mean_ranks_and_groups_share_a_letter():
    found = rank([board_frame(cells(**LEVELS, twin=0.6))])
    assert found.methods[0] == "best"
    assert found.methods[-1] == "bad"
    assert found.ranks.tolist() == sorted(found.ranks)
    assert found.ranks.sum() == pytest.approx(10)
    assert found.groups == [(0, 0), (1, 2), (3, 3)]
    assert render(found).column("group") == ["a  ", " b ", " b ", "  c"]
    assert "Wilcoxon" in found.test


def test_several_boards_are_ranked_together():
    both = rank([board_frame(cells(**LEVELS)[:12]), board_frame(cells(**LEVELS)[12:])])
    whole = rank([board_frame(cells(**LEVELS))])
    assert (both.methods, both.blocks, both.groups) == (whole.methods, whole.blocks, whole.groups)
    assert len(both.blocks) == 9


def test_controls_are_no_competitors():
    control = [a_cell("real", 0.99, role="control", **place) for place in PLACES]
    assert "real" not in rank([board_frame(cells(**LEVELS) + control)]).methods


def test_a_method_that_is_not_in_every_block_is_left_out_with_the_reason():
    board = [*cells(**LEVELS), a_cell("young", 0.5, **PLACES[0])]
    board += [a_cell("twice", 0.5, settings=s, hyperparameters={"s": s}, **p) for p in PLACES for s in ("", "a=1")]
    board += [failed("broken", "oom", **PLACES[0]), *(a_cell("broken", 0.5, **p) for p in PLACES[1:])]
    board += [a_cell("other", metrics={"p@10": 0.5}, **place) for place in PLACES]
    found = rank([board_frame(board)])
    assert sorted(found.methods) == sorted(LEVELS)
    assert found.left_out == {
        "young": "no row at digits one tiny 32",
        "twice": "several rows at digits one tiny 16, with different settings or budgets",
        "broken": "oom at digits one tiny 16",
        "other": "no map@all at digits one tiny 16",
    }
    assert sum(line.startswith("left out: ") for line in notes(found)) == 4


def test_named_methods_are_ranked_among_themselves():
    found = rank([board_frame(cells(**LEVELS, twin=0.6))], methods=["bad", "good", "best"])
    assert list(found.methods) == ["best", "good", "bad"]


def test_blocks_of_one_data_set_are_called_dependent():
    assert any("3 datasets at several bits" in line for line in notes(rank([board_frame(cells(**LEVELS))])))
    alone = [cell for cell in cells(**LEVELS) if cell.identity.bits == 16]
    assert not any("several bits" in line for line in notes(rank([board_frame(alone)])))


def test_methods_that_rank_alike_are_one_group_whatever_their_pairs_say():
    generator = np.random.default_rng(0)
    board = [a_cell(m, generator.uniform(), **place) for place in PLACES for m in ("a", "b", "c", "d")]
    found = rank([board_frame(board)])
    assert found.friedman > 0.05
    assert found.groups == [(0, 3)]
    assert "no two methods differ significantly" in notes(found)[1]


def test_stale_methods_are_named_below_the_ranks():
    found = rank([board_frame(cells(**LEVELS), lambda pairs: {("good", "tiny"): "new"})])
    assert found.stale == {"good"}
    assert "stale methods: good" in notes(found)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"metric": "map@al"}, "did you mean 'map@all'"),
        ({"metric": "empty@h2"}, "is not one for which higher is better"),
        ({"methods": ["best", "god"]}, "did you mean 'good'"),
        ({"methods": ["best", "good"]}, "2 methods are in all of 9 blocks"),
    ],
)
def test_what_cannot_be_ranked_is_said_in_one_line(options, said):
    board = [
        a_cell(c.identity.method, metrics={**c.metrics, "empty@h2": 0.1}, **p)
        for c, p in zip(cells(**LEVELS), [p for p in PLACES for _ in LEVELS], strict=True)
    ]
    with pytest.raises(UsageError, match=said) as caught:
        rank([board_frame(board)], **options)
    assert "\n" not in str(caught.value)


# --- the statistics ---


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 8), st.integers(3, 6), st.integers(0, 99))
def test_friedman_is_that_of_scipy_and_mean_ranks_have_the_mean_they_must_have(blocks, methods, draw):
    scores = np.random.default_rng(draw).integers(0, 5, (blocks, methods)).astype(float)
    assert mean_ranks(scores).mean() == pytest.approx((methods + 1) / 2)
    if not (scores == scores[:, :1]).all():
        assert friedman(scores) == pytest.approx(stats.friedmanchisquare(*scores.T).pvalue, nan_ok=True)


def test_methods_with_the_same_scores_everywhere_rank_alike():
    assert friedman(np.ones((4, 3))) == 1


def test_the_critical_difference_is_the_one_of_the_paper():
    # Demsar 2006, section 3.2.2 and table 5: q of 4 classifiers 2.569, 14 datasets, CD 1.25; of 5 and 30: 2.728
    assert critical_difference(4, 14) == pytest.approx(2.569 * (4 * 5 / (6 * 14)) ** 0.5, rel=1e-3)
    assert critical_difference(5, 30) == pytest.approx(2.728 * (5 * 6 / (6 * 30)) ** 0.5, rel=1e-3)


def test_too_few_blocks_for_wilcoxon_are_left_to_nemenyi():
    scores = np.array([[0.9, 0.5, 0.1]] * 4) + np.random.default_rng(0).uniform(0, 0.1, (4, 3))
    alike, test = not_different(scores)
    assert "Nemenyi" in test
    far = critical_difference(3, 4)
    assert alike.tolist() == [[abs(i - j) < far for j in range(3)] for i in range(3)]


def test_wilcoxons_pairs_are_those_of_scipy_after_holm():
    scores = np.random.default_rng(3).normal([0.5, 0.52, 0.8], 0.05, (12, 3))
    alike, test = not_different(scores)
    assert "Wilcoxon" in test
    p = [stats.wilcoxon(scores[:, i], scores[:, j]).pvalue for i, j in ((0, 1), (0, 2), (1, 2))]
    assert p[0] > 0.05 > 3 * max(p[1:])
    assert alike.tolist() == [[True, True, False], [True, True, False], [False, False, True]]


@given(st.integers(1, 7), st.integers(0, 999))
def test_every_method_is_in_a_group_and_no_group_holds_two_that_differ(methods, draw):
    drawn = np.random.default_rng(draw).random((methods, methods)) < 0.6
    alike = drawn | drawn.T | np.eye(methods, dtype=bool)
    found = longest_runs(alike)
    assert {i for first, last in found for i in range(first, last + 1)} == set(range(methods))
    for first, last in found:
        assert alike[first : last + 1, first : last + 1].all()
    for one in found:
        assert not any(one != other and other[0] <= one[0] and one[1] <= other[1] for other in found)


def test_too_few_blocks_draw_no_bars_and_the_text_says_so(tmp_path):
    from hashzoo.cli.main import main
    from hashzoo.report import charts
    from hashzoo.results.board import write_board

    few = [cell for cell in cells(**LEVELS) if (cell.identity.dataset, cell.identity.bits) in TWO_BLOCKS]
    found = rank([board_frame(few)])
    assert len(found.blocks) == 2
    assert found.groups == []
    assert any("too few blocks" in line for line in notes(found))
    assert "group" not in [column.header for column in render(found).columns]
    assert 'class="join"' not in charts.rank_chart(found, {}, {}, "label")
    write_board(tmp_path, few)
    main(["plot", "ranks", str(tmp_path / "leaderboard.csv"), "-o", str(tmp_path / "ranks.svg")])
    assert (tmp_path / "ranks.svg").is_file()


def test_blocks_are_too_few_exactly_if_no_scores_at_all_give_a_difference():
    for methods in (3, 4, 6):
        for blocks in (2, 3, 4, 6):
            agreeing = np.tile(np.arange(methods, 0.0, -1), (blocks, 1))  # no scores differ more
            differs = friedman(agreeing) < 0.05 and not not_different(agreeing)[0].all()
            assert can_differ(methods, blocks) == differs, (methods, blocks)
