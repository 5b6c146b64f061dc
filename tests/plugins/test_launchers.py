"""Where cells run: a Ray cluster, Slurm by submitit, and what holds without either."""

from __future__ import annotations

import csv
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hashzoo_plugins.launchers.ray import Sent
from hashzoo_plugins.launchers.slurm import Slurm, Submitted

from hashzoo.bench.benchmark_file import read
from hashzoo.bench.job import blank
from hashzoo.bench.plan import plan
from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.execution import remote
from hashzoo.execution.base import Limits
from hashzoo.registry import zoo
from hashzoo.registry.build import convert_options
from hashzoo.results import store
from hashzoo.results.cell import Cell
from tests.cli.command import hashzoo

ROOT = Path(__file__).parents[2]
HEAVY = ("ray", "submitit", "tensorboard", "mlflow", "wandb")


@pytest.fixture(scope="module")
def job():
    file = read("digits").model_copy(update={"methods": ["lsh"], "bits": [8], "seeds": [0]})
    return plan(file, zoo.load_plugins(), baselines=False)[0]


def files_of(job, folder, value):
    """The files of a cell as a node sends them."""
    store.prepare(folder)
    store.write(folder, blank(job, "ok"), {"ap": np.full(3, value)})
    return {file.name: file.read_bytes() for file in (folder / "cells").iterdir()}


def test_nothing_heavy_is_imported_until_it_is_used():
    code = (
        f"import sys\nfrom hashzoo import load_plugins\nload_plugins()\nprint([m for m in {HEAVY} if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize(("kind", "name"), [("launcher", "ray"), ("launcher", "slurm"), ("tracker", "tensorboard"),
                                        ("tracker", "mlflow"), ("tracker", "wandb")])  # fmt: skip
def test_a_missing_extra_is_one_line_that_names_it(kind, name, monkeypatch, tmp_path):
    module = {"slurm": "submitit"}.get(name, name)
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    entry = getattr(zoo.load_plugins(), kind)(name)
    with pytest.raises(EnvironmentFailure, match=rf"^{kind} {name} needs {module}; pip install 'hashzoo\[{name}\]'$"):
        entry.factory(Limits() if kind == "launcher" else tmp_path)


def test_an_unknown_launcher_or_option_is_named_with_the_nearest():
    house = zoo.load_plugins()
    with pytest.raises(UsageError, match="no launcher 'rya'; did you mean 'ray'"):
        house.launcher("rya")
    with pytest.raises(UsageError, match="launcher ray has no option 'adress'; did you mean 'address'"):
        convert_options("launcher", "ray", house.launcher("ray").factory, {"adress": "auto"})


def test_what_a_node_sends_takes_the_place_of_what_was_there_and_of_nothing_else(job, tmp_path):
    folder = tmp_path / "here"
    former = files_of(job, folder, 1.0)
    other = store.write(folder, Cell(identity=job.identity, benchmark="other", status="ok"), {"ap": np.ones(2)})
    (folder / "cells" / "innocent.npz").write_bytes(b"")
    sent = files_of(job, tmp_path / "node", 2.0)
    remote.store_files(job, folder, sent)
    here = {file.name for file in (folder / "cells").iterdir()}
    assert set(sent) <= here
    assert not (set(former) - set(sent)) & here
    assert "innocent.npz" in here
    assert store.arrays(store.path(folder, job.identity, job.benchmark))["ap"].tolist() == [2.0] * 3
    assert store.arrays(other)["ap"].tolist() == [1.0] * 2


def test_a_cell_whose_code_is_another_on_its_node_is_refused(job, tmp_path, monkeypatch):
    from hashzoo.bench import measure

    monkeypatch.setattr(measure, "code_digest", lambda *factories: "of another version")
    with pytest.raises(
        EnvironmentFailure, match="the code of lsh or of its backbone changed after the sweep was planned"
    ):
        measure.measure(job)


