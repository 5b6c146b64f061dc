"""What a benchmark would do, known before any image is read."""

from __future__ import annotations

import re
import socket

import pytest
import torch
from PIL import Image

from hashzoo.cli.main import main


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """An empty folder, no data, no weights, and no way to read an image or to reach a network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HASHZOO_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("COLUMNS", "200")

    def refuse(*_, **__):
        raise AssertionError("a dry run does not do this")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(Image, "open", refuse)
    monkeypatch.setattr("hashzoo_plugins.datasets.digits.load", refuse)
    monkeypatch.setattr("hashzoo.registry.build.inspect_splits", refuse)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return tmp_path


def dry(capsys, *arguments: object) -> str:
    capsys.readouterr()
    main(["bench", *map(str, arguments), "--dry-run"])
    return capsys.readouterr().out


def row(text: str, method: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if re.match(rf"{re.escape(method)} ", line)]
    return line.split()


def refused(capsys, *arguments: object) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(["bench", *map(str, arguments), "--dry-run"])
    assert stopped.value.code == 2
    return capsys.readouterr().err


def images(folder, of_class: int):
    """A folder of two classes of files that are no images: a dry run lists them only."""
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for number in range(of_class):
            (folder / name / f"{number}.png").write_bytes(b"not an image")
    return folder


#: A network whatever extras are installed.
NETWORK = ("--backbone", "torchvision/mobilenet_v2")


def test_a_dry_run_needs_no_images_no_network_and_no_gpu(capsys, place):
    text = dry(capsys, "cifar10", *NETWORK, "--methods", "itq,dhn", "--device", "cuda", "--devices", 4)
    assert text.splitlines()[1] == "cifar10.disjoint: training images 5,000, database 54,000, queries 1,000"
    assert row(text, "itq") == ["itq", "torchvision/mobilenet_v2", "16,32,64", "-", "9", "0", "0", "unknown"]
    assert row(text, "dhn")[3] == "30"  # epochs
    assert "cifar-10-binary.tar.gz  170.1 MB" in text
    assert re.search(r"mobilenet_v2-\w+\.pth  14\.\d MB", text)
    assert "54 cells pending, 0 done, 0 skipped in hashzoo-results/cifar10" in text
    assert "time: unknown" in text
    assert not list(place.iterdir())


def test_files_that_are_there_are_not_among_the_downloads(capsys, place):
    (place / "data" / "cifar10").mkdir(parents=True)
    (place / "data" / "cifar10" / "cifar-10-binary.tar.gz").write_bytes(b"")
    options = (*NETWORK, "--set", "torchvision/mobilenet_v2.weights=random")
    assert "downloads: none" in dry(capsys, "cifar10", "--methods", "lsh", *options)
    assert "downloads: none" in dry(capsys, "cifar10", "--methods", "lsh", "--root", place, *options)


def test_a_dry_run_of_missing_files_says_what_is_missing(capsys):
    text = dry(capsys, "folder", "--root", "nowhere", "--methods", "lsh", "--backbone", "torchvision/alexnet",
               "--set", "torchvision/alexnet.weights=gone.pth")  # fmt: skip
    assert "training images unknown" in text
    assert "missing: there is no folder" in text
    assert "missing, for torchvision/alexnet: weights file not found: gone.pth" in text


def test_a_folder_is_listed_and_its_files_are_not_decoded(capsys, place):
    text = dry(capsys, "folder", "--root", images(place / "pics", 20), "--methods", "lsh")
    assert "folder: training images 20, database 16, queries 4" in text


def test_fewer_training_images_than_bits_are_refused_where_a_closed_form_is_named(capsys, place):
    root = images(place / "pics", 17)
    for method in ("itq", "pcah", "ssh"):
        error = refused(capsys, "folder", "--root", root, "--methods", method, "--bits", 24, "--no-baselines")
        assert error == (
            f"hashzoo: {method} needs at least as many training images as bits: 24 bits, 17 images; "
            "use fewer bits or more training images\n"
        )


def test_fewer_training_images_than_bits_are_a_reason_to_skip_where_a_pattern_brought_the_method_in(capsys, place):
    text = dry(capsys, "folder", "--root", images(place / "pics", 17), "--methods", "p*,i*,ss?,lsh", "--bits", "16,24")
    for method in ("itq", "pcah", "ssh"):
        fits, not_so = [line.split() for line in text.splitlines() if line.startswith(f"{method} ")]
        assert fits[2:7] == ["16", "-", "1", "0", "0"]
        assert not_so[2:7] == ["24", "-", "0", "0", "1"]
        assert "as many training images as bits" in " ".join(not_so)
    assert row(text, "lsh")[2] == "16,24"


@pytest.mark.parametrize("method", ["csq", "tanh+dpn"])
def test_training_images_without_a_label_are_refused_though_the_size_of_images_is_not_known(capsys, place, method):
    rows = [
        f"{name}/{number}.png {int(name == 'cat')} {int(name == 'dog')}" for name in ("cat", "dog") for number in "01"
    ]
    images(place, 8)
    for number, part in enumerate(("train", "database", "test")):
        blank = [f"cat/{2 + number}.png 0 0"] if part == "train" else []
        (place / f"{part}.txt").write_text("\n".join([*(row.replace(".png", f"{number}.png") for row in rows), *blank]))
    for name in ("cat", "dog"):
        for number in range(3):
            for first in "01":
                (place / name / f"{first}{number}.png").write_bytes(b"not an image")
    options = ("digits", "--dataset", "lists", "--root", place, "--methods", method, "--bits", 8, "--no-baselines")
    said = refused(capsys, *options)
    assert "at least one label per image, and 1 of the 5 training images have none" in said
    assert "leave them out with --set lists.unlabelled=drop" in said
    assert row(dry(capsys, *options, "--set", "lists.unlabelled=drop"), method)


def test_more_bits_than_features_are_refused_in_a_dry_run_too(capsys):
    assert "as many features as bits" in refused(capsys, "digits", "--methods", "itq", "--bits", 65)
    assert "needs several labels" in refused(capsys, "digits", "--methods", "dcoh")
    assert "did you mean 'itq'" in refused(capsys, "digits", "--methods", "iqt")
    assert "did you mean 'map@all'" in refused(capsys, "digits", "--metrics", "mpa@all")


def test_the_parts_of_a_sharded_benchmark_add_up(capsys):
    counts = [
        int(re.search(r"(\d+) cells pending", dry(capsys, "digits", "--methods", "p*", "--shard", f"{part}/3"))[1])
        for part in (1, 2, 3)
    ]
    assert sum(counts) == int(re.search(r"(\d+) cells pending", dry(capsys, "digits", "--methods", "p*"))[1])


def test_sizes_that_datasets_declare_are_those_of_their_splits(monkeypatch):
    from hashzoo.registry.build import convert_options
    from hashzoo.registry.zoo import load_plugins

    monkeypatch.undo()
    zoo = load_plugins()
    names = [name for name in zoo.outlines if name.startswith(("digits.", "scenes."))]
    assert len(names) > 6
    for name in names:
        values = convert_options("dataset", name, zoo.dataset(name).factory, {})
        known, data = zoo.outline("dataset", name, values), zoo.dataset(name).factory(**values)
        queries = len(data.query) if data.pairs is None else len(data.pairs)
        assert (known.train, known.database, known.query) == (len(data.train), len(data.database), queries), name
        assert (known.classes, known.multilabel) == (data.train.labels.shape[1], data.multilabel), name
        assert known.shape == tuple(data.train.images.shape[1:]), name
    assert not [name for name in zoo.datasets if name not in zoo.outlines and "root" not in options_of(zoo, name)
                and not name.startswith("digits.")]  # fmt: skip


def options_of(zoo, name):
    from hashzoo.factory import options

    return options(zoo.dataset(name).factory)
