"""Names of devices, and training in 16 bits."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hashzoo import EnvironmentFailure, UsageError
from hashzoo.bench.benchmark_file import Benchmark
from hashzoo.bench.overrides import Overrides
from hashzoo.registry import zoo
from hashzoo.run import Run
from hashzoo.testing import Probe, synthetic_splits
from hashzoo.training.budget import Budget
from hashzoo.training.checkpoints import capture_state, restore_state
from hashzoo.training.devices import resolve_device
from tests.training.test_checkpoints import job_of

NONE = {"cuda": 0, "mps": 0, "xpu": 0}


def machine(monkeypatch, **counts):
    """Pretend that there are so many devices of each kind."""
    counts = {**NONE, **counts}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: counts["cuda"] > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: counts["cuda"])
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: counts["mps"] > 0)
    monkeypatch.setattr(torch.xpu, "is_available", lambda: counts["xpu"] > 0)


@pytest.mark.parametrize(
    ("name", "found"),
    [("auto", "cuda"), ("cpu", "cpu"), ("cuda", "cuda"), ("cuda:1", "cuda:1"), ("mps", "mps"), ("xpu", "xpu")],
)
def test_a_device_that_is_there_is_used(name, found, monkeypatch):
    machine(monkeypatch, cuda=2, mps=1, xpu=1)
    assert resolve_device(name) == found


def test_auto_is_the_cpu_without_a_gpu_of_cuda(monkeypatch):
    machine(monkeypatch, mps=1)
    assert resolve_device("auto") == "cpu"


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps", "xpu"])
def test_a_device_that_is_missing_is_named_with_the_fix(name, monkeypatch):
    machine(monkeypatch)
    kind = name.split(":")[0].upper()
    with pytest.raises(EnvironmentFailure, match=f"no {kind} device is available here; use --device cpu"):
        resolve_device(name)


@pytest.mark.parametrize(
    ("name", "count", "kind", "says"),
    [
        ("cuda:2", 1, EnvironmentFailure, "there is no device cuda:2 here; the last one is cuda:1"),
        ("cuda", 3, EnvironmentFailure, "2 CUDA devices are available, not 3; use fewer --devices"),
        ("cuda:0", 2, UsageError, "--devices 2 cannot train on cuda:0; use --device cuda, or --devices 1"),
        ("mps", 2, UsageError, "--devices 2 cannot train on mps"),
    ],
)
def test_more_devices_than_there_are_is_one_line(name, count, kind, says, monkeypatch):
    machine(monkeypatch, cuda=2, mps=1)
    with pytest.raises(kind, match=says):
        resolve_device(name, count)


def trained(device, precision="fp16", factor=1.0):
    """A run and a network after an epoch of four steps."""
    torch.manual_seed(0)
    run = Run(Budget(epochs=1, batch=60, precision=precision, clip=1.0), 0, device=device)
    backbone = run.place(Probe())
    optimizer = run.optimizer(backbone)
    for batch in run.batches(synthetic_splits().train):
        features = backbone(batch.images).pooled
        assert features.dtype == torch.float32
        run.step(optimizer, {"loss": factor * features.square().mean()})
    return run, backbone


def test_fp16_scales_the_loss_and_comes_close_to_fp32(device):
    (run, scaled), (_, plain) = trained(device), trained(device, "fp32")
    assert run.scaler.state()["scale"] > 1
    for a, b in zip(scaled.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(a.detach().cpu(), b.detach().cpu(), atol=5e-3)


def test_a_step_whose_gradients_overflow_is_left_out_and_the_scale_is_halved(device):
    torch.manual_seed(0)
    before = nn.utils.parameters_to_vector(Probe().parameters())
    run, backbone = trained(device, factor=1e30)
    assert run.scaler.state()["scale"] == 2.0**16 / 2**4
    assert torch.equal(before, nn.utils.parameters_to_vector(backbone.parameters()).detach().cpu())


def test_the_scale_is_part_of_a_checkpoint(device):
    run, backbone = trained(device, factor=1e30)
    other, again = trained(device)
    restore_state(other, again, *capture_state(run, backbone))
    assert other.scaler.state() == run.scaler.state()


def test_the_precision_of_a_command_replaces_that_of_the_file_and_changes_the_key():
    plain = job_of("tanh+dch")
    values = {"name": "x", "dataset": "digits.small", "backbone": "tiny", "bits": [8], "methods": ["tanh+dch"]}
    ((file, _),) = Overrides(precision="fp16").apply(Benchmark.model_validate(values), zoo.load_plugins())
    assert file.train.precision == "fp16"
    assert job_of("tanh+dch", precision="fp16").identity.key != plain.identity.key
    assert job_of("tanh+dch", precision="fp32").identity.key == plain.identity.key
