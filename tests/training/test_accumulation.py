"""A batch that is computed in parts trains as a whole one does."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hashzoo.backbone import Backbone
from hashzoo.method import Deep, Loss
from hashzoo.run import Run
from hashzoo.testing import synthetic_splits
from hashzoo.training.accumulation import in_parts
from hashzoo.training.budget import Budget
from hashzoo.types import Batch, Features, Output


class Small(Backbone):
    """A layer on pixels; it counts the images of each pass."""

    def __init__(self, *more):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 6), *more)
        self.dim, self.seen = 6, []

    def forward(self, images):
        self.seen.append((len(images), torch.is_grad_enabled()))
        return Features(self.layers(images.flatten(1)[:, :64]))


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.code, self.classes = nn.Linear(6, 4), nn.Linear(6, 3)

    def forward(self, features):
        pooled = features.pooled
        return Output(self.code(pooled), self.classes(pooled), {"norm": pooled.square().sum(1), "unused": pooled})


class Pairs(Loss):
    """All pairs of a batch, and a term of every output."""

    def __init__(self, setting):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, output, batch):
        pair = (self.scale * output.code @ output.code.T - batch.similar).square().mean()
        return {"pair": pair, "class": output.logits.logsumexp(1).mean(), "norm": output.extra["norm"].mean()}


def batch_of(count=10, views=1):
    generator = torch.Generator().manual_seed(1)
    images = [torch.randn(count, 1, 8, 8, dtype=torch.float64, generator=generator) for _ in range(views)]
    return Batch(tuple(images), torch.eye(2, dtype=torch.float64)[torch.arange(count) % 2], torch.arange(count))


def gradients(modules, parts, views=1, seed=0):
    backbone, head, loss = modules
    for module in modules:
        module.zero_grad()
    batch = batch_of(views=views)

    def seen(one):
        outputs = [head(backbone(view)) for view in one.views]
        code = outputs[0].code + sum(other.code for other in outputs[1:])
        return Output(code, outputs[0].logits, outputs[0].extra)

    torch.manual_seed(seed)
    output, backward = (
        in_parts(seen, batch, parts, nn.ModuleList([backbone, head])) if parts > 1 else (seen(batch), None)
    )
    torch.stack(list(loss(output, batch).values())).sum().backward()
    if backward:
        backward()
    return {
        name: None if p.grad is None else p.grad.clone()
        for module in modules
        for name, p in module.named_parameters(prefix=type(module).__name__)
    }


@pytest.fixture
def modules():
    torch.manual_seed(0)
    return Small(nn.Tanh()).double(), Head().double(), Pairs(None).double()


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("parts", [2, 3, 5, 50])
def test_the_gradients_are_those_of_the_whole_batch(modules, parts, views):
    expected, found = gradients(modules, 1, views), gradients(modules, parts, views)
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, msg=name)
        assert gradient.abs().sum() > 0


def test_no_pass_with_gradients_has_more_images_than_a_part_and_no_part_has_one(modules):
    modules[0].seen.clear()
    gradients(modules, 4)
    assert [count for count, graded in modules[0].seen if graded] == [3, 3, 2, 2]
    modules[0].seen.clear()
    gradients(modules, 50)
    assert min(count for count, _ in modules[0].seen) == 2


def test_both_passes_draw_the_same_random_numbers():
    torch.manual_seed(0)
    drawn = []
    dropout = nn.Dropout(0.5)
    dropout.register_forward_hook(lambda module, inputs, out: drawn.append(out.detach()))
    modules = Small(dropout).double(), Head().double(), Pairs(None).double()
    gradients(modules, 2)
    torch.testing.assert_close(drawn[:2], drawn[2:])
    assert not torch.equal(drawn[0], drawn[1])


def test_what_a_loss_draws_is_not_drawn_again_after_the_backward_pass(modules):
    backbone, head, loss = modules
    batch = batch_of()
    output, backward = in_parts(lambda one: head(backbone(one.images)), batch, 2, nn.ModuleList([backbone, head]))
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    drawn = torch.rand(1)  # as by a loss
    torch.stack(list(loss(output, batch).values())).sum().backward()
    backward()
    torch.testing.assert_close(torch.cat([drawn, torch.rand(1)]), expected)


def test_running_statistics_are_updated_once_for_each_part():
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(6)
    modules = Small(norm).double(), Head().double(), Pairs(None).double()
    gradients(modules, 2)
    assert (norm.num_batches_tracked.item(), norm.track_running_stats) == (2, True)
    expected, parts = torch.zeros(6, dtype=torch.float64), batch_of().views[0].split(5)
    for part in parts:
        expected = 0.9 * expected + 0.1 * modules[0].layers[0](part.flatten(1)[:, :64]).mean(0)
    torch.testing.assert_close(norm.running_mean, expected.detach())


def test_the_budget_trains_a_composed_method_in_parts_with_the_same_codes():
    data, codes = synthetic_splits(), []
    for parts in (1, 4):
        torch.manual_seed(0)
        method = Deep(Small(nn.Tanh()), Head(), Pairs(None))
        run = Run(Budget(epochs=2, batch=16, accumulate=parts), 0)
        method.fit(data.train, run)
        with torch.no_grad():
            codes.append(method.relaxed(next(run.blank(data.query))))
    torch.testing.assert_close(codes[1], codes[0], rtol=1e-4, atol=1e-5)


def test_one_part_is_no_part_of_a_key():
    assert "accumulate" not in Budget().recorded()
    assert Budget(accumulate=4).recorded()["accumulate"] == 4
