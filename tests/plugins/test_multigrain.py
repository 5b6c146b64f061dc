"""Multi-grain hashing at its defaults, by plain loops: head, first phase, and the codes of single grains."""

from __future__ import annotations

import math

import pytest
import torch
from hashzoo_plugins.structured.multigrain import (
    GRAINS,
    Contrastive,
    MultiGrain,
    MultiGrainHashing,
    estimate_statistics,
)

from hashzoo.run import Run
from hashzoo.testing import Probe, synthetic_splits
from hashzoo.training.budget import Budget
from hashzoo.types import Batch, Features, Output, Setting

D = torch.float64
SETTING = Setting(4, 2, False, torch.tensor([2, 1]), 3)
DEPTHS = (2, 3, 4)


class Maps(torch.nn.Module):
    dim, map_dims = 4, DEPTHS


def inputs(count=3):
    g = torch.Generator().manual_seed(0)
    maps = tuple(torch.randn(count, d, s, s, generator=g, dtype=D) for d, s in zip(DEPTHS, (4, 2, 1), strict=True))
    return Features(torch.zeros(count, 4, dtype=D), maps)


def head(**options):
    torch.manual_seed(1)
    return MultiGrain(SETTING, Maps(), **options).double()


def pooled(layers, features):
    """f of every image by loops: each channel's mean over positions, weighted by the attention there."""
    rows = []
    for n in range(len(features)):
        row = []
        for layer, level in zip(layers, features.maps, strict=True):
            depth, height, width = level.shape[1:]
            weight, bias = layer.weight.flatten().tolist(), layer.bias.item()
            for c in range(depth):
                total = 0.0
                for u in range(height):
                    for v in range(width):
                        score = bias + sum(weight[k] * float(level[n, k, u, v]) for k in range(depth))
                        total += float(level[n, c, u, v]) / (1 + math.exp(-score))
                row.append(total / (height * width))
        rows.append(row)
    return rows


def normalized(layer, rows):
    """W f, minus its mean over the batch, over its deviation, by loops."""
    weight, norm = layer[0].weight.tolist(), layer[1]
    z = [[sum(w * x for w, x in zip(line, row, strict=True)) for line in weight] for row in rows]
    columns = []
    for k, column in enumerate(zip(*z, strict=True)):
        mean = sum(column) / len(column)
        variance = sum((x - mean) ** 2 for x in column) / len(column)
        gain, shift = norm.weight[k].item(), norm.bias[k].item()
        columns.append([gain * (x - mean) / math.sqrt(variance + norm.eps) + shift for x in column])
    return torch.tensor(columns, dtype=D).T


def test_the_code_is_the_sign_of_the_normalized_layer_and_its_gradient_that_of_the_layer():
    made, features = head(), inputs()
    torch.nn.init.normal_(made.hash[1].bias, std=0.1)
    expected = normalized(made.hash, pooled(made.attention, features))
    code = made(features).code
    assert torch.equal(code.detach(), torch.where(expected >= 0, 1.0, -1.0).to(D))
    pull = torch.tensor([[1.0, -2, 0.5, 1], [0, 1, 1, -1], [2, 0, -1, 0.5]], dtype=D)
    (code * pull).sum().backward()
    weight, step = made.hash[0].weight, 1e-6
    for place in ((0, 0), (2, 5), (3, 8)):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                weight[place] += sign * step
                values.append((normalized(made.hash, pooled(made.attention, features)) * pull).sum())
                weight[place] -= sign * step
        assert float(weight.grad[place]) == pytest.approx((values[0] - values[1]).item() / (2 * step), abs=1e-6)


def test_batch_normalization_folds_into_the_layer_of_the_article():
    made, features = head(), inputs(8)
    made(features)  # moves the running statistics
    linear, norm = made.eval().hash
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    w, v = scale[:, None] * linear.weight, norm.bias - scale * norm.running_mean
    f = torch.tensor(pooled(made.attention, features), dtype=D)
    assert torch.equal(made(features).code.detach() > 0, f @ w.T + v >= 0)


def test_the_older_relaxation_is_an_option():
    made, features = head(relax="tanh", norm="none"), inputs()
    f = torch.tensor(pooled(made.attention, features), dtype=D)
    torch.testing.assert_close(made(features).code, torch.tanh(f @ made.hash.weight.T + made.hash.bias))