class Cluster:
    """Stands for Ray: what becomes of each task that is sent is given."""

    class exceptions:  # noqa: N801 - as Ray calls it
        class RayError(Exception):
            pass

        class RayTaskError(RayError):
            cause: Exception

        class OutOfMemoryError(RayError):
            pass

    def __init__(self, *fates):
        self.fates, self.sent, self.cancelled = list(fates), 0, []

    def send(self):
        self.sent += 1
        return self.sent

    def wait(self, refs, timeout):
        return refs, []

    def get(self, ref):
        fate = self.fates.pop(0)
        if isinstance(fate, Exception):
            raise fate
        return fate

    def cancel(self, ref, force):
        self.cancelled.append(ref)


def ended(cluster, job, folder, retries=2):
    one = Sent(cluster, cluster.send, job, folder, retries)
    while not one.ended():
        assert cluster.sent < 10
    return one


def test_a_lost_worker_is_replaced_and_the_cell_is_kept(job, tmp_path):
    lost = Cluster.exceptions.RayError("the node died")
    cluster = Cluster(lost, lost, files_of(job, tmp_path / "node", 1.0))
    one = ended(cluster, job, tmp_path)
    store.prepare(tmp_path)
    assert one.fate() == ("ok", "")
    assert cluster.sent == 3
    assert store.find(tmp_path, job.identity, job.benchmark)[0].status == "ok"


@pytest.mark.parametrize(("error", "status"), [("RayError", "crashed"), ("OutOfMemoryError", "oom")])
def test_a_cell_that_is_lost_too_often_says_why(job, tmp_path, error, status):
    cluster = Cluster(*[getattr(Cluster.exceptions, error)("a worker died\nof 1 thing")] * 3)
    found, why = ended(cluster, job, tmp_path).fate()
    assert (found, why) == (status, "lost 3 times; the last time: a worker died of 1 thing")


def test_a_node_without_hashzoo_is_no_loss_to_be_retried(job, tmp_path):
    error = Cluster.exceptions.RayTaskError()
    error.cause = ModuleNotFoundError("No module named 'hashzoo'")
    found = ended(Cluster(error), job, tmp_path).fate()
    assert found == ("crashed", "on its node: ModuleNotFoundError: No module named 'hashzoo'")


def test_a_cell_that_is_out_is_taken_back_and_one_that_is_back_is_not(job, tmp_path):
    cluster = Cluster({})
    one = Sent(cluster, cluster.send, job, tmp_path, 2)
    one.end()
    assert cluster.cancelled == [1]
    assert one.ended()
    one.end()
    assert cluster.cancelled == [1]


@pytest.mark.parametrize(
    ("state", "status"),
    [("TIMEOUT", "timeout"), ("OUT_OF_MEMORY", "oom"), ("NODE_FAIL", "crashed"), ("CANCELLED by 0", "crashed")],
)
def test_how_slurm_ended_a_job_becomes_a_status(job, tmp_path, state, status):
    task = SimpleNamespace(
        exception=lambda: RuntimeError("no result"), state=state, paths=SimpleNamespace(stderr=tmp_path / "log")
    )
    found, why = Submitted(job, tmp_path, task, 60).fate()
    assert found == status
    assert why


def test_a_result_that_a_shared_folder_shows_late_is_waited_for(job, tmp_path, monkeypatch):
    store.prepare(tmp_path)
    cell = blank(job, "ok")
    former = store.write(tmp_path, blank(job, "failed", "of yesterday"), {})
    looks = []

    def sleep(seconds):
        looks.append(former)
        if len(looks) == 3:
            store.write(tmp_path, cell, {})

    monkeypatch.setattr("hashzoo_plugins.launchers.slurm.time.sleep", sleep)
    task = SimpleNamespace(exception=lambda: None, result=lambda: (cell.created, ""), job_id="7")
    assert Submitted(job, tmp_path, task, 60).fate() == ("ok", "")
    assert len(looks) == 3


