"""Measuring a cell in the caller's process preserves its global state, and is reproducible."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from hashzoo.bench.benchmark_file import Benchmark
from hashzoo.bench.job import Execution
from hashzoo.bench.measure import measure
from hashzoo.bench.plan import plan
from hashzoo.errors import UsageError, status_of
from hashzoo.hamming.packing import get_threads
from hashzoo.registry import zoo
from hashzoo.training.process_state import CUBLAS_SETTINGS, deterministic, preserve_process_state

PLUGIN = '''
import os, random
import numpy as np
import torch
from hashzoo import Card, Method, bits, hookimpl


class Rude(Method):
    """Changes the global state and learns noise from every global generator."""

    card = Card("shallow", "none")

    def __init__(self, setting, backbone):
        super().__init__()
        self.backbone = backbone
        self.register_buffer("w", torch.zeros(backbone.dim, setting.bits))

    def fit(self, train, run):
        noise = torch.randn(self.w.shape) + torch.from_numpy(np.random.randn(*self.w.shape)) + random.random()
        self.w = noise.float()
        os.chdir("/")
        os.environ["RUDE"] = "1"
        os.environ.pop("HASHZOO_KEPT", None)
        os.environ["HASHZOO_CHANGED"] = "after"
        torch.set_num_threads(3)
        torch.set_float32_matmul_precision("medium")
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.deterministic = True
        torch.use_deterministic_algorithms(True, warn_only=True)

    def encode(self, batch):
        return {"code": bits(self.backbone(batch.images).pooled @ self.w)}


class Last(Rude):
    """Changes the state that scoring needs, then fails."""

    def fit(self, train, run):
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        torch.set_grad_enabled(False)
        raise RuntimeError("deliberate")


class Unordered(Rude):
    """Uses an operation without a deterministic implementation."""

    def fit(self, train, run):
        torch.zeros(4).put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]))


@hookimpl
def hashzoo_methods():
    return {"rude": Rude, "last": Last, "unordered": Unordered}
'''


@pytest.fixture
def job(tmp_path):
    (tmp_path / "rude.py").write_text(PLUGIN)
    plugins = (str(tmp_path / "rude.py"),)

    def made(method, **changes):
        values = {"name": "x", "dataset": "digits.small", "backbone": "pixels", "bits": [8], "methods": [method]}
        (one,) = plan(
            Benchmark.model_validate(values), zoo.load_plugins(plugins), baselines=False, execution=Execution(**changes)
        )
        return one

    return made


def process_state():
    return {
        "torch": torch.get_rng_state().tolist(),
        "numpy": [part.tolist() if isinstance(part, np.ndarray) else part for part in np.random.get_state()],
        "random": random.getstate(),
        "folder": Path.cwd(),
        "environment": dict(os.environ),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "gradient": torch.is_grad_enabled(),
        "determinism": torch.get_deterministic_debug_mode(),
        "precision": torch.get_float32_matmul_precision(),
        "cudnn": (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark),
        "threads": (torch.get_num_threads(), get_threads()),
    }


@pytest.mark.parametrize("method", ["rude", "last"])
def test_measuring_preserves_the_state_of_the_process(method, job, monkeypatch):
    monkeypatch.setenv("HASHZOO_KEPT", "1")
    monkeypatch.setenv("HASHZOO_CHANGED", "before")
    one = job(method)
    measure(job("rude"))  # what is loaded for the first time stays loaded
    before = process_state()
    if method == "last":
        with pytest.raises(RuntimeError, match="deliberate"):
            measure(one)
    else:
        measure(one)
    assert process_state() == before


def test_a_method_that_uses_global_generators_is_reproducible_and_depends_on_the_seed(job):
    one = job("rude")
    first = measure(one)[0]
    torch.manual_seed(5), np.random.seed(6), random.seed(7)
    again = measure(one)[0]
    assert again.metrics == first.metrics
    assert again.provenance["trained"] == first.provenance["trained"]
    other = Benchmark(name="x", dataset="digits.small", backbone="pixels", bits=[8], methods=["rude"], seeds=[1])
    (two,) = plan(other, zoo.load_plugins(one.inputs.plugins), baselines=False)
    assert measure(two)[0].provenance["trained"] != first.provenance["trained"]


def test_an_operation_without_a_deterministic_implementation_is_an_error_with_the_fix(job):
    assert measure(job("unordered"))[0].status == "ok"
    before = process_state()
    with pytest.raises(
        UsageError, match=r"put_.* has no deterministic implementation on this device.* omit --deterministic"
    ) as caught:
        measure(job("unordered", deterministic=True))
    assert process_state() == before
    status, reason = status_of(caught.value)
    assert (status, "\n" in reason) == ("failed", False)


def test_a_deterministic_cell_has_the_same_key_and_records_it(job):
    plain, strict = job("rude"), job("rude", deterministic=True)
    assert plain.identity.key == strict.identity.key
    found = measure(strict)[0]
    assert found.provenance["deterministic"] is True
    assert found.metrics == measure(plain)[0].metrics


def test_deterministic_sets_what_torch_and_cublas_require():
    with preserve_process_state(), deterministic(True):
        assert torch.get_deterministic_debug_mode() == 2
        assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark) == (True, False)
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == CUBLAS_SETTINGS["CUBLAS_WORKSPACE_CONFIG"]
    assert torch.get_deterministic_debug_mode() == 0
    with preserve_process_state(), deterministic(False):
        assert torch.get_deterministic_debug_mode() == 0


def test_other_errors_are_not_converted():
    with pytest.raises(RuntimeError, match="something else"), preserve_process_state(), deterministic(True):
        raise RuntimeError("something else")


def test_the_working_folder_can_have_been_deleted(tmp_path, monkeypatch):
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    with preserve_process_state():
        folder.rmdir()
    with preserve_process_state():
        os.chdir(tmp_path)
    os.chdir(tmp_path)
