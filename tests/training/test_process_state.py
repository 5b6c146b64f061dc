"""A cell measured by a function call leaves the caller's process as it was, and repeats itself."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from hashzoo.bench.benchmark_file import Benchmark
from hashzoo.bench.measure import measure
from hashzoo.bench.plan import plan
from hashzoo.errors import UsageError, status_of
from hashzoo.hamming import counting
from hashzoo.registry import zoo
from hashzoo.training.process_state import WORKSPACE, deterministic, untouched

PLUGIN = '''
import os, random
import numpy as np
import torch
from hashzoo import Card, Method, bits, hookimpl


class Rude(Method):
    """Changes all that it can reach, and learns nothing but noise from every global generator."""

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
    """Changes what would not let it be scored, and fails."""

    def fit(self, train, run):
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        torch.set_grad_enabled(False)
        raise RuntimeError("deliberate")


class Unordered(Rude):
    """Uses an operation that has no deterministic form."""

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
            Benchmark.model_validate(values), zoo.load_plugins(plugins), baselines=False, plugins=plugins, **changes
        )
        return one

    return made


def surroundings():
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
        "threads": (torch.get_num_threads(), counting.get_threads()),
    }


@pytest.mark.parametrize("method", ["rude", "last"])
def test_a_cell_leaves_its_caller_as_it_was_whatever_its_method_does(method, job, monkeypatch):
    monkeypatch.setenv("HASHZOO_KEPT", "1")
    monkeypatch.setenv("HASHZOO_CHANGED", "before")
    one = job(method)
    measure(job("rude"))  # what is loaded for the first time stays loaded
    before = surroundings()
    if method == "last":
        with pytest.raises(RuntimeError, match="deliberate"):
            measure(one)
    else:
        measure(one)
    assert surroundings() == before


def test_a_method_that_draws_from_global_generators_repeats_itself_and_differs_by_seed(job):
    one = job("rude")
    first = measure(one)[0]
    torch.manual_seed(5), np.random.seed(6), random.seed(7)
    again = measure(one)[0]
    assert again.metrics == first.metrics
    assert again.provenance["trained"] == first.provenance["trained"]
    other = Benchmark(name="x", dataset="digits.small", backbone="pixels", bits=[8], methods=["rude"], seeds=[1])
    (two,) = plan(other, zoo.load_plugins(one.plugins), baselines=False, plugins=one.plugins)
    assert measure(two)[0].provenance["trained"] != first.provenance["trained"]


def test_an_operation_without_a_deterministic_form_is_named_with_the_cure(job):
    assert measure(job("unordered"))[0].status == "ok"
    before = surroundings()
    with pytest.raises(
        UsageError, match=r"put_.* has no deterministic form here.* leave --deterministic out"
    ) as caught:
        measure(job("unordered", deterministic=True))
    assert surroundings() == before
    status, reason = status_of(caught.value)
    assert (status, "\n" in reason) == ("failed", False)


def test_a_deterministic_cell_says_so_and_has_the_key_and_here_the_scores_of_another(job):
    plain, strict = job("rude"), job("rude", deterministic=True)
    assert plain.identity.key == strict.identity.key
    found = measure(strict)[0]
    assert found.provenance["deterministic"] is True
    assert found.metrics == measure(plain)[0].metrics


def test_determinism_sets_what_torch_and_cublas_ask_for():
    with untouched(), deterministic(True):
        assert torch.get_deterministic_debug_mode() == 2
        assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark) == (True, False)
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == WORKSPACE["CUBLAS_WORKSPACE_CONFIG"]
    assert torch.get_deterministic_debug_mode() == 0
    with untouched(), deterministic(False):
        assert torch.get_deterministic_debug_mode() == 0


def test_other_errors_are_not_taken_for_a_lack_of_determinism():
    with pytest.raises(RuntimeError, match="something else"), untouched(), deterministic(True):
        raise RuntimeError("something else")


def test_the_caller_may_stand_in_a_folder_that_is_gone(tmp_path, monkeypatch):
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    with untouched():
        folder.rmdir()
    with untouched():
        os.chdir(tmp_path)
    os.chdir(tmp_path)
