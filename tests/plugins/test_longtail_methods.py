"""The long-tail methods against worked values, plain loops of their formulas, and what their mathematics promises."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations, permutations

import pytest
import torch
from hashzoo_plugins.longtail import sampling
from hashzoo_plugins.longtail.bbn import BBN, Bilateral, Classification
from hashzoo_plugins.longtail.bcl import BCL, BalancedContrast, balanced_contrast
from hashzoo_plugins.longtail.contrast import contrast, k_positive, same
from hashzoo_plugins.longtail.hybrid_sc import Hybrid, HybridSC, prototypical
from hashzoo_plugins.longtail.lthnet import ClassBalanced, LTHNet, Memory, effective, prototypes
from hashzoo_plugins.longtail.targets import crowding, descend, matched, simplex, spread
from hashzoo_plugins.longtail.tsc import TSC, Targeted
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from hashzoo.evaluation.scoring import encode
from hashzoo.run import Run
from hashzoo.testing import Probe, synthetic_splits
from hashzoo.training.budget import Budget
from hashzoo.types import Batch, Features, Output, Setting

D = torch.float64
METHODS = [LTHNet, BBN, HybridSC, BCL, TSC]
LOSSES = [ClassBalanced, Hybrid, BalancedContrast]
FIRST = torch.tensor([[1, 0.2], [0.8, 0.5], [-0.6, 1]], dtype=D)
SECOND = torch.tensor([[0.9, 0.4], [1, 0.1], [-0.8, 0.7]], dtype=D)
CENTERS = normalize(torch.tensor([[1, 0.3], [-0.7, 0.9]], dtype=D), dim=1)
Z = normalize(torch.cat([FIRST, SECOND]), dim=1)
Y = torch.tensor([0, 0, 1, 0, 0, 1])
SHOWN = torch.tensor([0, 1, 2, 0, 1, 2])
COUNTS = torch.tensor([5000, 500, 50])


def near(found, expected, places=1e-6):
    expected = torch.as_tensor(expected, dtype=D).flatten().tolist()
    assert torch.as_tensor(found).detach().flatten().tolist() == pytest.approx(expected, abs=places)


def setting(classes=6, bits=8, counts=None, multilabel=False):
    counts = torch.full((classes,), 10) if counts is None else torch.tensor(counts)
    return Setting(bits, classes, multilabel, counts, int(counts.sum()))


def batch(classes, of=6, progress=0.5):
    return Batch((None,), torch.eye(of)[classes], torch.arange(len(classes)), progress)


def drawn(seed, rows=7, bits=5, classes=3):
    draw = torch.Generator().manual_seed(seed)
    z = normalize(torch.randn(rows, bits, dtype=D, generator=draw), dim=1)
    return z, torch.randint(classes, (rows,), generator=draw), draw


def slope_by_differences(function, at, step=1e-6):
    found = torch.zeros_like(at)
    for i in range(at.numel()):
        shift = torch.zeros_like(at).view(-1)
        shift[i] = step
        found.view(-1)[i] = (function(at + shift.view_as(at)) - function(at - shift.view_as(at))) / (2 * step)
    return found


# --- worked values ---------------------------------------------------------------------------------------------------


def test_supervised_contrast_equals_the_reference_value():
    near(contrast(Z, Z, same(Y), 0.1), 0.7651779650)


def test_balanced_contrast_equals_the_reference_value():
    near(balanced_contrast(Z, CENTERS, Y, 0.1), 0.0329631398)


def test_the_reversed_sampler_equals_the_reference_probabilities():
    near(sampling.inverse(COUNTS), [1 / 111, 10 / 111, 100 / 111])
    near(sampling.inverse(COUNTS), [0.009009, 0.090090, 0.900901])


def test_the_weights_of_lthnet_equal_the_reference_values():
    near(effective(COUNTS, 0.99), [0.39499, 0.39761, 1], 5e-6)
    near(effective(COUNTS, 0.0), [1, 1, 1])


def test_without_a_selector_the_memory_adds_nothing():
    head = Memory(setting(), Probe(), width=9).double()
    head.prototypes = torch.randn(6, 9, dtype=D)
    v = torch.rand(4, 9, dtype=D)
    assert not torch.allclose(head.enriched(v), v)
    for parameter in head.selector.parameters():
        torch.nn.init.zeros_(parameter)
    near(head.enriched(v), v)


# --- plain loops -----------------------------------------------------------------------------------------------------


def looped(z, weights, temperature, keys=None, divisor=None):
    """The formula of every contrastive term, one exponential at a time; ``weights`` {anchor: {key: weight}}."""
    keys = z if keys is None else keys
    losses = []
    for i, wanted in weights.items():
        total = sum(
            math.exp(float(z[i] @ keys[k]) / temperature) / (1 if divisor is None else divisor(i, k))
            for k in range(len(keys))
            if k != i
        )
        losses += [sum(w * (math.log(total) - float(z[i] @ keys[p]) / temperature) for p, w in wanted.items())]
    return sum(losses) / len(losses)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 999))
def test_supervised_contrast_equals_a_plain_loop(seed):
    z, y, _ = drawn(seed)
    others = {i: [p for p in range(7) if p != i and y[p] == y[i]] for i in range(7)}
    weights = {i: {p: 1 / len(ps) for p in ps} for i, ps in others.items() if ps}
    near(contrast(z, z, same(y), 0.1), looped(z, weights, 0.1))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 999))
def test_balanced_contrast_equals_a_plain_loop(seed):
    z, y, draw = drawn(seed)
    centers = normalize(torch.randn(4, 5, dtype=D, generator=draw), dim=1)  # one class has its center only
    keys, whose = torch.cat([z, centers]), [*y.tolist(), 0, 1, 2, 3]

    def divisor(i, k):
        return sum(1 for j in range(11) if j != i and whose[j] == whose[k])

    weights = {}
    for i in range(7):
        own = [p for p in range(11) if p != i and whose[p] == whose[i]]
        weights[i] = {p: 1 / len(own) for p in own}
    near(balanced_contrast(z, centers, y, 0.2), looped(z, weights, 0.2, keys, divisor))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 999))
def test_prototypical_contrast_equals_a_plain_loop(seed):
    z, y, draw = drawn(seed)
    p = normalize(torch.randn(3, 5, dtype=D, generator=draw), dim=1)
    losses = []
    for i, c in enumerate(y.tolist()):
        others = sum(math.exp(float(z[i] @ p[j]) / 0.3) for j in range(3) if j != c)
        losses.append(-math.log(math.exp(float(z[i] @ p[c]) / 0.3) / others))
    near(prototypical(z, p, y, 0.3), sum(losses) / 7)


def test_prototypical_contrast_can_be_negative_since_the_own_class_is_not_compared():
    assert prototypical(torch.eye(3), torch.eye(3), torch.arange(3), 0.1) < 0


@pytest.mark.parametrize("k", [1, 2, 5])
def test_k_positive_contrast_is_the_mean_of_the_paper_s_loss_over_all_draws(k):
    z, _, _ = drawn(3, rows=8)
    y, shown = torch.tensor([0, 0, 1, 0] * 2), torch.arange(4).repeat(2)
    losses = []
    for i in range(8):
        view = (i + 4) % 8
        others = [p for p in range(8) if y[p] == y[i] and p not in (i, view)]
        draws = list(combinations(others, min(k, len(others))))
        each = [looped(z, {i: dict.fromkeys([view, *some], 1 / (1 + len(some)))}, 0.07) for some in draws]
        losses.append(sum(each) / len(each))
    near(contrast(z, z, k_positive(y, shown, k), 0.07), sum(losses) / 8)


def test_with_more_draws_than_others_k_positive_is_supervised_contrast():
    near(k_positive(Y, SHOWN, 100), same(Y))


def test_the_pull_to_the_target_equals_a_plain_loop():
    loss = targeted(classes=3, bits=5)
    z, y, _ = drawn(1)
    loss.targets = simplex(3, 5, torch.Generator().manual_seed(2))
    loss.assignment = torch.tensor([2, 0, 1])
    loss.projection = torch.nn.Identity()
    keys = torch.cat([z, loss.targets])
    expected = looped(z, {i: {7 + int(loss.assignment[c]): 1.0} for i, c in enumerate(y.tolist())}, 0.07, keys)
    near(loss(Output(z), batch(y, 3))["target"], 0.2 * expected)


def test_the_classifier_of_lthnet_sums_weighted_images_over_the_batch():
    loss = ClassBalanced(setting(3, 4, [5000, 500, 50]), beta=0.99).double()
    code, y = torch.randn(5, 4, dtype=D), torch.tensor([0, 1, 2, 2, 0])
    scores = loss.classifier(code).detach()
    w = [0.394987, 0.397606, 1.0]
    each = [w[c] * (torch.logsumexp(scores[i], 0) - scores[i, c]) for i, c in enumerate(y.tolist())]
    near(loss(Output(code), batch(y, 3))["classification"], sum(each) / 5, 1e-5)


def test_the_classifier_of_bcl_adds_the_logarithm_of_the_class_frequencies():
    loss = BalancedContrast(setting(2, 3, [30, 10])).double()
    code = torch.randn(4, 3, dtype=D)
    scores = loss.classifier(code).detach() + torch.tensor([0.75, 0.25], dtype=D).log()
    expected = torch.nn.functional.cross_entropy(scores, torch.tensor([0, 0, 1, 0]))
    near(loss(Output(code), batch([0, 0, 1, 0], 2))["classification"], expected)


def test_the_soft_label_of_bbn_is_the_weighted_sum_of_two_cross_entropies():
    loss = Classification(setting()).double()
    code, a = Output(torch.randn(3, 8, dtype=D)), 0.7
    plain, rare = (torch.eye(6, dtype=D)[rows] for rows in ([0, 1, 2], [5, 5, 2]))
    mixed, first, second = (
        loss(code, replace(batch([0] * 3), labels=labels))["classification"]
        for labels in (a * plain + (1 - a) * rare, plain, rare)
    )
    near(mixed, a * first + (1 - a) * second)


# --- gradients -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "loss",
    [
        lambda z: contrast(z, z, same(Y), 0.5),
        lambda z: contrast(z, z, k_positive(Y, SHOWN, 1), 0.5),
        lambda z: balanced_contrast(z, CENTERS, Y, 0.5),
        lambda z: prototypical(z, CENTERS, Y, 0.5),
        crowding,
    ],
    ids=["supervised", "k-positive", "balanced", "prototypical", "crowding"],
)
def test_gradients_equal_finite_differences(loss):
    z = Z.clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(z), z)
    near(slope, slope_by_differences(loss, Z), 1e-5)


# --- samplers and schedules ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [sampling.balanced, sampling.inverse])
def test_classes_are_drawn_as_often_as_the_sampler_says(wanted):
    counts = torch.tensor([300, 30, 3, 0])
    labels = torch.eye(4)[torch.arange(4).repeat_interleave(counts)]
    run = Run(Budget(batch=64, epochs=60), 0)
    split = replace(synthetic_splits().train, images=torch.zeros(333, 1, 2, 2), labels=labels, ids=torch.arange(333))
    weights = sampling.weights(labels, wanted(counts))
    seen = torch.cat([torch.stack([b.labels.argmax(1), b.ids]) for b in run.batches(split, weights=weights)], 1)
    near(torch.bincount(seen[0], minlength=4) / seen.shape[1], wanted(counts), 0.02)
    of_the_rare = torch.bincount(seen[1], minlength=333)[330:].double()
    near(of_the_rare / of_the_rare.sum(), [1 / 3] * 3, 0.03)  # uniform inside a class


@pytest.mark.parametrize("rule", [sampling.balanced, sampling.inverse])
def test_a_class_without_images_is_never_drawn_and_the_rest_sum_to_one(rule):
    found = rule(torch.tensor([7, 0, 1]))
    assert found[1] == 0
    near(found.sum(), 1)


def test_training_turns_from_one_branch_to_the_other():
    assert (sampling.share(0.0), sampling.share(1.0)) == (1.0, 0.0)
    code, loss = Output(torch.tanh(torch.randn(6, 8))), Hybrid(setting())
    start, end = (loss(code, batch([0, 0, 1, 1, 2, 2], progress=p)) for p in (0.0, 1.0))
    assert start["classification"] == 0 < start["contrast"]
    assert end["contrast"] == 0 < end["classification"]


def test_at_either_end_a_mixed_feature_is_twice_one_branch_and_when_encoding_both():
    head = Bilateral(setting(), Probe())
    plain, rare = Features(torch.randn(3, 128)), Features(torch.randn(3, 128))
    left, right = head.conventional(plain.pooled), head.rebalancing(rare.pooled)
    near(head.mixed(plain, rare, 1.0), torch.cat([2 * left, 0 * right], 1))
    near(head.mixed(plain, rare, 0.0), torch.cat([0 * left, 2 * right], 1))
    both = torch.cat([head.conventional(plain.pooled), head.rebalancing(plain.pooled)], 1)
    head.eval()
    near(head(plain).code, torch.tanh(head.norm(head.hash(both))), 1e-5)


def test_after_training_every_bit_of_bbn_is_centered_on_the_images_as_they_are_encoded():
    data = synthetic_splits()
    torch.manual_seed(0)
    method, run = BBN(data.setting(8), Probe()), Run(Budget(epochs=2, batch=32), 0)
    method.fit(data.train, run)
    method.eval()
    with torch.no_grad():
        code = torch.cat([method.relaxed(b) for b in run.blank(data.train)])
    z = torch.atanh(code.double())
    near((z - method.head.norm.bias).mean(0), torch.zeros(8), 1e-3)
    near((z - method.head.norm.bias).std(0) / method.head.norm.weight.abs(), torch.ones(8), 1e-2)


# --- prototypes of LTHNet --------------------------------------------------------------------------------------------


def test_prototypes_are_class_means_and_zero_for_a_class_without_images():
    v, y = torch.randn(5, 3), torch.tensor([0, 2, 2, 0, 0])
    labels = torch.eye(4)[y]
    found = prototypes(labels.T @ v, labels.sum(0))
    near(found[0], v[y == 0].mean(0))
    near(found[2], v[y == 2].mean(0))
    near(found[[1, 3]], torch.zeros(2, 3))


def test_the_memory_after_fit_holds_the_class_means_of_the_fitted_network():
    data = synthetic_splits()
    torch.manual_seed(0)
    method, run = LTHNet(data.setting(8), Probe(), width=20), Run(Budget(epochs=2, batch=32), 0)
    times = []
    method.remember, inner = lambda *a: times.append(run.progress) or inner(*a), method.remember
    method.fit(data.train, run)
    assert times == pytest.approx([0.0, 0.5, 1.0])
    assert method.training
    method.eval()
    with torch.no_grad():
        v = torch.cat([method.head.direct(method.backbone(b.images)) for b in run.blank(data.train)])
    near(method.head.prototypes[3], v[data.train.labels[:, 3] > 0].mean(0), 1e-5)


# --- targets of TSC --------------------------------------------------------------------------------------------------


def targeted(classes=6, bits=8):
    return Targeted(setting(classes, bits), k=6, temperature=0.07, pull=0.2, momentum=0.9, quantization=0.1)


@pytest.mark.parametrize("classes", [2, 3, 4])
@pytest.mark.parametrize("bits", [3, 8])
def test_targets_form_a_regular_simplex_which_descent_from_anywhere_does_not_beat(classes, bits):
    draw = torch.Generator().manual_seed(classes)
    found = spread(classes, bits, 0, draw)
    cosines = torch.full((classes, classes), -1 / (classes - 1), dtype=D).fill_diagonal_(1)
    near(found @ found.T, cosines)
    descended = descend(torch.randn(classes, bits, dtype=D, generator=draw), 2000)
    assert float(crowding(found)) <= float(crowding(descended)) + 1e-9
    near(crowding(descended), crowding(found), 1e-2)


def test_more_classes_than_a_simplex_has_room_for_are_spread_by_descent():
    draw = torch.Generator().manual_seed(0)
    found = spread(6, 2, 3000, draw)
    angles = torch.atan2(found[:, 1], found[:, 0]).sort().values
    near(angles.diff(), [math.pi / 3] * 5, 3e-2)  # a regular hexagon


def test_targets_depend_on_the_seed_and_on_nothing_else():
    first, again, other = (simplex(4, 8, torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 999))
def test_the_matching_is_the_best_of_all_permutations(seed):
    draw = torch.Generator().manual_seed(seed)
    centroids, targets = torch.randn(4, 3, dtype=D, generator=draw), torch.randn(4, 3, dtype=D, generator=draw)
    found = matched(centroids, targets)
    assert sorted(found.tolist()) == [0, 1, 2, 3]
    values = [sum(float(centroids[c] @ targets[t]) for c, t in enumerate(p)) for p in permutations(range(4))]
    near((centroids * targets[found]).sum(), max(values))


def test_centroids_follow_the_batch_and_classes_not_seen_stay():
    loss = targeted(3, 4).double()
    loss.projection = torch.nn.Identity()
    loss.targets = simplex(3, 4, torch.Generator().manual_seed(0))
    a, b = normalize(torch.randn(2, 4, dtype=D), dim=1)
    loss.match(Output(torch.stack([a, a])), batch([1, 1], 3))
    near(loss.centroids, torch.stack([0 * a, a, 0 * a]))
    loss.match(Output(torch.stack([b, b])), batch([1, 1], 3))
    near(loss.centroids[1], normalize(0.9 * a + 0.1 * b, dim=0))
    assert sorted(loss.assignment.tolist()) == [0, 1, 2]
    best = (loss.targets @ loss.centroids[1]).argmax()
    assert loss.assignment[1] == best


# --- what fits show to their losses ----------------------------------------------------------------------------------


def longtail():
    """132 images: 40, 40, 40, 4, 4, 4 of the six classes."""
    data = synthetic_splits()
    classes = data.train.labels.argmax(1)
    rows = torch.cat([torch.nonzero(classes == c)[: 40 if c < 3 else 4, 0] for c in range(6)])
    return replace(data, train=data.train.take(rows))


def shown(method, data, name, epochs=30):
    """The arguments of every call of a part of the method's loss, while it is fitted."""
    calls, inner = [], getattr(method.loss, name)
    setattr(method.loss, name, lambda *given: calls.append(given) or inner(*given))
    method.fit(data.train, Run(Budget(epochs=epochs, batch=32), 0))
    return calls