def test_the_statistics_of_a_random_network_are_the_means_over_all_batches():
    data = synthetic_splits()
    torch.manual_seed(0)
    network = Probe()
    layer = next(m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d))
    seen: list[torch.Tensor] = []
    hook = layer.register_forward_hook(lambda _m, given, _out: seen.append(given[0]))
    run = Run(Budget(epochs=1, batch=32), 0)
    estimate_statistics(network.eval(), data.train, run)
    hook.remove()
    assert sum(map(len, seen)) >= len(data.train) - 1
    means = torch.stack([x.mean((0, 2, 3)) for x in seen]).mean(0)
    variances = torch.stack([x.transpose(0, 1).flatten(1).var(1) for x in seen]).mean(0)
    torch.testing.assert_close(layer.running_mean, means)
    torch.testing.assert_close(layer.running_var, variances)
    assert (layer.momentum, layer.training) == (0.1, False)
    before = layer.running_mean.clone()
    estimate_statistics(network, data.train.take(torch.arange(8)), run)  # it has seen batches by now
    assert torch.equal(layer.running_mean, before)


def test_the_statistics_of_a_pretrained_network_stay():
    network = Probe()
    network.weights = "file.pth 0123"
    estimate_statistics(network.eval(), synthetic_splits().train, Run(Budget(epochs=1, batch=32), 0))
    assert all(not m.running_mean.any() for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d))


def trained(grain_bits):
    data = synthetic_splits()
    torch.manual_seed(0)
    method = MultiGrainHashing(data.setting(8), Probe(), grain_bits=grain_bits, warmup=1.0)
    method.train()
    method.fit(data.train, Run(Budget(epochs=1, batch=32), 0))
    method.eval()
    with torch.no_grad():
        codes = method.encode(Batch((data.query.images / 255,), data.query.labels, data.query.ids))
    index = method.index()
    index.add(codes)
    return method, codes, index


def test_codes_of_grains_are_stored_and_counted_and_leave_the_joint_code_as_it_is():
    _, plain, alone = trained(0)
    method, codes, index = trained(5)
    assert list(plain) == ["code"]
    assert {name: values.shape[1] for name, values in codes.items()} == {"code": 8, **dict.fromkeys(GRAINS, 5)}
    assert torch.equal(plain["code"], codes["code"])
    assert (alone.stored_bits(), index.stored_bits()) == (8, 8 + 3 * 5)
    assert "5 bits" in method.card.beyond
    ranking, expected = index.search(codes, 5), alone.search(plain, 5)
    assert torch.equal(ranking.rows, expected.rows)
    assert torch.equal(ranking.distances, expected.distances)


def test_a_grain_is_hashed_from_its_own_stage_and_trains_its_own_layer_only():
    made, features = head(grain_bits=6), inputs()
    output, f = made(features), pooled(made.attention, features)
    start = 0
    for name, depth in zip(GRAINS, DEPTHS, strict=True):
        expected = normalized(made.grains[name], [row[start : start + depth] for row in f])
        assert torch.equal(output.extra[name].detach() > 0, expected >= 0), name
        start += depth
    output.extra["fine"].sum().backward()
    touched = {name for name, p in made.named_parameters() if p.grad is not None}
    assert touched
    assert all(name.startswith("grains.fine") for name in touched)


def test_the_loss_of_a_grain_has_the_margin_of_its_length():
    code = torch.tensor([[1.0, 1, 1, -1], [1, -1, 1, 1], [-1, 1, 1, 1]], dtype=D)
    fine = torch.tensor([[1.0, -1], [1, 1], [1, -1]], dtype=D)
    labels = torch.eye(2, dtype=D)[[0, 0, 1]]
    batch = Batch((torch.zeros(3, 1, 1, 1),), labels, torch.arange(3))
    terms = Contrastive(SETTING)(Output(code, extra={"fine": fine}), batch)
    # pairs (0, 1) similar, (0, 2) and (1, 2) not: squared distances 8, 8, 8 and 4, 0, 4; margins 8 and 4
    assert {name: float(value) for name, value in terms.items()} == {"pair": 8 / 3, "fine pair": (4 + 4 + 0) / 3}


def test_a_negative_length_of_a_grain_is_refused():
    with pytest.raises(ValueError, match="0 or more, not -1"):
        head(grain_bits=-1)
