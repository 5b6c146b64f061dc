"""The source methods against the worked values and the properties that their mathematics has."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hashzoo_plugins.datasets.composed import algebra
from hashzoo_plugins.pairwise.dhn import DHNE, quantization, without_quantization
from hashzoo_plugins.pairwise.pairs import contrastive, upper
from hashzoo_plugins.pointwise.dhd import DHD, likelihood_gap, proxy_scores
from hashzoo_plugins.structured.dcoh import (
    DCOH,
    MultiLevel,
    Operators,
    adversarial_loss,
    discriminator_loss,
    overlap,
    triplets,
)
from hashzoo_plugins.structured.multigrain import Contrastive, MultiGrain, MultiGrainHashing, attend
from hashzoo_plugins.structured.sfdh import SFDH, Saliency, saliency
from hashzoo_plugins.structured.swin_dual_stream import Confident
from hashzoo_plugins.structured.two_level_cam import (
    TwoLevelCAM,
    TwoLevelLoss,
    attended,
    average_cam,
    map_scores,
    select,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from hashzoo import Cosine, Hamming, Scan
from hashzoo.evaluation.scoring import encode
from hashzoo.index import Cascade
from hashzoo.run import Run
from hashzoo.testing import Probe, synthetic_splits
from hashzoo.training.budget import Budget
from hashzoo.types import Batch, Features, Output, Setting, signs

D = torch.float64
Z = torch.tensor([[0.9, -0.8, 0.7, -0.6], [0.8, -0.9, -0.5, -0.7], [-0.6, 0.5, 0.9, 0.4]], dtype=D)
Y = torch.eye(2, dtype=D)[[0, 0, 1]]
SETTING = Setting(4, 2, False, torch.tensor([2, 1]), 3)


def t(*rows):
    return torch.tensor(rows, dtype=D)


def batch(labels):
    return Batch((None,), labels, torch.arange(len(labels)))


def near(found, expected, places=1e-6):
    assert torch.as_tensor(found).detach().flatten().tolist() == pytest.approx(
        torch.as_tensor(expected).flatten().tolist(), abs=places
    )


# --- A. SFDH ---------------------------------------------------------------------------------------------------------

V = t([1.0, -1, 0, 0], [0, 0, 1, 1])
CENTERS = t([1.0, -1, 0, -1], [-1, 1, 1, 1])


def sfdh(**options):
    loss = SFDH(SETTING, **options).double()
    loss.centers.data = CENTERS.clone()
    return loss


def test_sfdh_equals_the_reference_values():
    terms = sfdh().terms(Output(Z, Z @ V.T), batch(Y))
    expected = [0.2120756944, 0.1225, 0.1080998898, 0.6233333333]
    near(torch.stack(list(terms.values())), torch.tensor(expected, dtype=D))
    near(sum(sfdh()(Output(Z, Z @ V.T), batch(Y)).values()), 0.2846089727)
    near(sfdh(diagonal=False).terms(Output(Z, Z @ V.T), batch(Y))["similarity"], 0.1928791667)
    near(sfdh(dissimilar_target=-1.0).terms(Output(Z, Z @ V.T), batch(Y))["similarity"], 0.4109645833)


def test_the_gradients_of_sfdh_equal_the_reference_values():
    code, loss = Z.clone().requires_grad_(), sfdh()
    sum(loss(Output(code, code @ V.T), batch(Y)).values()).backward()
    near(code.grad[0], t(-0.11899694, 0.12505249, 0.01544138, 0.10796916))
    (slope,) = torch.autograd.grad(loss.terms(Output(Z, Z @ V.T), batch(Y))["center"], loss.centers)
    near(slope, t([0.2, -0.2, -0.13333333, -0.46666667], [-0.26666667, 0.33333333, 0.06666667, 0.4]))


def test_learned_uncertainties_reach_their_closed_optimum():
    ones = dict.fromkeys(("similarity", "quantization", "classification", "center"), 1.0)
    loss = sfdh(weighting="uncertainty", **ones)
    terms = torch.stack(list(loss.terms(Output(Z, Z @ V.T), batch(Y)).values())).detach()
    loss.log_variances.data = terms.log()
    total = sum(loss(Output(Z, Z @ V.T), batch(Y)).values())
    near(total, -1.1739148, 1e-7)
    (slope,) = torch.autograd.grad(total, loss.log_variances)
    near(slope, torch.zeros(4, dtype=D), 1e-9)


def test_dynamic_weights_are_fixed_for_two_epochs_and_then_follow_the_rate_of_fall():
    loss = sfdh(weighting="dwa")
    code = [Z, Z * 0.8, Z * 0.3]
    means = []
    for value in code:  # one batch is one epoch here: three images of three
        raw = loss.terms(Output(value, value @ V.T), batch(Y))
        given = loss(Output(value, value @ V.T), batch(Y))
        shares = torch.stack([given[n] / (loss.weights[n] * raw[n]) for n in raw])
        if len(means) < 2:
            near(shares, torch.ones(4, dtype=D))
        else:
            near(shares, 4 * torch.softmax(means[1] / means[0] / 2, 0))
        means.append(torch.stack(list(raw.values())).detach())


def test_learned_uncertainties_start_from_the_weights_of_the_source():
    code, loss = Z.clone().requires_grad_(), sfdh(weighting="uncertainty")
    sum(loss(Output(code, code @ V.T), batch(Y)).values()).backward()
    near(code.grad[0], t(-0.11899694, 0.12505249, 0.01544138, 0.10796916))  # the slope of the fixed weights


SEVERAL = Setting(4, 3, True, torch.tensor([2, 2, 2]), 3)


def test_sfdh_of_several_labels_equals_plain_loops():
    labels, logits = t([1.0, 1, 0], [0, 0, 1], [1, 1, 1]), t([0.5, -1, 2], [0.0, 1, -1], [0.3, 0.2, -0.4])
    loss = SFDH(SEVERAL).double()
    loss.centers.data = torch.cat([CENTERS, t([0.5, 0.5, -1, 0])])
    terms = loss.terms(Output(Z, logits), batch(labels))
    z, c, y, v = Z.tolist(), loss.centers.tolist(), labels.tolist(), logits.tolist()
    alike = [[any(y[i][m] and y[j][m] for m in range(3)) for j in range(3)] for i in range(3)]
    inner = [[sum(z[i][k] * z[j][k] for k in range(4)) / 4 for j in range(3)] for i in range(3)]
    near(terms["similarity"], sum((inner[i][j] - alike[i][j]) ** 2 for i in range(3) for j in range(3)) / 9)
    away = [[z[i][k] - sum(y[i][m] * c[m][k] for m in range(3)) for k in range(4)] for i in range(3)]
    near(terms["center"], sum(value**2 for row in away for value in row) / 3)
    p = [[1 / (1 + math.exp(-value)) for value in row] for row in v]
    entropy = [math.log(p[i][m] if y[i][m] else 1 - p[i][m]) for i in range(3) for m in range(3)]
    near(terms["classification"], -sum(entropy) / 9)


def test_an_epoch_of_dynamic_weights_ends_after_all_labels_of_images_with_several():
    labels = t([1.0, 1, 0], [0, 0, 1], [1, 1, 1])
    loss = SFDH(SEVERAL, weighting="dwa").double()
    for rows, epochs in (([0], 0), ([1, 2], 1), ([2, 1], 1), ([0], 2)):
        loss(Output(Z[rows], Z[rows, :3]), batch(labels[rows]))
        assert loss.seen[1] == epochs


def test_saliency_pools_what_exceeds_the_threshold_as_worked_out():
    f = t([[2.0, 0.2], [0, 1]], [[1, 0.4], [0.6, 0.6]])[None]
    a, mask = saliency(f, 0.7)
    near(a, t(1.5, 0.3, 0.3, 0.8))
    near(mask, t(1.0, 0, 0, 1))
    head = Saliency(SETTING, Maps(2)).double()
    head.local.weight.data = torch.zeros(16, 1, 1, 1, dtype=D)
    head.local.weight.data[:2, 0, 0, 0] = t(0.5, -1.0)
    head.local.bias.data = torch.zeros(16, dtype=D)
    head.local.bias.data[:2] = t(0.1, 0.3)
    local, whole = head.branches(f, a, mask)
    near(local[0, :2], t(0.3875, 0.15))
    near(whole, t(0.8, 0.65))
    empty, _ = head.branches(f, a, torch.zeros_like(mask))
    near(empty[0, :2], t(0.1, 0.3))
    below = f.clone()
    below[0, :, 0, 1] += 0.3  # its mean stays under 0.7
    a, mask = saliency(below, 0.7)
    near(head.branches(below, a, mask)[0][0, :2], t(0.3875, 0.15))


class Maps(Probe):
    """A backbone that is never run, with one map of ``depth`` channels."""

    def __init__(self, *depths):
        super().__init__()
        self.map_dims, self.dim = depths, depths[-1]


def test_codes_on_hadamard_rows_have_no_similarity_loss():
    rows = t([1.0, 1, 1, 1], [1, -1, 1, -1])[[0, 0, 1]]
    near(sfdh().terms(Output(rows, rows @ V.T), batch(Y))["similarity"], 0.0)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31), st.integers(2, 7))
def test_sfdh_does_not_depend_on_the_order_of_images_or_of_bits(seed, count):
    g = torch.Generator().manual_seed(seed)
    code = torch.tanh(torch.randn(count, 4, generator=g, dtype=D))
    labels = torch.eye(2, dtype=D)[torch.randint(2, (count,), generator=g)]
    rows, places = torch.randperm(count, generator=g), torch.randperm(4, generator=g)
    whole = sum(sfdh()(Output(code, code @ V.T), batch(labels)).values()).item()
    other = sfdh()(Output(code[rows], code[rows] @ V.T), batch(labels[rows]))
    assert sum(other.values()).item() == pytest.approx(whole, abs=1e-9)
    loss = sfdh()
    loss.centers.data = CENTERS[:, places]
    turned = loss(Output(code[:, places], code[:, places] @ V[:, places].T), batch(labels))
    assert sum(turned.values()).item() == pytest.approx(whole, abs=1e-9)


def test_centers_move_at_half_the_rate():
    from hashzoo.registry import zoo

    data = synthetic_splits()
    method = zoo.load_plugins().method("sfdh").factory(data.setting(8), Probe())
    run = Run(Budget(epochs=1, batch=120, optimizer="sgd", momentum=0.0, lr=0.1, schedule="constant"), 0)
    made = run.optimizer
    seen = {}

    def spy(*modules, **options):
        optimizer = made(*modules, **options)
        for group in optimizer.param_groups:
            seen.update({id(p): group["base"] for p in group["params"]})
        return optimizer

    run.optimizer = spy
    method.fit(data.train, run)
    assert seen[id(method.loss.centers)] == pytest.approx(0.05)
    assert seen[id(method.head.hash.weight)] == pytest.approx(0.1)


# --- B. Multi-grain --------------------------------------------------------------------------------------------------

U = t([0.8, -0.6, 0.4, 0.9], [0.7, -0.9, 0.5, 0.6], [-0.5, 0.7, -0.2, 0.3])


def grains(weights, bias, f):
    head = MultiGrain(SETTING, Maps(2, 2, 2)).double()
    head.attention[0].weight.data = t(*weights).view(1, 2, 1, 1)
    head.attention[0].bias.data = t(bias)
    a = torch.sigmoid(head.attention[0](f))
    return a, attend(f, a)


F2 = t([[1.0, 2], [3, 4]], [[0, 1], [1, 0]])[None]


def test_attention_pools_as_worked_out():
    a, f = grains([0.5, -1.0], 0.1, F2)
    near(a, t(0.6456563063, 0.5249791875, 0.6456563063, 0.8909031788))
    near(f, t(1.7990490788, 0.2926588734))
    near(grains([0.0, 0.0], 0.0, F2)[1], F2.mean((2, 3)) / 2)
    near(grains([0.0, 0.0], 50.0, F2)[1], F2.mean((2, 3)))


def test_the_contrastive_loss_equals_the_reference_values():
    code = U.clone().requires_grad_()
    terms = Contrastive(SETTING, reduction="sum")(Output(code), batch(Y))
    near(terms["pair"], 7.52)
    terms["pair"].backward()
    near(code.grad, t([-2.4, 3.2, -1.4, -0.6], [-2.6, 2.6, -1.2, -1.2], [5, -5.8, 2.6, 1.8]))
    near(code.grad.sum(0), torch.zeros(4, dtype=D))  # nothing changes when all codes move together
    near(Contrastive(SETTING)(Output(U), batch(Y))["pair"], 2.5066666667)
    near(Contrastive(SETTING)(Output(signs(U)), batch(Y))["pair"], 0.0)
    near(upper(contrastive(U, batch(Y).similar, 8.0)), t(0.2, 8 - 4.1, 8 - 4.58))


def test_a_batch_without_similar_or_without_dissimilar_pairs_has_a_finite_loss():
    for labels in (torch.eye(3, dtype=D), torch.ones(3, 2, dtype=D)):
        code = U.clone().requires_grad_()
        total = sum(Contrastive(SETTING, quantization=0.01)(Output(code), batch(labels)).values())
        total.backward()
        assert torch.isfinite(total)
        assert torch.isfinite(code.grad).all()


@pytest.mark.parametrize("loss", [Contrastive, TwoLevelLoss, DHNE])
def test_losses_of_pairs_refuse_a_batch_of_one(loss):
    with pytest.raises(ValueError, match="two images"):
        loss(SETTING)(Output(U[:1], extra={"local": U[:1]}), batch(Y[:1]))


def test_the_first_phase_leaves_a_pretrained_network_and_its_running_statistics_as_they_were():
    data = synthetic_splits()
    torch.manual_seed(0)
    method = MultiGrainHashing(data.setting(8), Probe(), warmup=1.0)
    method.backbone.weights = "pretrained"
    before = {n: v.clone() for n, v in method.backbone.state_dict().items()}
    head = method.head.hash[0].weight.clone()
    method.train()
    method.fit(data.train, Run(Budget(epochs=2, batch=32), 0))
    assert all(torch.equal(before[n], v) for n, v in method.backbone.state_dict().items())
    assert not torch.equal(head, method.head.hash[0].weight)
    assert method.backbone.training
    second = MultiGrainHashing(data.setting(8), Probe(), warmup=0.5)
    before = {n: v.clone() for n, v in second.backbone.state_dict().items()}
    second.train()
    second.fit(data.train, Run(Budget(epochs=2, batch=32), 0))
    assert not any(torch.equal(before[n], v) for n, v in second.backbone.state_dict().items() if "weight" in n)


def test_a_straight_through_code_is_a_sign_with_the_gradient_of_a_line():
    head = MultiGrain(SETTING, Maps(2, 2, 2), relax="ste", norm="none").double()
    output = head(Features(torch.zeros(1, 2), (F2, F2, F2)))
    assert set(output.code.detach().flatten().tolist()) <= {-1.0, 1.0}
    output.code.sum().backward()
    assert head.hash.bias.grad.tolist() == [1.0] * 4


def test_attention_and_hash_layers_have_the_stated_numbers_of_parameters():
    from hashzoo.registry import zoo

    house = zoo.load_plugins()
    for name, features, attention in (("resnet18", 896, 899), ("resnet50", 3584, 3587)):
        backbone = house.backbone(f"torchvision/{name}").factory((3, 224, 224), weights="random")
        head = MultiGrain(SETTING, backbone)
        assert sum(p.numel() for p in head.attention.parameters()) == attention
        assert head.hash[0].in_features == features
    backbone = house.backbone("torchvision/resnet18").factory((3, 224, 224), weights="random")
    assert sum(p.numel() for p in backbone.parameters()) == 11_176_512
    head = Saliency(Setting(48, 3, False, torch.ones(3), 3), backbone)
    assert sum(p.numel() for p in head.local.parameters()) == 32
    assert sum(p.numel() for p in [*head.hash.parameters(), *head.norm.parameters()]) == 25_392 + 96
    maps = backbone.eval()(torch.zeros(1, 3, 224, 224)).maps
    assert [tuple(m.shape[1:]) for m in maps] == [(128, 28, 28), (256, 14, 14), (512, 7, 7)]
    last = house.backbone("torchvision/resnet18").factory((3, 224, 224), weights="random", taps="convolutions")
    maps = last.eval()(torch.zeros(1, 3, 224, 224)).maps
    assert [tuple(m.shape[1:]) for m in maps] == [(512, 7, 7)] * 3


# --- C. Two-level CAM ------------------------------------------------------------------------------------------------


def four_maps():
    local = torch.zeros(1, 4, 4, 4, dtype=D)
    local[0, 0, :2, :2] = t([4.0, 3], [3, 2])
    local[0, 1, 1:3, 1:3] = t([1.0, 3], [3, 4])
    local[0, 2, 3, 3] = 15
    local[0, 3, 0, :2] = 2
    local[0, 3, 1, 1] = 1
    return local


WG = t([1.0, 0.5, 0, 0.5], [0.5, 1, 0.2, 0])


def test_the_attended_region_and_the_scores_are_those_worked_out():
    local = four_maps()
    near(local.mean((2, 3)), t(0.75, 0.6875, 0.9375, 0.3125))
    average = average_cam(local, WG, torch.ones(1, 2, dtype=D), "mean")
    near(average, t([3.5, 2.75, 0, 0], [2.25, 2.5, 2.25, 0], [0, 2.25, 3, 0], [0, 0, 0, 1.5]))
    for connectivity, size, scores in ((4, 7, [4, 4, 0, 3]), (8, 8, [4, 4, 1, 3])):
        region = attended(average[0].numpy(), "largest", connectivity, "mean")
        assert region.sum() == size
        found = map_scores(local, torch.from_numpy(region)[None])
        assert found[0].tolist() == scores
        assert select(found, 2)[0].tolist() == [True, True, False, False]
        order = found[0].sort(descending=True, stable=True).indices
        assert order.tolist() == [0, 1, 3, 2]
    assert attended(average[0].numpy(), "full", 4, "mean").sum() == 8


def test_signed_and_absolute_cams_are_what_their_names_say():
    local, z = four_maps(), t([0.3, -0.2])
    each = torch.einsum("kc,bchw->bkhw", WG, local)
    near(average_cam(local, WG, z, "signed"), (each[:, 0] - each[:, 1]) / 2)
    near(average_cam(-local, WG, z, "abs"), each.abs().mean(1))


def cascade(depth, selected=(True, True, False, False)):
    index = Cascade(Hamming("global"), Hamming("local", mask="mask"), depth)
    index.add(
        {
            "global": torch.tensor([[1, 1], [1, 0], [1, 0], [0, 1]]).bool(),
            "local": torch.tensor([[1, 1, 1, 1], [1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 0, 0]]).bool(),
        }
    )
    query = {
        "global": torch.tensor([[1, 0]]).bool(),
        "local": torch.tensor([[1, 1, 0, 1]]).bool(),
        "mask": torch.tensor([list(selected)]),
    }
    return index, query


def test_a_cascade_ranks_the_head_again_and_leaves_the_rest_behind():
    index, query = cascade(3)
    assert Hamming("local")(query, {"local": query["local"]}).tolist() == [[0]]
    fine = Scan(Hamming("local", mask="mask"))
    fine.add({"local": torch.tensor([[1, 1, 1, 1], [1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 0, 0]]).bool()})
    ranking = fine.search(query, 4)
    assert dict(zip(ranking.rows[0].tolist(), ranking.distances[0].tolist(), strict=True)) == {0: 0, 1: 1, 2: 2, 3: 0}
    everything = {**query, "mask": torch.ones(1, 4, dtype=torch.bool)}
    whole = fine.search(everything, 4)
    assert dict(zip(whole.rows[0].tolist(), whole.distances[0].tolist(), strict=True)) == {0: 1, 1: 1, 2: 3, 3: 1}
    assert index.search(query, 4).rows[0].tolist() == [0, 1, 2, 3]
    assert index.stored_bits() == 6
    assert index.nbytes() == 8


def test_a_depth_of_one_never_puts_an_item_before_one_that_is_coarsely_nearer():
    index, query = cascade(1)
    assert index.search(query, 4).rows[0].tolist() == [1, 2, 0, 3]
    index, query = cascade(4)
    assert index.search(query, 4).rows[0].tolist() == [0, 3, 1, 2]  # by (fine, coarse)


def test_the_rank_groups_of_a_cascade_do_not_depend_on_the_order_of_the_database():
    from hashzoo.evaluation.metrics import score
    from hashzoo.hamming.relevance import relevance

    g = np.random.default_rng(0)
    codes = {"global": torch.from_numpy(g.random((60, 4)) < 0.5), "local": torch.from_numpy(g.random((60, 20)) < 0.5)}
    query = {n: torch.from_numpy(g.random((5, v.shape[1])) < 0.5) for n, v in codes.items()}
    query["mask"] = torch.from_numpy(g.random((5, 20)) < 0.5)
    labels, asked = g.integers(3, size=60), g.integers(3, size=5)
    values = []
    for order in (np.arange(60), g.permutation(60)):
        index = Cascade(Hamming("global"), Hamming("local", mask="mask"), 13)
        index.add({n: v[order] for n, v in codes.items()})
        counts = index.counts(query, relevance(asked, labels[order]))
        values.append(score(counts, ["map@all", "map@10"]))
    assert all(np.array_equal(values[0][n], values[1][n]) for n in values[0])


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.integers(1, 150), st.integers(1, 12))
def test_masked_distances_equal_brute_force_and_grow_with_the_mask(seed, width, count):
    from hashzoo.hamming.distances import masked_distances
    from hashzoo.hamming.packing import pack

    g = np.random.default_rng(seed)
    query, database = g.random((3, width)) < 0.5, g.random((count, width)) < 0.5
    small = g.random((3, width)) < 0.5
    large = small | (g.random((3, width)) < 0.5)
    brute = [[int(((q != d) & m).sum()) for d in database] for q, m in zip(query, small, strict=True)]
    found = masked_distances(pack(query), pack(small), pack(database))
    assert found.tolist() == brute
    more = masked_distances(pack(query), pack(large), pack(database))
    whole = masked_distances(pack(query), pack(np.ones_like(small)), pack(database))
    assert (found <= more).all()
    assert (more <= whole).all()


def test_masked_distances_are_the_same_without_numba(monkeypatch):
    from hashzoo.hamming.distances import masked_distances
    from hashzoo.hamming.packing import pack

    g = np.random.default_rng(1)
    packed = [pack(g.random((n, 70)) < 0.5) for n in (4, 4, 30)]
    compiled = masked_distances(*packed)
    monkeypatch.setenv("HASHZOO_NUMBA", "off")
    assert np.array_equal(compiled, masked_distances(*packed))
    with pytest.raises(ValueError, match="mask for each query"):
        masked_distances(packed[0], packed[1][:2], packed[2])


def test_a_constant_map_has_no_region_and_all_local_bits_count():
    constant = np.full((4, 4), 0.3)
    for kind in ("largest", "full"):
        assert not attended(constant, kind, 8, "mean").any()
    scores = map_scores(four_maps(), torch.zeros(1, 4, 4, dtype=torch.bool))
    assert select(scores, 2).all()


def test_of_two_components_as_large_the_first_in_raster_order_is_taken():
    grid = np.zeros((5, 5))
    grid[0, 4] = grid[1, 4] = grid[4, 0] = grid[4, 1] = 1
    assert np.argwhere(attended(grid, "largest", 4, "mean")).tolist() == [[0, 4], [1, 4]]
    assert attended(grid * 10, "largest", 4, "max").sum() == 2


def test_the_two_level_loss_is_half_the_contrastive_one_of_each_level():
    terms = TwoLevelLoss(SETTING, classification=0.0)(Output(U, extra={"local": Z}), batch(Y))
    near(terms["global pair"], 2.5066666667 / 2 / 4)  # a bit: divided by the length of the code
    near(terms["local pair"], float(upper(contrastive(Z, batch(Y).similar, 8.0)).mean()) / 2 / 4)
    near(terms["global quantization"], 0.01 * sum(abs(abs(float(u)) - 1) for u in U.flatten()) / U.numel())
    with pytest.raises(ValueError, match="use the head two-level"):
        TwoLevelLoss(SETTING, classification=0.0)(Output(U), batch(Y))


@pytest.mark.parametrize("multilabel", [False, True])
def test_the_classifiers_of_two_level_add_their_cross_entropy_and_learn(multilabel):
    setting = Setting(4, 2, multilabel, torch.tensor([2, 1]), 3)
    torch.manual_seed(0)
    plain = TwoLevelLoss(setting, classification=0.0)
    loss = TwoLevelLoss(setting, classification=3.0, local_bits=4).double()
    output = Output(Z, extra={"local": Z * 0.5})
    terms = loss(output, batch(Y))
    assert terms.keys() - plain(output, batch(Y)).keys() == {"global classification", "local classification"}
    for level, code in (("global", Z), ("local", Z * 0.5)):
        scores = code @ loss.classifiers[level].weight.T + loss.classifiers[level].bias
        if multilabel:
            p = torch.sigmoid(scores)
            expected = -(Y * p.log() + (1 - Y) * (1 - p).log()).mean()
        else:
            expected = -(Y * torch.log_softmax(scores, 1)).sum(1).mean()
        near(terms[f"{level} classification"], 3 * expected)
    data = synthetic_splits(multilabel)
    method = TwoLevelCAM(data.setting(8), Probe(), local_bits=16, classification=3.0)
    before = [c.weight.detach().clone() for c in method.loss.classifiers.values()]
    method.fit(data.train, Run(Budget(epochs=1, batch=60), 0))
    assert not any(torch.equal(a, c.weight) for a, c in zip(before, method.loss.classifiers.values(), strict=True))


def test_two_level_codes_are_those_of_their_definition():
    data = synthetic_splits()
    torch.manual_seed(0)
    method = TwoLevelCAM(data.setting(8), Probe(), local_bits=24, selected=5)
    method.train()
    run = Run(Budget(epochs=1, batch=32), 0)
    method.fit(data.train, run)
    codes = encode(run, method, data.query)
    assert {n: v.shape[1] for n, v in codes.items()} == {"global": 8, "local": 24, "mask": 24}
    assert set(codes["mask"].sum(1).tolist()) <= {5, 24}
    with torch.no_grad():
        images = next(iter(run.blank(data.query))).images
        output = method.head(method.backbone(images))
        g = output.extra["maps"].mean((2, 3))
        z = g @ method.head.hash.weight.T  # linear after pooling, so that a CAM is exact
        norm = method.head.global_norm
        shares = (z - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
        cams = torch.einsum("kc,bchw->bkhw", method.head.weight(), output.extra["maps"])
    assert torch.equal(codes["local"], g >= method.head.norm.running_mean)
    assert torch.equal(codes["global"], z >= norm.running_mean)
    near(cams.mean((2, 3)) - norm.running_mean / (norm.running_var + norm.eps).sqrt(), shares, places=1e-4)


# --- D. DCOH ---------------------------------------------------------------------------------------------------------

H1, H2, H3 = t([0.9, -0.8, 0.6, -0.7]), t([-0.5, 0.9, 0.7, -0.6]), t([-0.6, 0.8, -0.9, 0.7])
L1, L2, L3 = t([1.0, 1, 0, 0]), t([0, 1.0, 1, 0]), t([0, 0, 1.0, 1])


def operators(tie=False):
    made = Operators(4, tie).double()
    eye = torch.eye(4, dtype=D)
    for name, (left, right) in {"union": (0.5, 0.5), "intersection": (0.5, 0.5), "difference": (1, -0.5)}.items():
        made.maps[name].data = torch.cat([left * eye, right * eye], 1)
    return made


def test_the_operators_compose_as_worked_out():
    on = operators()
    union = on("union", H1, H2)
    near(union, t(0.2, 0.05, 0.65, -0.65))
    composite = on("difference", union, H2)
    near(composite, t(0.45, -0.4, 0.3, -0.35))
    assert (union >= 0).tolist() == [[True, True, True, False]]
    assert (composite >= 0).tolist() == [[True, False, True, False]]
    eye, zero = torch.eye(4, dtype=D), torch.zeros(4, 4, dtype=D)
    joined = on.maps["difference"] @ torch.cat([on.maps["union"], torch.cat([zero, eye], 1)])
    near(composite, torch.cat([H1, H2], 1) @ joined.T)
    lop = operators()
    lop.maps["union"].data = torch.cat([0.6 * eye, 0.4 * eye], 1)
    near(lop("union", H1, H2), t(0.34, -0.12, 0.64, -0.66))
    near(lop("union", H2, H1), t(0.06, 0.22, 0.66, -0.64))
    tied = operators(tie=True)
    tied.maps["union"].data = lop.maps["union"].data
    near(tied("union", H1, H2), tied("union", H2, H1))


def test_label_sets_compose_as_worked_out():
    united = algebra("union", L1, L2)
    assert united.tolist() == [[1, 1, 1, 0]]
    assert algebra("intersection", L1, L2).tolist() == [[0, 1, 0, 0]]
    assert algebra("difference", L1, L2).tolist() == [[1, 0, 0, 0]]
    assert algebra("difference", united, L2).tolist() == [[1, 0, 0, 0]]
    small = t([0.0, 1, 0, 0])
    assert algebra("difference", small, L2).tolist() == small.tolist()
    assert algebra("difference", algebra("union", small, L2), L2).tolist() == L2.tolist()


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**31))
def test_label_sets_keep_the_order_of_sets_and_a_difference_is_never_empty(seed):
    g = torch.Generator().manual_seed(seed)
    a, b = (torch.rand(20, 5, generator=g).round() for _ in range(2))
    assert (algebra("union", a, b) >= a).all()
    assert (a >= algebra("intersection", a, b)).all()
    assert (algebra("difference", a, b).sum(1) > 0)[a.sum(1) > 0].all()


def test_triplets_equal_the_reference_values():
    union = operators()("union", H1, H2)
    codes, labels = torch.cat([union, H1, H3, H2]), torch.cat([algebra("union", L1, L2), L1, L3, L2])
    s = overlap(labels, "jaccard")
    near(s[0, 1:3], t(2 / 3, 1 / 4))
    near((4 - codes @ codes.T)[0, 1:3] / 2, t(1.5075, 2.56))
    near((4 - codes @ codes.T)[3, [0, 2]] / 2, t(1.605, 2.015))
    near(triplets(codes[:3], s[:3, :3], 2.0, torch.tensor([0])), 0.0)
    three = torch.tensor([3, 0, 2])
    near(triplets(codes[three], s[three][:, three], 2.0, torch.tensor([0])), 0.2566666667)


def plain_triplets(codes, similar, margin, anchors):
    total, count = 0.0, 0
    for a in anchors:
        for p in range(len(codes)):
            for n in range(len(codes)):
                if a in (p, n) or similar[a, p] <= similar[a, n]:
                    continue
                d = [float(len(codes[a]) - codes[a] @ codes[x]) / 2 for x in (p, n)]
                total += max(0.0, d[0] - d[1] + margin * float(similar[a, p] - similar[a, n]))
                count += 1
    return total / max(1, count)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31), st.sampled_from(["jaccard", "count"]))
def test_triplets_equal_plain_loops(seed, kind):
    g = torch.Generator().manual_seed(seed)
    codes = torch.tanh(torch.randn(6, 5, generator=g, dtype=D))
    labels = torch.rand(6, 4, generator=g, dtype=D).round()
    labels[:, 0] = 1
    s = overlap(labels, kind)
    anchors = torch.randperm(6, generator=g)[:3]
    found = float(triplets(codes, s, 2.5, anchors))
    assert found == pytest.approx(plain_triplets(codes, s, 2.5, anchors.tolist()), abs=1e-9)


def test_the_players_losses_equal_the_reference_values():
    w = t(0.5, -0.25, 0.25, 0)
    union = operators()("union", H1, H2)
    real, fake = (H1 @ w), (union @ w)
    near(torch.sigmoid(real), 0.6899744811)
    near(torch.sigmoid(fake), 0.5621765009)
    near(discriminator_loss(real, fake), 1.1970400858)
    near(adversarial_loss(fake), 0.5759394199)
    loss = MultiLevel(Setting(4, 3, True, torch.ones(3), 3), semantic=1.0, quantization=1.0).double()
    loss.classifier.weight.data = t([1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, 1, 0])
    loss.classifier.bias.data.zero_()
    terms = loss(Output(union), batch(torch.ones(1, 3, dtype=D)))
    near(terms["semantic"], 0.5788846177)
    near(terms["quantization"], 0.446875)
    near(terms["triplet"], 0.0)


def test_what_the_discriminator_says_never_reaches_the_network():
    data = synthetic_splits(multilabel=True)
    torch.manual_seed(0)
    method = DCOH(data.setting(8), Probe(), hidden=16, semantic=0.0, quantization=0.0, warmup=0.0)
    method.loss.terms = lambda codes, labels, generator: {"nothing": codes.sum() * 0}
    before = {n: v.clone() for n, v in method.named_parameters()}
    method.train()
    method.fit(data.train, Run(Budget(epochs=1, batch=32, optimizer="sgd", momentum=0.0, lr=0.1), 0))
    moved = {n.split(".")[0] for n, v in method.named_parameters() if not torch.equal(before[n], v)}
    assert moved == {"operators", "discriminator"}


def test_an_empty_intersection_is_left_out_and_an_empty_label_set_is_refused():
    data = synthetic_splits(multilabel=True)
    method = DCOH(data.setting(8), Probe(), hidden=16)
    h, labels = torch.randn(4, 8), torch.eye(6)[[0, 1, 0, 2]]
    every = torch.tensor([0, 1]), torch.tensor([2, 3])  # one pair shares a label
    codes, sets = method.composed(h, labels, every, every)
    assert len(codes) == len(sets) == 2 + 1 + 2
    with pytest.raises(ValueError, match="at least one label per image"):
        overlap(torch.zeros(2, 3), "jaccard")


def test_a_composed_query_is_the_sign_of_the_operator_and_may_start_from_stored_codes():
    data = synthetic_splits(multilabel=True)
    one, other = t([0.9, 0.2, -0.1, -0.8]), t([-0.1, -0.9, 0.7, -0.1])  # their sums have other signs than their signs
    found = {}
    for kind in ("relaxed", "binary"):
        method = DCOH(data.setting(4), Probe(), hidden=16, query_codes=kind)
        method.operators = operators().float()
        a, b = ({"code": h >= 0, "relaxed": h.float()} for h in (one, other))
        found[kind] = method.compose("union", a, b)["code"].tolist()
    assert found["relaxed"] == [[True, False, True, False]]
    assert found["binary"] == [[True, True, True, False]]  # (+,+,-,-) and (-,-,+,-): a tie is +


def test_a_batch_has_as_many_anchors_as_the_option_says():
    data, seen = synthetic_splits(multilabel=True), []
    method = DCOH(data.setting(4), Probe(), hidden=16, anchors=5)
    terms = method.loss.terms

    def watched(codes, labels, anchors):
        seen.append(anchors.tolist())
        return terms(codes, labels, anchors)

    method.loss.terms = watched
    method.fit(data.train, Run(Budget(epochs=1, batch=60), 0))
    assert {len(set(rows)) for rows in seen} == {5}
    assert len({tuple(rows) for rows in seen}) == len(seen)


def test_side_information_of_composed_queries_is_no_bit():
    data = synthetic_splits(multilabel=True)
    local, mask = torch.tensor([[True, False]]), [torch.tensor([[True, False]]), torch.tensor([[False, True]])]
    two = TwoLevelCAM(data.setting(2), Probe(), local_bits=2)
    a, b = ({"global": local, "local": local, "mask": m} for m in mask)
    for operation in ("union", "intersection", "difference"):
        assert two.bitwise(operation, a, b)["mask"].all()
    from hashzoo_plugins.structured.swin_dual_stream import SwinDualStream

    swin = SwinDualStream(data.setting(2), Probe(), ranking="weighted")
    a, b = ({"code": local, "confidence": torch.tensor([row])} for row in ([0.8, 0.2, 0.0], [0.5, 0.0, 0.5]))
    near(swin.bitwise("union", a, b)["confidence"], t([0.65, 0.1, 0.25]))
    near(swin.bitwise("intersection", a, b)["confidence"], t([1.0, 0.0, 0.0]))
    near(swin.bitwise("difference", a, b)["confidence"], t([0.4 / 0.6, 0.2 / 0.6, 0.0]))


def test_a_difference_is_asked_as_the_option_says():
    data = synthetic_splits(multilabel=True)
    asked, trained = {}, {}
    for kind in ("mixed", "composite", "direct", "proper"):
        method = DCOH(data.setting(4), Probe(), hidden=16, difference=kind)
        method.operators = operators().float()
        a, b = ({"code": h >= 0, "relaxed": h.float()} for h in (H1, H2))
        asked[kind] = method.compose("difference", a, b)["code"]
        both, pair = torch.tensor([[1.0, 1, 0], [0, 1.0, 1]]), (torch.tensor([0]), torch.tensor([1]))
        codes, labels = method.composed(torch.cat([H1, H2]).float(), both, pair, pair)
        trained[kind] = codes[-1], labels[-1].tolist()
    own = operators()
    direct, composite = (own("difference", h, H2) for h in (H1, own("union", H1, H2)))
    for kind, expected in (("mixed", direct), ("composite", composite), ("direct", direct), ("proper", direct)):
        assert torch.equal(asked[kind], expected >= 0), kind
    for kind, expected in (("mixed", composite), ("composite", composite), ("direct", direct), ("proper", direct)):
        near(trained[kind][0].double(), expected[0])
        assert trained[kind][1] == [1.0, 0.0, 0.0]


# --- E. Dual stream, DHD ---------------------------------------------------------------------------------------------

HT, HS = t([0.8, -0.6, 0.9, -0.2]), t([0.5, -0.7, 0.6, 0.1])
PROXIES = t([1.0, -1, 1, -1], [-1, 1, 1, 1], [1, 1, -1, -1])
THREE = Setting(4, 3, False, torch.ones(3), 1)


def dhd(**options):
    loss = DHD(THREE, **options).double()
    loss.proxies.data = PROXIES.clone()
    return loss


def test_dhd_equals_the_reference_values():
    teacher, student = HT.clone().requires_grad_(), HS.clone().requires_grad_()
    terms = dhd()(Output(teacher, extra={"second": student}), batch(torch.eye(3, dtype=D)[:1]))
    near(terms["proxy"], 0.0067963565)
    near(terms["distillation"], 0.1 * 0.0649013182)
    near(terms["quantization"], 0.1 * 0.4415082224)
    total = sum(terms.values())
    near(total, 0.0574373106)
    total.backward()
    near(teacher.grad, t(-0.0138719143, 0.0534176047, -0.0061863438, 0.0931757011))
    near(student.grad, t(-0.0137052247, -0.0171000969, -0.0122592607, 0.0223810092))
    near(proxy_scores(PROXIES, HT), t(0.9190182776, -0.2573251177, -0.1838036555))
    many = dhd()(Output(HT), batch(t([1.0, 0, 1])))
    near(many["proxy"], 2.7638511894)
    assert "distillation" not in many


def test_the_quantization_of_dhd_equals_the_reference_values_bit_by_bit():
    for h, expected in {
        0.0: 2.1454134579,
        0.1: 1.7131263453,
        0.25: 1.1699313991,
        0.5: 0.5111711623,
        0.75: 0.1271898872,
        0.9: 0.0207320703,
        1.0: 0.000335,
    }.items():
        places = 1e-9 if h < 1 else 1e-6
        for sign in (1, -1):
            near(likelihood_gap(t([sign * h]), 0.5), expected, max(places, 1e-6))
    assert 2 - math.log(1 - math.exp(-2)) == pytest.approx(2.1454134579)
    g = {s: torch.exp(-((HT - s) ** 2) / 0.5) for s in (1, -1)}
    near(g[1], t(0.92311635, 0.00597602, 0.98019867, 0.05613476))
    near(g[-1], t(0.00153381, 0.72614904, 0.00073180, 0.27803730))


def test_the_teacher_gets_no_gradient_from_distillation_and_scale_does_not_matter_to_proxies():
    teacher, student = HT.clone().requires_grad_(), HS.clone().requires_grad_()
    loss = dhd(quantization=0.0)
    terms = loss(Output(teacher, extra={"second": student}), batch(torch.eye(3, dtype=D)[:1]))
    (slope,) = torch.autograd.grad(terms["distillation"], teacher, allow_unused=True)
    assert slope is None
    scaled = dhd()
    scaled.proxies.data = PROXIES * t([2.0], [0.5], [3.0])
    near(scaled(Output(HT * 7), batch(Y3))["proxy"], dhd()(Output(HT), batch(Y3))["proxy"])
    rows = t([1.0, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1])
    on_rows = dhd()
    on_rows.proxies.data = rows
    near(on_rows(Output(rows[:1]), batch(Y3))["proxy"], math.log(1 + 2 * math.exp(-5)))
    assert 4 / 2 * (1 - float(proxy_scores(signs(HS), signs(HT)))) == pytest.approx(1.0)  # is the Hamming distance


Y3 = torch.eye(3, dtype=D)[:1]


def test_dhd_changes_no_label_and_refuses_a_image_without_one():
    labels = t([1.0, 0, 1])
    kept = labels.clone()
    first, second = (dhd()(Output(HT), batch(labels))["proxy"] for _ in range(2))
    assert torch.equal(labels, kept)
    assert torch.equal(first, second)
    with pytest.raises(ValueError, match="at least one label per image"):
        dhd()(Output(HT), batch(torch.zeros(1, 3, dtype=D)))


def test_the_stream_weights_are_absorbed_by_the_layer_behind():
    from hashzoo_plugins.backbones.dual_stream import DualStream

    torch.manual_seed(0)
    dual = DualStream(Probe().eval(), Probe().eval(), Probe().input).eval()
    layer = torch.nn.Linear(dual.dim, 5, bias=False)
    images = torch.randn(3, 1, 12, 12)
    plain = layer(dual(images).pooled)
    dual.alpha.data, dual.beta.data = torch.tensor(2.0), torch.tensor(0.5)
    half = dual.local.dim
    layer.weight.data = torch.cat([layer.weight[:, :half] / 2, layer.weight[:, half:] * 2], 1)
    assert torch.allclose(plain, layer(dual(images).pooled), atol=1e-5)


def test_stream_weights_are_not_decayed():
    from hashzoo_plugins.backbones.dual_stream import DualStream

    dual = DualStream(Probe(), Probe(), Probe().input)
    optimizer = Run(Budget(weight_decay=0.1), 0).optimizer(dual)
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert {decay[id(dual.alpha)], decay[id(dual.beta)]} == {0.0}
    assert decay[id(dual.local.stages[0][0].weight)] == 0.1


def test_confidence_breaks_ties_only_or_adds_to_the_distance():
    codes = {"code": torch.tensor([[1, 1], [1, 1], [1, 0]]).bool(), "confidence": torch.eye(2)[[0, 1, 1]]}
    query = {"code": torch.tensor([[1, 1]]).bool(), "confidence": torch.eye(2)[[1]]}
    assert Confident(0.5)(query, codes).tolist() == [[0.5, 0.0, 1.0]]
    assert Confident(3.0 * 2 / 2)(query, codes).tolist() == [[3.0, 0.0, 1.0]]
    index = Scan(Confident(0.5))
    index.add(codes)
    assert index.stored_bits() == 2 + 2 * 32


# --- F. DHN's variants -----------------------------------------------------------------------------------------------


def test_the_variants_of_dhn_equal_the_reference_values():
    near(3 * DHNE(SETTING, dissimilar=0.0)(Output(Z), batch(Y))["pair"], 0.5786375)
    near(3 * DHNE(SETTING)(Output(Z), batch(Y))["pair"], 1.4736375)
    near(3 * quantization(Z), 1.4193280429)
    terms = without_quantization(SETTING)(Output(Z), batch(Y))
    near(3 * terms["pair"], 0.8291590361)
    near(terms["quantization"], 0.0)


def test_dhn_b_ranks_by_what_dhn_takes_the_sign_of():
    from hashzoo.registry import zoo

    data, house = synthetic_splits(), zoo.load_plugins()
    codes = {}
    for name in ("dhn", "dhn-b"):
        torch.manual_seed(0)
        method = house.method(name).factory(data.setting(8), Probe())
        method.train()
        run = Run(Budget(epochs=2, batch=32), 0)
        method.fit(data.train, run)
        codes[name] = encode(run, method, data.query)
    assert torch.equal(codes["dhn"]["code"], codes["dhn-b"]["relaxed"] >= 0)


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e3])
def test_gradients_are_finite_at_the_corners_and_agree_with_finite_differences(scale):
    several = t([1.0, 1, 0], [0, 1, 0], [0, 1, 1])
    three = Setting(4, 3, True, torch.ones(3), 3)
    centered = SFDH(Setting(4, 3, False, torch.ones(3), 3)).double()
    made = {
        "sfdh": (centered, torch.eye(3, dtype=D)),
        "sfdh of several": (SFDH(three).double(), several),
        "contrastive": (Contrastive(three, quantization=0.01), several),
        "two-level": (TwoLevelLoss(three, local_bits=4).double(), several),
        "dcoh": (MultiLevel(three).double(), several),
        "dhd": (DHD(three).double(), several),
        "dhn-e": (DHNE(three), several),
    }
    for name, (loss, labels) in made.items():

        def total(code, loss=loss, labels=labels):
            output = Output(code, code[:, :3] * 0.7, {"local": code * 0.9, "student": code * 0.8 + 0.1})
            return sum(loss(output, batch(labels)).values())

        code = (Z * scale).requires_grad_()
        for value in (labels, torch.eye(3, dtype=D)[[1, 1, 1]]):
            (slope,) = torch.autograd.grad(total(code, labels=value), code)
            assert torch.isfinite(slope).all(), name
        if scale == 1.0 and name not in ("dhd",):  # its teacher is detached, which differences would not see
            assert torch.autograd.gradcheck(total, code), name


def test_cosine_of_composed_vectors_is_defined_for_every_operation():
    from hashzoo.method import bitwise

    a, b = {"x": torch.tensor([[0.5, -0.2]])}, {"x": torch.tensor([[0.1, 0.4]])}
    for operation in ("union", "intersection", "difference"):
        real, code = (bitwise(operation, *pair)["x"] for pair in ((a, b), ({"x": a["x"] >= 0}, {"x": b["x"] >= 0})))
        assert torch.equal(real >= 0, code)
    assert torch.isfinite(Cosine("x")(a, b)).all()
