"""What the fork server imports before the cells of a sweep start, and how its children use memory."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys

import pytest

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


ALLOCATES = """
import resource, sys
from ctypes import CDLL, c_void_p, memset
from threading import Thread
from hashzoo.execution.processes import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
library = CDLL(None)
library.malloc.restype, library.free.argtypes = c_void_p, [c_void_p]
def use():
    for _ in range(5):
        block = library.malloc(2**26)
        memset(block, 1, 2**26)
        library.free(block)
thread = Thread(target=use)
thread.start()
thread.join()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such switch")
def test_freed_memory_is_used_again_without_clearing_its_pages():
    faults = {}
    for how in ("keep", "return"):
        ran = subprocess.run([sys.executable, "-c", ALLOCATES, how], capture_output=True, text=True, check=True)
        faults[how] = int(ran.stdout)
    pages = 2**26 // resource.getpagesize()
    assert faults["keep"] < faults["return"] - 3 * pages
