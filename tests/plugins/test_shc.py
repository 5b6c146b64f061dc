"""shc: confusions and similarities against plain loops, the search for centers, and the faults of its public code."""

from __future__ import annotations

import math

import pytest
import torch
from hashzoo_plugins.pointwise import csq, mds, shc
from hypothesis import given, settings
from hypothesis import strategies as st

from hashzoo.run import Run
from hashzoo.testing import Probe, synthetic_splits
from hashzoo.training.budget import Budget
from tests.oracles.toy import D, near


def drawn(seed, classes, bits):
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randint(0, 2, (classes, bits), generator=draw).float() * 2 - 1
    return rows, shc.similarity(torch.rand(classes, classes, generator=draw) ** 3)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(2, 4), st.booleans())
def test_confusions_equal_plain_loops(seed, images, classes, several):
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, classes, generator=draw, dtype=D)
    labels = torch.eye(classes, dtype=D)[torch.randint(classes, (images,), generator=draw)]
    if several:
        labels = ((labels + (torch.rand(images, classes, generator=draw) < 0.4)) > 0).to(D)
    expected = [[0.0] * classes for _ in range(classes)]
    for row, own in zip(logits.tolist(), labels.tolist(), strict=True):
        others = {c: math.exp(row[c]) for c in range(classes) if not own[c]}
        for c in range(classes):
            for other, value in others.items():
                expected[c][other] += own[c] * value / sum(others.values())
    near(shc.confusion(logits, labels), torch.tensor(expected).flatten(), 1e-6)


def test_similarities_have_the_worked_values():
    confused = torch.tensor([[0.0, 4, 0], [2, 0, 1], [0, 1, 0]])  # symmetric: 0 3 0, 3 0 1, 0 1 0
    near(shc.similarity(confused), torch.tensor([[1, 1, -0.5], [1, 1, -0.2], [-0.5, 1, 1]]).flatten())


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31), st.integers(2, 8), st.integers(2, 16), st.sampled_from([0.0, 0.01, 0.5]))
def test_the_search_lowers_the_objective_and_keeps_the_smallest_distance(seed, classes, bits, mu):
    rows, similar = drawn(seed, classes, bits)
    least = mds.smallest_distance(rows)
    found = shc.semantic_rows(rows, similar, least, mu)
    assert found.abs().eq(1).all()
    assert mds.smallest_distance(found) >= least
    assert shc.objective(found, similar, mu) <= shc.objective(rows, similar, mu) + 1e-4


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 2**31), st.sampled_from([0.0, 0.01]))
def test_no_single_flip_improves_what_the_search_finds(seed, mu):
    rows, similar = drawn(seed, 5, 8)
    found = shc.semantic_rows(rows.double(), similar.double(), 1, mu)
    best = shc.objective(found, similar.double(), mu)
    for i in range(5):
        for k in range(8):
            flipped = found.clone()
            flipped[i, k] *= -1
            allowed = mds.smallest_distance(flipped) >= 1
            assert not allowed or shc.objective(flipped, similar.double(), mu) >= best - 1e-8


def test_the_objective_equals_plain_loops():
    rows, similar = drawn(3, 4, 6)
    total = 0.0
    for i in range(4):
        for j in range(4):
            inner = float(rows[i] @ rows[j])
            total += (float(similar[i, j]) - inner / 6) ** 2 + 0.3 * inner * (i != j)
    near(shc.objective(rows, similar, 0.3), total, 1e-4)


def test_confused_classes_get_closer_centers_than_others():
    confused = torch.zeros(8, 8)
    for c in range(0, 8, 2):
        confused[c, c + 1] = confused[c + 1, c] = 10.0
    torch.manual_seed(0)
    rows = shc.semantic_rows(mds.distant_rows(8, 32), shc.similarity(confused), mds.distance_bound(8, 32), 0.625e-4)
    pairs = torch.stack([mds.distances(rows, row) for row in rows])
    siblings = pairs[torch.arange(8), torch.arange(8) ^ 1]
    assert siblings.max() < (pairs.sum() - siblings.sum()) / (64 - 16)


def test_multipliers_that_are_integers_lose_every_update_below_one():
    alpha = torch.full((2, 2), 0)  # as the public code has it
    for _ in range(1000):
        alpha[0, 1] = alpha[0, 1] + 1e-6 * 20
    assert int(alpha[0, 1]) == 0


@pytest.mark.parametrize(("epochs", "share", "first"), [(6, 0.5, 3), (2, 0.9, 1), (1, 0.5, 0), (4, 0.0, 0)])
def test_both_stages_together_take_the_epochs_of_the_budget(epochs, share, first):
    data = synthetic_splits()
    torch.manual_seed(0)
    method = shc.SHC(data.setting(8), Probe(), share=share)
    before, run = method.loss.csq.centers.clone(), Run(Budget(epochs=epochs, batch=120), 0)
    calls = []
    method.classified = lambda train, run, count: calls.append(count) or torch.zeros(6, 6)
    batches = run.batches
    asked = []
    run.batches = lambda *given, **options: asked.append(options["epochs"]) or batches(*given, **options)
    method.fit(data.train, run)
    assert calls == [first] * (first > 0)
    assert asked == [epochs - first]
    assert not first or torch.equal(method.loss.csq.centers.abs(), torch.ones_like(before))
    assert first or torch.equal(method.loss.csq.centers, before)


@pytest.mark.parametrize("several", [False, True], ids=["one label", "several"])
def test_the_classifier_finds_confusions_and_leaves_the_network_of_the_codes_as_it_was(several):
    data = synthetic_splits(several)
    method = shc.SHC(data.setting(8), Probe())
    before = {name: value.clone() for name, value in method.state_dict().items()}
    confused = method.classified(data.train, Run(Budget(epochs=2, batch=60), 0), 2)
    counts = data.train.labels.sum(0)
    near(confused.sum(1), counts - several * (data.train.labels.sum(1) == 6).sum(), 1e-3)
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())


def test_codes_are_trained_by_the_loss_of_csq_and_a_share_outside_its_range_is_refused():
    data = synthetic_splits()
    assert isinstance(shc.SHC(data.setting(8), Probe()).loss.csq, csq.CSQ)
    with pytest.raises(ValueError, match=r"at least 0 and below 1, not 1\.0"):
        shc.SHC(data.setting(8), Probe(), share=1.0)
