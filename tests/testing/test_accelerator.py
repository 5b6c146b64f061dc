"""What must run on a GPU runs on a pretended one here, and on a real one with ``pytest -m gpu``."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from hashzoo import Card, Method, bits
from hashzoo.testing import check_method, pretended_accelerator, synthetic_splits
from hashzoo.testing.accelerator import problem_on_accelerator
from hashzoo.testing.methods import fit_and_encode

DATA = synthetic_splits()


# The device itself


def network():
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 8), nn.Dropout()
    return nn.Sequential(*layers)


def trained(device, make, lower):
    net = network().to(device)
    optimizer = make(net.parameters())
    torch.manual_seed(1)
    images = torch.randn(16, 1, 8, 8).to(device)
    for _ in range(3):
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=lower):
            code = net(images)
        assert code.dtype == (torch.bfloat16 if lower else torch.float32)
        gram = code.float() @ code.float().T
        (gram - torch.eye(16, device=device)).square().mean().backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
    return {name: value.cpu() for name, value in net.state_dict().items()}


@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("make", [torch.optim.Adam, lambda given: torch.optim.SGD(given, 0.1, momentum=0.9)])
def test_training_on_the_accelerator_gives_the_values_of_the_cpu(make, lower):
    expected = trained("cpu", make, lower)
    with pretended_accelerator() as accelerator:
        found = trained(accelerator.name, make, lower)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def operations(device):
    """Tensors of both devices for the expressions below."""
    x, c = torch.arange(6.0, device=device).view(2, 3), torch.ones(2, 3)
    here = torch.Generator(device).manual_seed(0)
    return {"x": x, "c": c, "one": torch.tensor([1]), "here": here, "cpu": torch.Generator(), "device": device}


NAMES = {"torch": torch, "np": np, "functional": nn.functional}

REFUSED = [
    *("x + c", "c * x", "x @ c.T", "torch.tensor(2.0).add_(x.sum())", "torch.cat([x, c])", "torch.equal(x, c)"),
    *("torch.stack([x.sum(), torch.tensor(1.0)])", "torch.where(c > 0, x, x)", "x.masked_fill(c > 0, 0)"),
    *("x.index_select(0, one)", "x.gather(1, one.view(1, 1))", "c[one.to(device)]", "c[x > 0]"),
    *("functional.embedding(one, x)", "functional.linear(x, c)", "functional.mse_loss(x, c)", "torch.maximum(x, c)"),
    *("x.numpy()", "np.asarray(x)", "x.sum(1).requires_grad_().numpy()", "x.long() @ x.long().T"),
    *("torch.randn(2, device=device, generator=cpu)", "torch.randn(2, generator=here)", "x.normal_(generator=cpu)"),
    *("x.index_put((one,), c[1])", "torch.linalg.lstsq(x.T, x.T, driver='gelsd')", "x.data.add_(c)"),
]

ALLOWED = [
    *("x + torch.tensor(2.0)", "torch.tensor(2.0) * x", "x + 1", "x.clamp(min=torch.tensor(1.0))", "x.cpu() + c"),
    *("x[one]", "x[c > 0]", "c.copy_(x)", "x.copy_(c)", "x.__setitem__(0, c[0])", "c.to(x) + x", "c[x.argmax() // 9]"),
    *("torch.where(x > 0, 1.0, -1.0) * x", "x.clone().unsqueeze_(0) + x", "x.new_tensor([1, 2, 3]) + x"),
    *("torch.tensor([1, 2, 3], device=device) + x", "torch.as_tensor(c, device=device) + x", "x.new_zeros(3) + x"),
    *("torch.randn(3, device=device, generator=here) + x", "torch.randn(3, device=device) + x", "f'{x.sum():.3f}'"),
    *("x.unique()", "x.tolist()", "float(x.max())", "bool(x.any())", "torch.linalg.svd(x).S", "torch.cdist(x, x)"),
    *("functional.scaled_dot_product_attention(x[None], x[None], x[None])", "x.detach().cpu().numpy()", "list(x)"),
    *("functional.cross_entropy(x, x.argmax(1))", "functional.embedding(x.argmax(1) // 9, x)", "x.sort(1).values + x"),
]


@pytest.mark.parametrize("expression", REFUSED)
def test_what_a_gpu_refuses_raises(expression, device):
    with pytest.raises((RuntimeError, TypeError)):
        eval(expression, NAMES, operations(device))


@pytest.mark.parametrize("expression", ALLOWED)
def test_what_a_gpu_computes_runs(expression, device):
    eval(expression, NAMES, operations(device))


def test_a_module_keeps_its_parameters_and_what_they_share_when_it_moves(device):
    net = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
    net[1].weight = net[0].weight
    before = net[0].weight
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    net.to(device)
    assert net[0].weight is before is net[1].weight is optimizer.param_groups[0]["params"][0]
    assert isinstance(net[0].bias, nn.Parameter)
    copied = copy.deepcopy(net)
    copied[0].weight.data.mul_(0)
    copied[0].bias.data = torch.ones(3, device=device)
    assert not copied[1].weight.any()
    assert net[0].weight.any()
    assert copied[0].bias.tolist() == [1, 1, 1]
    net.to("cpu").load_state_dict(copied.state_dict())
    assert net[0](torch.ones(3)).tolist() == [1, 1, 1]


def test_threads_use_the_accelerator_too(device):
    x = torch.ones(2, device=device)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: (torch.ones(2).to(device) + x).tolist()).result() == [2, 2]


def test_nothing_of_torch_stays_replaced():
    before = torch.tensor, torch.autocast, torch.Generator
    with pretended_accelerator():
        assert isinstance(torch.Generator(), torch.Generator)
    assert (torch.tensor, torch.autocast, torch.Generator) == before
    assert torch.ones(1, device="meta").is_meta


# Planted faults


class Sound(Method):
    """Trains a linear layer towards orthogonal codes. Subclasses plant faults."""

    card = Card("shallow", "none", informative=False)

    def __init__(self, setting, backbone):
        super().__init__()
        self.backbone, self.layer = backbone, nn.Linear(backbone.dim, setting.bits)
        self.register_buffer("mean", torch.zeros(backbone.dim))
        self.register_buffer("noise", torch.zeros(setting.bits))
        self.kept = torch.eye(setting.bits)

    def fit(self, train, run):
        self.mean = run.features(self.backbone, train).pooled.mean(0)
        self.noise = torch.randn(self.noise.shape, generator=run.generator).to(run.device)
        optimizer = run.optimizer(self.layer)
        for batch in run.batches(train):
            code = self.relaxed(batch)
            run.step(optimizer, {"loss": self.loss(code, batch, train)})

    def loss(self, code, batch, train):
        return (code @ code.T / code.shape[1] - torch.eye(len(code), device=code.device)).square().mean()

    def relaxed(self, batch):
        return self.layer(self.backbone(batch.images).pooled - self.mean)

    def encode(self, batch):
        return {"code": bits(self.relaxed(batch) + self.noise)}


class CpuTensorInLoss(Sound):
    def loss(self, code, batch, train):
        target = torch.ones(code.shape)
        return (code - target).square().mean()


class UnregisteredBuffer(Sound):
    def loss(self, code, batch, train):
        return (code.T @ code - self.kept).square().mean()


class NumpyInLoop(Sound):
    def loss(self, code, batch, train):
        self.largest = code.detach().numpy().max()
        return super().loss(code, batch, train)


class CpuGenerator(Sound):
    def fit(self, train, run):
        super().fit(train, run)
        self.noise = torch.randn(self.noise.shape, generator=run.generator, device=run.device)


class MaskOnTheWrongSide(Sound):
    def loss(self, code, batch, train):
        several = train.labels[batch.labels.sum(1) > 1]
        return super().loss(code, batch, train) + len(several)


class EyeWithoutDevice(Sound):
    def loss(self, code, batch, train):
        return (code @ code.T - torch.eye(len(code))).square().mean()


class PlainAttribute(Sound):
    def fit(self, train, run):
        super().fit(train, run)
        self.offset = train.labels.sum() * torch.ones(self.noise.shape)

    def encode(self, batch):
        return {"code": bits(self.relaxed(batch) - self.offset)}


class IndexFromCpu(Sound):
    def loss(self, code, batch, train):
        return super().loss(code.index_select(0, torch.arange(4)), batch, train)


FAULTS = {
    CpuTensorInLoss: "found one of shape (32, 16) on the CPU (in sub)",
    UnregisteredBuffer: "found one of shape (16, 16) on the CPU (in sub); move it with .to(device) or make it a buffer",
    NumpyInLoop: "use Tensor.cpu()",
    CpuGenerator: "expected a generator of the accelerator, but found one of the CPU",
    MaskOnTheWrongSide: "the index of a CPU tensor must be on the CPU",
    EyeWithoutDevice: "found one of shape (32, 32) on the CPU (in sub)",
    PlainAttribute: "found one of shape (16,) on the CPU (in sub)",
    IndexFromCpu: "found one of shape (4,) on the CPU (in index_select)",
}


@pytest.mark.parametrize("method", FAULTS)
def test_a_planted_fault_is_found_with_its_line(method):
    found = problem_on_accelerator(lambda name: fit_and_encode(method, DATA, 16, name))
    assert FAULTS[method] in found
    assert "(test_accelerator.py:" in found


@pytest.mark.parametrize("method", FAULTS)
def test_a_planted_fault_raises_on_the_device(method, device):
    with pytest.raises((RuntimeError, TypeError)):
        fit_and_encode(method, DATA, 16, device)


def test_a_method_without_a_fault_runs(device):
    assert fit_and_encode(Sound, DATA, 16, device)["code"].shape == (80, 16)


def test_the_check_of_methods_names_the_fault():
    found = {finding.check: finding.why for finding in check_method(EyeWithoutDevice) if not finding.ok}
    assert found.keys() == {"accelerator"}
    assert "(test_accelerator.py:" in found["accelerator"]
