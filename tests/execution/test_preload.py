"""What the fork server imports before the cells of a sweep start."""

from __future__ import annotations

from hashzoo.bench.benchmark_file import Benchmark
from hashzoo.bench.plan import plan
from hashzoo.execution import processes, scheduler
from hashzoo.execution.sweep import sweep
from hashzoo.registry.zoo import load_plugins
from hashzoo.training.budget import Budget


def test_a_sweep_names_the_libraries_that_its_backbones_import(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "libraries", {})
    monkeypatch.setattr(scheduler, "run_cells", lambda *given, **more: [])
    set_up = {"name": "x", "dataset": "digits.small", "bits": [8], "methods": ["lsh"]}
    for backbone, wanted in [("pixels", []), ("timm/resnet18", ["timm"])]:
        options = {backbone: {"weights": "random"}} if wanted else {}
        made = Benchmark.model_validate(set_up | {"backbone": backbone, "set": options})
        sweep(plan(made, load_plugins(), base=Budget(epochs=1), baselines=False), tmp_path)
        assert list(processes.libraries) == wanted