def test_bbn_learns_large_classes_first_and_small_ones_last():
    data = longtail()
    torch.manual_seed(0)
    given_ = [call[1] for call in shown(BBN(data.setting(8), Probe()), data, "forward")]
    near(given_[0].labels.amax(1), torch.ones(32))  # alpha = 1: the plain sampler's labels alone
    for part in (given_[:50], given_[-50:]):
        found = torch.cat([b.labels for b in part])
        near(found.sum(1), torch.ones(len(found)))
        alpha = sum(sampling.share(b.progress) for b in part) / 50
        near(found[:, 3:].sum(1).mean(), alpha / 11 + (1 - alpha) * 10 / 11, 0.03)  # 12 of 132; reversed, 120


def test_hybrid_sc_contrasts_images_as_they_come_and_classifies_all_classes_alike():
    data = longtail()
    torch.manual_seed(0)
    calls = shown(HybridSC(data.setting(8), Probe()), data, "terms", epochs=12)
    seen, drawn_ = (torch.cat([call[place].labels for call in calls]).mean(0) for place in (1, 3))
    near(seen, [40 / 132] * 3 + [4 / 132] * 3, 1e-6)
    near(drawn_, [1 / 6] * 6, 0.04)


@pytest.mark.parametrize(("factory", "name"), [(BCL, "forward"), (TSC, "match"), (TSC, "forward")])
def test_contrast_sees_two_views_of_every_image(factory, name):
    data = longtail()
    torch.manual_seed(0)
    for output, given_ in shown(factory(data.setting(8), Probe()), data, name, epochs=1):
        assert output.code.shape == output.extra["second"].shape == (len(given_), 8)
        assert not torch.equal(output.code, output.extra["second"])


