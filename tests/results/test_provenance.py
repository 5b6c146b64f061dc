"""A cell says where it was made, whatever became of it, and finding that out fails nothing."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from hashzoo import __version__
from hashzoo.bench.benchmark_file import Benchmark
from hashzoo.bench.job import blank
from hashzoo.bench.measure import measure
from hashzoo.bench.plan import plan
from hashzoo.cli.main import main
from hashzoo.execution.scheduler import incomplete
from hashzoo.execution.sweep import again
from hashzoo.registry import zoo
from hashzoo.results import provenance, store
from tests.storage.test_schema import SHIPPED

FILE = Benchmark.model_validate(
    {
        "name": "x",
        "dataset": "digits.small",
        "backbone": "tiny",
        "bits": [8],
        "methods": ["dhn"],
        "train": {"epochs": 1},
    }
)

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def the_job(*plugins, **changes):
    (job,) = plan(FILE.model_copy(update=changes), zoo.load_plugins(plugins), baselines=False)
    return job


@pytest.fixture(scope="module")
def measured():
    job = the_job()
    return job, *measure(job)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A checkout with one commit, of a file whose name a shell would take for commands."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    folder = tmp_path / "pro ject"
    folder.mkdir()
    file = folder / "-x; touch ran; $(touch ran).py"
    file.write_text("a = 1\n")
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    for arguments in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "x"]):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
    provenance.checkout.cache_clear()
    yield file
    provenance.checkout.cache_clear()
    assert not list(tmp_path.rglob("ran"))


def revision(folder: Path) -> str:
    return subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, check=True, capture_output=True, text=True).stdout


def test_a_cell_says_with_what_on_what_and_at_what_cost_it_was_made(measured):
    _, cell, _ = measured
    found = cell.provenance
    assert found["versions"].keys() == set(provenance.LIBRARIES)
    assert (found["versions"]["hashzoo"], found["versions"]["torch"]) == (__version__, torch.__version__.split("+")[0])
    assert (found["device"], found["threads"], found["precision"], found["batch"]) == ("cpu", 1, "fp32", 64)
    assert found["deterministic"] is False
    assert len(found["weights"]) == len(found["trained"]) == 16
    assert found["weights"] != found["trained"]
    assert found["cpu_capability"]
    assert found["peak_memory"] > 50 * 2**20
    assert 0 < found["seconds"] < 600
    began = datetime.fromisoformat(found["started"])
    assert began.utcoffset() == datetime.now(UTC).utcoffset()
    assert 0 <= (datetime.fromisoformat(cell.created) - began).total_seconds() < 600
    assert found["command"] == provenance.command()


def test_the_batch_is_no_larger_than_the_images_there_are():
    job = the_job(train=FILE.train.model_copy(update={"batch": 1000}))
    assert measure(job)[0].provenance["batch"] == 200


def test_two_trainings_of_one_seed_have_the_same_weights_and_one_of_another_has_not(measured):
    job, cell, _ = measured
    same, other = (measure(one)[0].provenance for one in (job, the_job(seeds=[1])))
    assert [same[name] for name in ("weights", "trained")] == [cell.provenance[n] for n in ("weights", "trained")]
    assert other["weights"] != same["weights"]
    assert other["trained"] != same["trained"]


def test_a_cell_without_a_result_says_what_is_known(measured):
    job, cell, _ = measured
    found = blank(job, "crashed", "gone", provenance.elapsed(3.0)).provenance
    costly = ("weights", "trained", "cpu_capability", "peak_memory", "last", "curve", "resumed_after_epoch")
    assert cell.provenance.keys() - found.keys() == set(costly)
    assert found["seconds"] == 3.0
    assert not again(blank(job, "skipped", "no"), job, "stale", Path("x"))  # made with these versions


def test_a_cell_made_otherwise_is_measured_again_where_determinism_is_asked_for(measured):
    job, cell, _ = measured
    wanted = replace(job, execution=replace(job.execution, deterministic=True))
    assert again(cell, wanted, None, Path("x"))
    assert incomplete(cell, wanted, Path("x"))  # nor is one taken from another sweep on the folder
    assert not again(replace(cell, provenance={"deterministic": True}), wanted, None, Path("x"))
    assert wanted.identity.key == job.identity.key


@needs_git
def test_a_checkout_has_a_revision_and_says_whether_it_was_changed(project, monkeypatch):
    monkeypatch.setenv("GIT_DIR", str(project.parent / "nowhere"))  # as inside a hook of another checkout
    found = provenance.checkout(project)
    monkeypatch.delenv("GIT_DIR")
    assert found == {"revision": revision(project.parent).strip(), "dirty": False}
    provenance.checkout.cache_clear()
    project.write_text("a = 2\n")
    assert provenance.checkout(project) == found | {"dirty": True}


@needs_git
def test_a_file_that_is_not_tracked_where_it_lies_has_no_revision(project, tmp_path):
    installed = project.parent / ".venv" / "lib" / "plugin.py"
    installed.parent.mkdir(parents=True)
    installed.write_text("")
    assert provenance.checkout(installed) is None
    assert provenance.checkout(tmp_path / "elsewhere.py") is None
    assert provenance.checkout(tmp_path / "no such folder" / "x.py") is None


@needs_git
def test_no_program_that_a_checkout_names_is_started(project):
    hook = project.parent / "monitor.sh"
    hook.write_text("#!/bin/sh\ntouch ran\n")
    hook.chmod(0o755)
    subprocess.run(["git", "config", "core.fsmonitor", str(hook)], cwd=project.parent, check=True)
    assert provenance.checkout(project)["dirty"] is False


def test_where_git_is_not_installed_nothing_is_said_of_revisions(tmp_path, monkeypatch):
    provenance.checkout.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.describe_origin([tmp_path / "plugin.py"]).keys() == {"command"}
    provenance.checkout.cache_clear()


def test_a_git_that_hangs_is_given_up(tmp_path, monkeypatch):
    slow = tmp_path / "git"
    slow.write_text(f"#!{sys.executable}\nimport time; time.sleep(60)\n")
    slow.chmod(0o755)
    provenance.checkout.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(provenance, "_TIMEOUT", 0.2)
    assert provenance.describe_origin().keys() == {"command"}
    provenance.checkout.cache_clear()


@needs_git
def test_a_plugin_in_a_checkout_of_its_own_has_its_own_revision(project):
    plugin = project.with_name("mine.py")
    plugin.write_text(
        "from hashzoo import deep, hookimpl\n"
        "@hookimpl\ndef hashzoo_methods():\n    return {'mine': Mine}\n"
        "from hashzoo_plugins.shallow.lsh import LSH\n"
        "class Mine(LSH):\n    '''Theirs.'''\n"
    )
    subprocess.run(["git", "add", "mine.py"], cwd=project.parent, check=True)
    job = the_job(str(plugin), methods=["mine"])
    assert job.origin["plugin_checkout"] == {"revision": revision(project.parent).strip(), "dirty": True}
    assert "plugin_checkout" not in the_job().origin


def test_the_command_can_be_pasted_into_a_shell(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/home/me/my env/bin/hashzoo", "bench", "--methods", "lsh,'p*'", "--root", "a b"])
    text = provenance.command()
    assert text.startswith("hashzoo bench ")
    printed = subprocess.run(["sh", "-c", f"printf '%s\\n' {text}"], check=True, capture_output=True, text=True).stdout
    assert printed.splitlines() == ["hashzoo", *sys.argv[1:]]


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\nGCC", "550.54.15"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build  (x)\nGCC", "570.86.15"),
        ("something else", None),
    ],
)
def test_a_gpu_is_named_with_its_driver(text, version, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A GPU")
    monkeypatch.setattr(provenance, "_DRIVER", tmp_path / "version")
    (tmp_path / "version").write_text(text)
    found = provenance.machine(torch.device("cuda:0"))
    assert (found["device"], found.get("driver")) == ("A GPU", version)
    assert found.keys() >= {"cuda", "cudnn"}


def said(file, capsys):
    main(["show", str(file)])
    return capsys.readouterr().out


def test_show_prints_all_that_a_cell_holds(measured, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    _, cell, arrays = measured
    text = said(store.write(tmp_path, cell, arrays), capsys)
    identity = vars(cell.identity)
    for value in (identity["code"], identity["data"], cell.identity.key, cell.facts["split"], "weight=0.1", "epochs=1"):
        assert value in text
    for title in ("outcome", "scores", "facts", "timings", "provenance"):
        assert f"\n{title}" in text
    for name in ("command", "started", "peak memory", "effective batch size", "versions", "deterministic", "map@all"):
        assert f" {name}" in text
    assert len(text.splitlines()) > len(cell.provenance) + len(cell.facts) + len(cell.metrics)


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.parts[-3])
def test_show_prints_cells_from_before_all_of_this_was_recorded(file, capsys):
    assert re.search(r"^ status +ok", said(file, capsys), re.MULTILINE)


def test_show_prints_a_failed_cell_and_where_its_output_lies(measured, tmp_path, capsys, monkeypatch):
    job, _, _ = measured
    reason = "RuntimeError: \x1b[31mred\x1b[0m [bold]\udc80 (mine.py:3)"
    file = store.write(tmp_path, blank(job, "failed", reason, provenance.resource_usage(1.0)), {})
    file.with_suffix(".log").write_text("Traceback")
    monkeypatch.setenv("COLUMNS", "300")
    text = said(file, capsys)
    assert "\x1b" not in text
    assert r"\x1b[31mred\x1b[0m [bold]\x80 (mine.py:3)" in text
    assert str(file.with_suffix(".log")) in text
    assert "peak memory of the process" in text