def test_a_slurm_job_has_its_timeout_and_some_more():
    pytest.importorskip("submitit")
    assert Slurm(Limits(timeout=600.0)).minutes == 15
    assert Slurm(Limits()).minutes == 60
    assert Slurm(Limits(timeout=600.0), minutes=3).minutes == 3
    with pytest.raises(ValueError, match="cpus >= 1"):
        Slurm(Limits(), cpus=0)


def test_where_there_is_no_slurm_one_line_says_so(job, tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        EnvironmentFailure, match=r"Slurm was not found on this machine .*; run the command on a machine with sbatch"
    ):
        Slurm(Limits()).start(job, tmp_path, 0)


def test_the_launcher_of_the_documentation_works(tmp_path):
    text = (ROOT / "docs" / "howto" / "write-launcher.md").read_text()
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.S) if "hashzoo_launchers" in block]
    (command,) = re.findall(r"^    hashzoo (.*--launcher threads.*)$", text, re.M)
    (tmp_path / "threads.py").write_text(code)
    result = hashzoo(
        *command.split(), "--quick", "--methods", "lsh", "--no-baselines", "--results", "r", cwd=tmp_path, timeout=900
    )
    assert result.returncode == 0, result.stderr
    assert "[1/1] lsh" in result.stdout


def scores(folder: Path) -> list[dict[str, str]]:
    with (folder / "cells.csv").open(encoding="utf-8", newline="") as file:
        timed = {"created", "fit_seconds", "encode_per_second", "search_per_second"}
        return [{name: value for name, value in row.items() if name not in timed} for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    ("name", "module", "options"), [("ray", "ray", []), ("slurm", "submitit", ["slurm.cluster=local"])]
)
def test_scores_are_the_same_wherever_cells_run(name, module, options, tmp_path):
    pytest.importorskip(module, reason=f"needs the extra {name}")
    common = ("bench", "digits", "--quick", "--no-baselines", "--methods", "itq,dhn", "--bits", "8", "--jobs", "2")
    for launcher in ("local", name):
        more = [word for option in options if launcher != "local" for word in ("--set", option)]
        result = hashzoo(*common, "--launcher", launcher, *more, "--results", launcher, cwd=tmp_path, timeout=1800)
        assert result.returncode == 0, result.stdout + result.stderr
    assert scores(tmp_path / name) == scores(tmp_path / "local")
    of = [{file.name for file in (tmp_path / one / "cells").iterdir()} for one in ("local", name)]
    assert of[0] == of[1]  # the arrays too, which are named after their content
    assert not list((tmp_path / name).glob("slurm/*"))


@pytest.mark.slow
def test_every_command_of_the_documentation_runs(tmp_path):
    """Each indented ``hashzoo`` line, in one folder; those for clusters that are not here stand in fences."""
    pages = ("several-machines", "ray-slurm", "trackers")
    text = "\n".join((ROOT / "docs" / "howto" / f"{name}.md").read_text() for name in pages)
    commands = re.findall(r"^    hashzoo (.*)$", text, re.M)
    assert len(commands) == 8
    for command in commands:
        wanted = {"--launcher ray": "ray", "--launcher slurm": "submitit", "--track tensorboard": "tensorboard"}
        if all(importlib.util.find_spec(module) for words, module in wanted.items() if words in command):
            result = hashzoo(*command.split(), cwd=tmp_path, timeout=1800)
            assert result.returncode == 0, (command, result.stdout, result.stderr)
    assert all(scores(tmp_path / name) for name in ("part-1", "part-2", "whole"))
    whole = hashzoo(
        "bench", "digits", "--quick", "--methods", "lsh,itq", "--results", "whole", cwd=tmp_path, timeout=1800
    )
    assert whole.returncode == 0, whole.stderr
    assert "[1/" not in whole.stdout  # nothing was missing
    assert scores(tmp_path / "whole") == scores(tmp_path / "shared-results")