def test_a_fitted_tsc_has_spread_targets_matched_with_the_centroids_of_its_classes():
    data = longtail()
    torch.manual_seed(0)
    method = TSC(data.setting(8), Probe())
    method.fit(data.train, Run(Budget(epochs=2, batch=32), 0))
    loss = method.loss
    near(loss.targets @ loss.targets.T, torch.full((6, 6), -0.2).fill_diagonal_(1), 1e-5)
    near(loss.centroids.norm(dim=1), torch.ones(6), 1e-5)
    assert torch.equal(loss.assignment, matched(loss.centroids, loss.targets))


def test_the_quantization_term_of_hybrid_sc_is_over_the_codes_of_both_branches():
    first, second, even = torch.tanh(torch.randn(3, 6, 8))
    terms = Hybrid(setting()).terms(*both(first, second, [0] * 6), Output(even), batch([1] * 6))
    near(terms["quantization"], 0.1 * (torch.cat([first, second, even]).abs() - 1).square().mean())


# --- every loss, every method ----------------------------------------------------------------------------------------


def both(code, second, classes):
    return Output(code, extra={"second": second}), batch(classes)


def losses():
    torch.manual_seed(0)
    tsc = targeted()
    tsc.targets = simplex(6, 8, torch.Generator().manual_seed(0)).float()
    psc = Hybrid(setting(), contrast="prototypes")
    made = [ClassBalanced(setting(), beta=0.9), Classification(setting()), Hybrid(setting()), psc, tsc]
    return [loss.double() for loss in [*made, BalancedContrast(setting())]]


