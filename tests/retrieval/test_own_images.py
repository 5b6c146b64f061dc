"""An index of images without a measured cell: the hash is learned from the images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from hashzoo.cli.main import main
from hashzoo.results import store
from hashzoo.storage.tensors import read_tensors


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    draw = np.random.default_rng(0)
    for number in range(12):
        stripes = np.zeros((40, 60, 3), np.uint8)
        stripes[:, :: 4 + number % 3] = 255 if number < 6 else 0
        stripes[:: 4 + number % 3] = 255 if number >= 6 else stripes[:: 4 + number % 3]
        noisy = np.clip(stripes + draw.integers(0, 20, stripes.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{'upright' if number < 6 else 'flat'}{number}.png")
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def run(*arguments):
    return CliRunner(env={"COLUMNS": "160"}).invoke(main, list(map(str, arguments)))


def test_two_commands_find_images_that_look_alike(photos, tmp_path):
    made = run("index", "build", photos, "-o", tmp_path / "my.index", "--backbone", "scattering")
    assert made.exit_code == 1  # an image was left out
    assert "12 images, 1 left out; code: 128 bits" in made.stdout
    found = run("search", tmp_path / "my.index", photos / "flat7.png", "--top", 3)
    assert found.exit_code == 0
    assert found.stdout.count("flat") >= 4  # the query is named too
    cell = store.read(tmp_path / "my.index.json")
    assert (cell.identity.backbone, cell.identity.method, cell.facts["train"]) == ("scattering", "lsh", 12)
    again = run("index", "build", photos, "-o", tmp_path / "other.index", "--backbone", "scattering")
    assert again.exit_code == 1
    assert store.read(tmp_path / "other.index.json").identity.key == cell.identity.key
    # not the bytes: the order of the metadata is not defined
    (one, first), (two, second) = (read_tensors(tmp_path / f"{name}.index.safetensors") for name in ("my", "other"))
    assert one == two
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_what_is_a_cell_and_what_an_image(photos, tmp_path):
    index = tmp_path / "x.index"
    assert "name the images to index, or --vectors FILE, too" in run("index", "build", "cell.json", "-o", index).stderr
    both = run("index", "build", "cell.json", photos, "-o", index, "--backbone", "tiny")
    assert "--backbone cannot be combined with a cell" in both.stderr
    assert "there is no file or folder nothing" in run("index", "build", "nothing", "-o", index).stderr
    assert not list(tmp_path.iterdir())
