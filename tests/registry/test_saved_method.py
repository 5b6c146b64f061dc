"""A trained method on disk and back, and the figures made of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hashzoo.bench.benchmark_file import Benchmark
from hashzoo.bench.job import Execution
from hashzoo.bench.plan import plan
from hashzoo.cli.main import main
from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.evaluation.scoring import encode
from hashzoo.execution.sweep import again
from hashzoo.hamming.relevance import relevance
from hashzoo.registry import saved_method, zoo
from hashzoo.report import figures
from hashzoo.report.draw import Source, confusion_shares, draw
from hashzoo.results import store
from hashzoo.retrieval.heatmaps import compute_heatmaps, grad_cam, rescale
from tests import measured

HOUSE = zoo.load_plugins()


def cell_of(folder: Path, method: str, **changes: object) -> Path:
    """A measured cell with its weights; the path of its JSON."""
    return measured.cell_of(
        folder, method, **{"backbone": "tiny", "train": {"epochs": 2, "batch": 64, "lr": 3e-3}} | changes
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="module")
def kept(folder):
    return cell_of(folder, "sfdh")


@pytest.fixture
def image(tmp_path):
    digit = HOUSE.dataset("digits.small").factory().query.images[0, 0].numpy()
    Image.fromarray(digit).resize((40, 40)).save(tmp_path / "digit.png")
    return tmp_path / "digit.png"


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("sfdh", {}),
        ("itq", {"backbone": "pixels"}),
        ("dhn-b", {}),
        ("two-level-cam", {}),
        ("tanh+dhn", {"train": {"epochs": 1, "backbone": "frozen"}}),
    ],
)
def test_a_method_read_from_disk_gives_the_scores_it_was_measured_with(method, changes, folder):
    path = cell_of(folder, method, **changes)
    read = saved_method.read(path)
    data = HOUSE.dataset("digits.small").factory()
    index = read.method.index()
    index.add(encode(read.run, read.method, data.database))
    prepared = relevance(data.query.labels.numpy(), data.database.labels.numpy())
    from hashzoo.evaluation.metrics import score

    found = score(index.counts(encode(read.run, read.method, data.query), prepared), ["map@all"])["map@all"].mean()
    assert found == pytest.approx(store.read(path).metrics["map@all"], abs=1e-3)  # frozen features are kept in fp32


def test_a_cell_without_weights_says_how_to_get_them(tmp_path, kept):
    lone = tmp_path / kept.name
    lone.write_bytes(kept.read_bytes())
    with pytest.raises(UsageError, match="--save-weights"):
        saved_method.read(lone)


def test_damaged_or_foreign_weights_are_refused(tmp_path, kept):
    copy = tmp_path / kept.name
    copy.write_bytes(kept.read_bytes())
    weights = saved_method.path_of(copy)
    weights.write_bytes(saved_method.path_of(kept).read_bytes()[:-100])
    with pytest.raises(EnvironmentFailure, match="cannot be read"):
        saved_method.read(copy)
    save_file(load_file(saved_method.path_of(kept)), weights, {"hashzoo": '{"key": "another", "plugins": []}'})
    with pytest.raises(EnvironmentFailure, match="another cell"):
        saved_method.read(copy)


def test_a_plugin_that_only_the_file_names_is_not_run(tmp_path, kept):
    copy = tmp_path / kept.name
    copy.write_bytes(kept.read_bytes())
    with safe_open(saved_method.path_of(kept), "pt") as opened:
        about = json.loads(opened.metadata()["hashzoo"])
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    told = {"hashzoo": json.dumps({**about, "plugins": [str(tmp_path / "evil.py")]})}
    save_file(load_file(saved_method.path_of(kept)), saved_method.path_of(copy), told)
    with pytest.raises(UsageError, match=r"needs the plugin .*evil\.py; name it with --plugin"):
        saved_method.read(copy)
    assert not (tmp_path / "ran").exists()


def test_a_plugin_is_found_where_it_lies_now(tmp_path, kept):
    copy = tmp_path / kept.name
    copy.write_bytes(kept.read_bytes())
    with safe_open(saved_method.path_of(kept), "pt") as opened:
        about = json.loads(opened.metadata()["hashzoo"])
    told = {"hashzoo": json.dumps({**about, "plugins": ["then/mine.py"]})}
    save_file(load_file(saved_method.path_of(kept)), saved_method.path_of(copy), told)
    (tmp_path / "mine.py").write_text("import hashzoo\n\n\n@hashzoo.hookimpl\ndef hashzoo_metrics():\n    return {}\n")
    assert saved_method.read(copy, plugins=[str(tmp_path / "mine.py")]).cell == saved_method.read(kept).cell


def test_a_method_whose_code_has_changed_is_not_read(kept, monkeypatch):
    monkeypatch.setattr(saved_method, "code_digest", lambda *factories: "another")
    with pytest.raises(EnvironmentFailure, match="has changed since"):
        saved_method.read(kept)


def test_tensors_of_another_shape_are_one_line(tmp_path, kept):
    copy = tmp_path / kept.name
    copy.write_bytes(kept.read_bytes())
    with safe_open(saved_method.path_of(kept), "pt") as opened:
        about = {"hashzoo": opened.metadata()["hashzoo"]}  # without a digest, as 0.1.0 wrote it
    tensors = load_file(saved_method.path_of(kept))
    tensors["head.hash.bias"] = torch.zeros(3)
    save_file(tensors, saved_method.path_of(copy), about)
    with pytest.raises(EnvironmentFailure, match="does not fit sfdh: size mismatch"):
        saved_method.read(copy)


def test_only_a_cell_that_is_ok_has_a_method(tmp_path, kept):
    from dataclasses import replace

    failed = replace(store.read(kept), status="nan", reason="a loss term", metrics={}, facts={}, timings={})
    with pytest.raises(UsageError, match="is nan: a loss term"):
        saved_method.read(store.write(tmp_path, failed, {}))


def test_a_finished_cell_is_measured_again_where_its_weights_are_asked_for_and_missing(kept, tmp_path):
    file = Benchmark(name="x", dataset="digits.small", backbone="tiny", bits=[16], methods=["sfdh"])
    plain, keeping = (plan(file, HOUSE, execution=Execution(save_weights=keep))[0] for keep in (False, True))
    cell = store.read(kept)
    store.write(tmp_path, cell, {})
    assert not again(cell, plain, None, tmp_path)
    assert again(cell, keeping, None, tmp_path)
    held = store.path(tmp_path, keeping.identity, keeping.benchmark)
    saved_method.path_of(held).write_bytes(saved_method.path_of(kept).read_bytes())
    assert not again(cell, keeping, None, tmp_path)


def test_a_saliency_is_shown_on_the_image_as_the_network_sees_it(kept, image):
    seen, where = compute_heatmaps(saved_method.read(kept), [Image.open(image)])
    assert seen.shape == (1, 1, 8, 8)
    assert where.shape == (1, 8, 8)
    assert float(where.min()) == 0.0
    assert float(where.max()) == 1.0


def test_grad_cam_equals_its_definition():
    torch.manual_seed(0)
    data = HOUSE.dataset("digits.small").factory()
    backbone = HOUSE.backbone("tiny").factory((1, 8, 8))
    method = HOUSE.method("dhn").factory(data.setting(8), backbone).eval()
    from hashzoo.run import Run
    from hashzoo.training.budget import Budget

    batch = next(iter(Run(Budget(), 0, to=backbone.input).blank(data.query.take(torch.arange(3)))))
    found = grad_cam(method, batch)
    features = backbone(batch.images)
    last = features.maps[-1].detach().requires_grad_()
    code = torch.tanh(method.head.layer(last.mean((2, 3))))
    (slope,) = torch.autograd.grad(code.abs().sum(), last)
    expected = (slope.mean((2, 3), keepdim=True) * last).sum(1).clamp(min=0)
    torch.testing.assert_close(found, rescale(expected.detach(), found.shape[1:]))


def test_two_streams_are_looked_at_together(folder, image):
    path = cell_of(folder, "swin-dual-stream", backbone="dual-stream.small", train={"epochs": 1, "batch": 100})
    seen, where = compute_heatmaps(saved_method.read(path), [Image.open(image)] * 2)
    assert seen.shape == (2, 3, 32, 32)
    assert torch.allclose(where[0], where[1], atol=1e-5)
    assert 0 <= float(where.min()) < float(where.max()) <= 1


def test_what_a_query_retrieves_is_counted_in_expectation():
    data = HOUSE.dataset("digits.small").factory()
    index = HOUSE.method("lsh").factory(data.setting(8), HOUSE.backbone("pixels").factory((1, 8, 8))).index()
    index.add({"code": torch.zeros(len(data.database), 8, dtype=torch.bool)})
    found = confusion_shares(index, {"code": torch.zeros(len(data.query), 8, dtype=torch.bool)}, data, results=10)
    share = data.database.labels.mean(0).numpy()
    np.testing.assert_allclose(found, np.tile(share, (10, 1)), atol=1e-12)  # all tied: the shares of the database


@pytest.mark.parametrize("suffix", [".png", ".svg"])
@pytest.mark.parametrize("kind", ["looks", "classes", "confusion", "pr"])
def test_each_figure_is_written_and_the_same_twice(kind, suffix, kept, image, tmp_path, capsys):
    given = [str(image)] if kind == "looks" else []
    for name in ("a", "b"):
        main(["explain", *given, "--run", str(kept), "--figure", kind, "-o", str(tmp_path / f"{name}{suffix}")])
    first, second = ((tmp_path / f"{name}{suffix}").read_bytes() for name in "ab")
    assert first == second
    assert first.startswith(b"\x89PNG" if suffix == ".png" else b"<?xml")
    assert len(first) > 2000


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["{image}", "--run", "{cell}", "-o", "x.gif"], 2, ".png, .svg or .pdf"),
        (["--run", "{cell}", "-o", "x.png"], 2, "--figure looks requires an IMAGE"),
        (["{image}", "--run", "{cell}", "--figure", "pr", "-o", "x.png"], 2, "--figure pr does not take an IMAGE"),
        (["nowhere.png", "--run", "{cell}", "-o", "x.png"], 3, "nowhere.png cannot be read: No such file"),
        (["{cell}", "--run", "{cell}", "-o", "x.png"], 3, "does not decode"),
        (["{image}", "--run", "{folder}", "-o", "x.png"], 2, "name one cell"),
        (["{image}", "--run", "nowhere.json", "-o", "x.png"], 3, "nowhere.json"),
        (["{image}", "--run", "{cell}", "-o", "no/folder/x.png"], 3, "cannot write"),
    ],
)
def test_what_cannot_be_explained_is_one_line(arguments, code, says, kept, image, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    named = {"image": image, "cell": kept, "folder": kept.parent}
    with pytest.raises(SystemExit) as stopped:
        main(["explain", *(text.format(**named) for text in arguments)])
    error = capsys.readouterr().err
    assert (stopped.value.code, len(error.strip().splitlines())) == (code, 1), error
    assert says in error


def test_a_method_without_attention_or_maps_says_so(folder, image):
    path = cell_of(folder, "lsh", backbone="pixels")
    with pytest.raises(UsageError, match="has no attention map"):
        draw("looks", Source(path, [image]))


@pytest.mark.parametrize(("module", "extra"), [("captum.attr", "explain"), ("matplotlib.figure", "plots")])
def test_a_missing_extra_is_named(module, extra, folder, image, monkeypatch):
    pytest.importorskip("captum.attr")  # which reads matplotlib itself, the first time
    path = cell_of(folder, "dhn")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(EnvironmentFailure, match=rf"hashzoo\[{extra}\]"):
        draw("looks", Source(path, [image]))


def test_an_svg_names_no_date(tmp_path):
    figures.save(figures.pr_curve(np.array([0.0, 1.0]), np.array([1.0, 0.1]), "x"), tmp_path / "x.svg")
    assert "<dc:date>" not in (tmp_path / "x.svg").read_text()
