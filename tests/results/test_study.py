"""What a study says of its trials: expected best scores, spread, ranks, and that equal methods stay equal."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hashzoo.errors import UsageError
from hashzoo.results import tuned
from hashzoo.results.study import crossings, expected_best, luck_test, ranks_by_budget, selection_spread
from hashzoo.results.tuned import Trial, Tuned, TunedMethod

SCORES = st.lists(st.floats(0, 1), min_size=1, max_size=6)


@given(SCORES, st.data())
def test_the_expected_best_is_the_mean_over_all_draws(scores, data):
    count = data.draw(st.integers(1, len(scores)))
    draws = list(itertools.combinations(scores[1:], count - 1))
    wanted = np.mean([max(scores[0], *one) if one else scores[0] for one in draws])
    assert expected_best(scores, count) == pytest.approx(wanted)


@given(SCORES)
def test_more_trials_are_never_expected_to_be_worse(scores):
    line = [expected_best(scores, n) for n in range(1, len(scores) + 1)]
    assert all(later >= earlier - 1e-12 for earlier, later in itertools.pairwise(line))
    assert line[-1] == max(scores)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_the_spread_is_that_of_the_best_of_all_draws_with_replacement(scores):
    best = [max(one) for one in itertools.product(scores, repeat=len(scores))]
    assert selection_spread(scores) == pytest.approx(np.std(best), abs=1e-7)


def test_a_method_that_profits_from_tuning_overtakes_one_that_does_not():
    studies = {"steady": [[0.6, 0.5, 0.4], [0.7, 0.6, 0.5]], "late": [[0.4, 0.9, 0.2], [0.5, 0.9, 0.3]]}
    ranks = ranks_by_budget(studies, [1, 3])
    assert ranks == {"steady": [1.0, 2.0], "late": [2.0, 1.0]}
    assert crossings(ranks) == [("steady", "late")]


def trials(generator: np.random.Generator, settings: np.ndarray, better: float = 0.0) -> np.ndarray:
    """Validation scores of a method that is affected by the settings, which all methods share, and by its own ones."""
    own, noise = generator.standard_normal((2, len(settings)))
    return 0.6 + better + 0.03 * settings + 0.05 * own + 0.03 * noise


@pytest.mark.parametrize(("better", "least", "most"), [(0.0, 0, 10), (0.15, 150, 200)])
def test_equal_methods_are_told_apart_in_at_most_five_percent_of_studies_and_others_in_most(better, least, most):
    generator, apart = np.random.default_rng(0), 0
    for _ in range(200):
        settings = generator.standard_normal(20)
        apart += luck_test(trials(generator, settings), trials(generator, settings, better)) < 0.05
    assert least <= apart <= most


def test_few_trials_cannot_tell_methods_apart():
    assert luck_test([0.9] * 5, [0.1] * 5) is None
    assert luck_test([0.9] * 6, [0.1] * 6) < 0.05


def method(name: str, scores: list[float | None], **more) -> TunedMethod:
    trials = [
        Trial(number=n, status="nan" if score is None else "ok", score=score, settings={"train.lr": 0.1} if n else {})
        for n, score in enumerate(scores)
    ]
    facts = {"dataset": "d", "bits": 8, "backbone": "b", "code": "c", "epochs": 1, "chosen": 1, **more}
    return TunedMethod(method=name, score=scores[1], default=scores[0], trials=trials, **facts)


def study(*methods: TunedMethod) -> Tuned:
    return Tuned(
        hashzoo="0", benchmark="b", metric="map@all", trials=3, sampler="sobol", seed=0, held_out=["validation20.0"],
        seeds=[0], methods=list(methods),
    )  # fmt: skip


def test_a_trial_that_failed_counts_as_the_worst():
    assert method("a", [0.5, 0.6, None]).scores() == [0.5, 0.6, 0.5]
    assert method("a", [0.5, 0.6, None]).scores(higher=False) == [-0.5, -0.6, -0.6]


def test_what_is_written_is_read_again(tmp_path):
    found = study(method("a", [0.5, 0.6, None], settings={"train.lr": 0.1, "kind": 'a "b"', "on": True}))
    tuned.write(found, tmp_path / "tuned.toml")
    assert tuned.read(tmp_path) == found


@pytest.mark.parametrize(
    ("text", "problem"),
    [("a = ", "is not a TOML file"), ("a = 1", "is not the result of a study"), (None, "there is no file")],
)
def test_a_wrong_file_is_one_line(text, problem, tmp_path):
    if text is not None:
        (tmp_path / "tuned.toml").write_text(text)
    with pytest.raises(UsageError, match=problem):
        tuned.read(tmp_path / "tuned.toml")
