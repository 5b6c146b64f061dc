"""Quantizers without training against plain loops, faiss, what their papers prove, and faults of public code."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hashzoo_plugins.shallow.bq import BQ
from hashzoo_plugins.shallow.itq import rotations
from hashzoo_plugins.shallow.pca_rr import PCARR
from hashzoo_plugins.shallow.projection import principal
from hashzoo_plugins.shallow.rabitq import Estimate, RaBitQ, rounded, stored
from hypothesis import given, settings
from hypothesis import strategies as st

from hashzoo.bench.plan import training_facts
from hashzoo.evaluation.scoring import encode
from hashzoo.registry import zoo
from hashzoo.run import Run
from hashzoo.testing import Probe, synthetic_splits
from hashzoo.training.budget import Budget
from tests.oracles.toy import D, near, t

DATA, HOUSE = synthetic_splits(), zoo.load_plugins()
SEEDS = st.integers(0, 2**31)


def fitted(factory, bits=8, data=DATA, seed=0, **options):
    torch.manual_seed(0)
    method, run = factory(data.setting(bits), Probe(), **options), Run(Budget(), seed)
    method.fit(data.train, run)
    x = run.features(method.backbone, data.train).pooled
    return method, encode(run, method, data.train), x


# --- bq --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("center", [True, False])
def test_bq_is_the_sign_of_the_first_features_by_a_plain_loop(center):
    _, codes, x = fitted(BQ, 6, center=center)
    for row, code in zip(x.tolist(), codes["code"].tolist(), strict=True):
        for k in range(6):
            mean = sum(x[:, k].tolist()) / len(x) if center else 0.0
            assert code[k] == (row[k] >= mean) or abs(row[k] - mean) < 1e-6


def test_without_centering_features_that_are_never_negative_have_one_code():
    _, codes, x = fitted(BQ, 16, center=False)
    assert (x >= 0).all()
    assert codes["code"].all()
    _, centered, _ = fitted(BQ, 16)
    assert len(torch.unique(centered["code"], dim=0)) > 16


def test_a_code_length_that_is_no_multiple_of_eight_is_stored_with_the_codes():
    method, codes, _ = fitted(BQ, 13)
    index = method.index()
    index.add(codes)
    assert index.stored_bits() == 13
    assert index.bits().shape == (len(DATA.train), 13)


# --- pca-rr ----------------------------------------------------------------------------------------------------------


def test_pca_rr_is_a_rotation_of_the_principal_components_and_the_start_of_itq():
    method, codes, x = fitted(PCARR, 8)
    axes = principal(x - x.mean(0), 8)
    rotation = axes.T @ method.projection  # (K, K)
    near(rotation.T @ rotation, torch.eye(8), 1e-5)
    near(axes @ rotation, method.projection, 1e-5)
    generator = torch.Generator().manual_seed(0)
    start, _ = rotations((x - x.mean(0)) @ axes, 1, generator)[0]
    assert float((codes["code"] == ((x - x.mean(0)) @ axes @ start >= 0)).float().mean()) > 0.999


@pytest.mark.parametrize("factory", [PCARR, RaBitQ])
def test_codes_depend_on_the_seed_of_the_run_alone(factory):
    same, again, other = (fitted(factory, seed=s)[1]["code"] for s in (0, 0, 1))
    assert torch.equal(same, again)
    assert not torch.equal(same, other)


def test_bq_is_the_same_for_every_seed():
    assert torch.equal(fitted(BQ, seed=0)[1]["code"], fitted(BQ, seed=1)[1]["code"])


def test_a_rotation_spreads_the_variance_that_the_components_have():
    _, _, x = fitted(PCARR, 8)
    components = (x - x.mean(0)) @ principal(x - x.mean(0), 8)
    ratios = []
    for seed in range(5):
        method, _, _ = fitted(PCARR, 8, seed=seed)
        spread = ((x - x.mean(0)) @ method.projection).var(0)
        near(spread.sum(), components.var(0).sum(), 1e-3)
        ratios.append(float(spread.max() / spread.min()))
    assert max(ratios) < float(components.var(0).max() / components.var(0).min())


# --- rabitq ----------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=20)
@given(SEEDS, st.integers(2, 9), st.sampled_from(["euclidean", "cosine"]))
def test_the_estimate_equals_plain_loops(seed, bits, metric):
    draw = torch.Generator().manual_seed(seed)
    v, q = (torch.randn(n, bits, generator=draw, dtype=D) for n in (4, 3))
    found = Estimate(metric)({"query": q}, stored(v))
    for i in range(3):
        for j in range(4):
            size = math.sqrt(sum(float(c) ** 2 for c in v[j]))
            sign = [1 if float(c) >= 0 else -1 for c in v[j]]
            scale = sum(s * float(c) / size for s, c in zip(sign, v[j], strict=True)) / math.sqrt(bits)
            product = sum(s * float(c) for s, c in zip(sign, q[i], strict=True)) / math.sqrt(bits) / scale
            length = math.sqrt(sum(float(c) ** 2 for c in q[i]))
            expected = size**2 + length**2 - 2 * size * product if metric == "euclidean" else 1 - product / length
            assert float(found[i, j]) == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_the_estimate_is_that_of_faiss():
    faiss = pytest.importorskip("faiss")
    if not hasattr(faiss, "IndexRaBitQ"):
        pytest.skip("this faiss has no RaBitQ")
    draw = np.random.default_rng(0)
    x, q = (draw.standard_normal((n, 32)).astype(np.float32) for n in (50, 4))
    index = faiss.IndexRaBitQ(32, faiss.METRIC_L2)
    index.train(x)
    index.qb = 0  # real queries
    index.add(x)
    distances, rows = index.search(q, 50)
    mean = torch.from_numpy(x).mean(0)
    mine = Estimate("euclidean")({"query": torch.from_numpy(q) - mean}, stored(torch.from_numpy(x) - mean))
    near(mine.gather(1, torch.from_numpy(rows)), torch.from_numpy(distances), 2e-3)


def test_the_estimate_has_no_bias_over_rotations_and_hamming_distance_has():
    draw = torch.Generator().manual_seed(0)
    o, q = (torch.nn.functional.normalize(torch.randn(1, 16, generator=draw, dtype=D)) for _ in range(2))
    q = torch.nn.functional.normalize(o + 0.8 * q)  # a near pair, whose sign agreement is no cosine
    r = torch.linalg.qr(torch.randn(1000, 16, 16, generator=draw, dtype=D)).Q
    ours, theirs = (o @ r)[:, 0], (q @ r)[:, 0]  # (1000, 16) the pair under each rotation
    estimates = 1 - Estimate("cosine")({"query": theirs}, stored(ours)).diagonal().double()
    agreement = ((ours >= 0) == (theirs >= 0)).double().mean(1) * 2 - 1
    true, error = float(o @ q.T), float(estimates.std()) / math.sqrt(1000)
    assert abs(float(estimates.mean()) - true) < 4 * error
    assert abs(float(agreement.mean()) - true) > 10 * error


def test_the_error_of_the_estimate_falls_with_the_root_of_the_dimension():
    def spread(k):
        draw = torch.Generator().manual_seed(k)
        v, q = (torch.nn.functional.normalize(torch.randn(200, k, generator=draw, dtype=D)) for _ in range(2))
        return float((1 - Estimate("cosine")({"query": q}, stored(v)).double() - q @ v.T).std())

    assert spread(16) / spread(256) == pytest.approx(4, rel=0.15)


def test_a_vector_at_the_center_is_at_the_length_of_every_query():
    kept = stored(torch.zeros(1, 4))
    near(Estimate("euclidean")({"query": t([1.0, 2, 2, 0])}, kept), [[9.0]])
    assert torch.isfinite(Estimate("cosine")({"query": torch.zeros(1, 4)}, kept)).all()


@settings(deadline=None, max_examples=30)
@given(SEEDS, st.integers(1, 8))
def test_a_rounded_query_lies_on_the_grid_within_half_a_step(seed, count):
    q = torch.randn(5, 6, generator=torch.Generator().manual_seed(seed), dtype=D)
    found = rounded(q, count)
    step = (q.amax(1) - q.amin(1)) / (2**count - 1)
    assert ((found - q).abs().amax(1) <= step / 2 + 1e-12).all()
    assert all(len(torch.unique((row * 1e9).round())) <= 2**count for row in found)
    near(rounded(torch.full((1, 6), 0.3, dtype=D), count), [[0.3] * 6])


def test_bits_of_rabitq_are_those_of_pca_rr_and_more_bits_than_features_keep_distances():
    assert torch.equal(fitted(RaBitQ, 8)[1]["code"], fitted(PCARR, 8)[1]["code"])
    method, codes, x = fitted(RaBitQ, 200, query_bits=0)
    assert codes["code"].shape == (len(x), 200)
    near(codes["norm"], (x - x.mean(0)).norm(dim=1), 1e-3)
    near((codes["query"] @ codes["query"].T)[0], ((x - x.mean(0)) @ (x - x.mean(0)).T)[0], 1e-2)
    index = method.index()
    index.add(codes)
    assert index.stored_bits() == 200 + 64


def test_real_distances_rank_images_that_one_code_ties():
    """Two images of one code: Hamming distance cannot tell them apart, the stored numbers can."""
    kept = stored(t([1.0, 1.0, 1.0], [5.0, 5.0, 5.0]))
    assert torch.equal(kept["code"][0], kept["code"][1])
    found = Estimate("euclidean")({"query": t([1.0, 1.0, 1.2])}, kept)
    assert found[0, 0] < found[0, 1]


def test_rabitq_names_a_wrong_number_of_query_bits():
    with pytest.raises(ValueError, match=r"query_bits from 0 \(real queries\) to 16, not 17"):
        RaBitQ(DATA.setting(8), Probe(), query_bits=17)


# --- what they need --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "factory"), [("bq", BQ), ("pca-rr", PCARR)])
def test_more_bits_than_features_are_refused_with_both_numbers(name, factory):
    says = f"{name} needs at least as many features as bits: 200 bits, 128 features; use fewer bits or a wider backbone"
    with pytest.raises(ValueError, match=says):
        factory(DATA.setting(200), Probe())
    facts = training_facts(200, {}, Budget(), DATA, 128)
    assert HOUSE.unmet(name, facts) == says
    assert HOUSE.unmet(name, replace(facts, bits=128)) == ""
    assert HOUSE.unmet(name, replace(facts, features=None)) == ""


def test_directions_need_images_and_padding_needs_none():
    unmet = HOUSE.unmet
    facts = training_facts(64, {}, Budget(), replace(DATA, train=DATA.train.take(torch.arange(40))), 128)
    for name in ("pca-rr", "rabitq"):
        assert "at least as many training images as bits: 64 bits, 40 images" in unmet(name, facts)
    assert unmet("rabitq", replace(facts, features=64)) == ""
    assert unmet("bq", facts) == ""