@pytest.mark.parametrize("loss", losses(), ids=lambda loss: type(loss).__name__)
def test_the_order_of_a_batch_does_not_matter(loss):
    code, second = torch.tanh(torch.randn(2, 7, 8, dtype=D))
    y, order = torch.tensor([0, 0, 0, 1, 1, 5, 2]), torch.randperm(7)
    output, given_ = both(code, second, y)
    given_ = replace(given_, labels=given_.labels.double())
    other = Output(code[order], extra={"second": second[order]}), replace(given_, labels=given_.labels[order])
    near(torch.stack([*loss(output, given_).values()]), torch.stack([*loss(*other).values()]), 1e-9)


@pytest.mark.parametrize("loss", losses(), ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("classes", [[3], [4, 4, 4], [0, 1, 2, 3]], ids=["one image", "one class", "no pair"])
@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_losses_and_slopes_are_finite_for_batches_without_pairs(loss, classes, views, scale):
    code = (scale * torch.tanh(torch.randn(len(classes), 8, dtype=D))).requires_grad_()
    extra = {"second": code.detach()} if views == 2 else {}
    labels = torch.eye(6, dtype=D)[classes]
    total = sum(loss(Output(code, extra=extra), replace(batch(classes), labels=labels)).values())
    (slope,) = torch.autograd.grad(total, code)
    assert torch.isfinite(total)
    assert torch.isfinite(slope).all()


@pytest.mark.parametrize("factory", [*METHODS, *LOSSES])
def test_several_labels_are_refused_before_training_with_the_reason(factory):
    several = setting(multilabel=True)
    with pytest.raises(ValueError, match="one label per image"):
        factory(several, Probe()) if factory in METHODS else factory(several)


@pytest.mark.parametrize("factory", [*METHODS, lambda *given: HybridSC(*given, contrast="prototypes")])
def test_classes_with_one_image_and_with_none_do_not_disturb_training(factory):
    data = synthetic_splits()
    kept = [i for i, c in enumerate(data.train.labels.argmax(1).tolist()) if c < 4] + [4]
    data = replace(data, train=data.train.take(torch.tensor(kept)))  # 40 of four classes, one, none
    assert data.setting(8).class_counts.tolist() == [40, 40, 40, 40, 1, 0]
    torch.manual_seed(0)
    method, run = factory(data.setting(8), Probe()), Run(Budget(epochs=2, batch=32), 0)
    method.fit(data.train, run)
    assert all(torch.isfinite(value).all() for value in method.state_dict().values())
    assert encode(run, method, data.query)["code"].shape == (80, 8)


def test_a_bad_beta_and_a_single_prototype_are_refused():
    with pytest.raises(ValueError, match="0 <= beta < 1"):
        ClassBalanced(setting(), beta=1.0)
    with pytest.raises(ValueError, match="at least two classes"):
        Hybrid(setting(1), contrast="prototypes")


@pytest.mark.parametrize("loss", [BalancedContrast, ClassBalanced, Hybrid, Targeted])
def test_a_loss_in_float64_has_no_constant_of_float32(loss):
    torch.manual_seed(0)
    needed = {
        ClassBalanced: {"beta": 0.9},
        Targeted: {"k": 6, "temperature": 0.07, "pull": 0.2, "momentum": 0.9, "quantization": 0.1},
    }
    made = loss(setting(classes=3, bits=4, counts=[7, 3, 1]), **needed.get(loss, {})).double()
    code = torch.tanh(torch.randn(6, 4, dtype=D)).requires_grad_()
    shown = batch(torch.tensor([0, 0, 1, 0, 2, 1]), of=3, progress=0.2)
    total = sum(made(Output(code), replace(shown, labels=shown.labels.double())).values())
    assert total.dtype == D
    if loss is ClassBalanced:
        exact = [(1 - 0.9) / (1 - 0.9**n) for n in (7, 3, 1)]
        y = shown.labels.argmax(1)
        log_p = torch.log_softmax(made.classifier(code), 1).detach()
        expected = -sum(exact[c] * float(log_p[i, c]) for i, c in enumerate(y.tolist())) / 6
        assert float(total.detach()) == pytest.approx(expected, abs=1e-14)
    if loss is BalancedContrast:
        prior = torch.tensor([math.log(n / 11) for n in (7, 3, 1)], dtype=D)
        log_p = torch.log_softmax(made.classifier(code) + prior, 1).detach()
        expected = -sum(float(log_p[i, c]) for i, c in enumerate(shown.labels.argmax(1).tolist())) / 6
        found = made(Output(code), replace(shown, labels=shown.labels.double()))["classification"]
        assert float(found.detach()) == pytest.approx(expected, abs=1e-14)


def test_weights_of_positives_take_the_type_of_what_they_weigh_and_are_the_same_numbers_in_float32():
    classes, images = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([0, 1, 0, 2, 3])
    for made in (lambda *dtype: same(classes, *dtype), lambda *dtype: k_positive(classes, images, 1, *dtype)):
        single, wide = made(torch.float32), made(D)
        assert torch.equal(single, made())
        assert (single.dtype, wide.dtype, made(torch.float16).dtype) == (torch.float32, D, torch.float32)
        thirds = (wide - single.double()).abs().max()
        assert 0 <= float(thirds) < 1e-7
    assert float(same(torch.tensor([0, 0, 0, 0]), D)[0, 1]) == 1 / 3
