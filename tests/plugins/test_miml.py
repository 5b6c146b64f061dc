"""Scenes with several labels: five splits of a file, and what is said of another file."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hashzoo_plugins.datasets import miml
from PIL import Image

from hashzoo.errors import EnvironmentFailure
from hashzoo.registry import zoo


def packed(path, count, labels=True):
    image = io.BytesIO()
    Image.new("RGB", (4, 3)).save(image, "JPEG")
    one = np.frombuffer(image.getvalue(), np.uint8)
    given = {"labels": np.tile(np.eye(5, dtype=np.uint8) | np.eye(5, k=1, dtype=np.uint8), (count, 1))[:count]}
    np.savez(
        path,
        jpeg=np.tile(one, count),
        offsets=np.arange(count + 1) * len(one),
        classes=np.array(["desert", "mountains", "sea", "sunset", "trees"]),
        **(given if labels else {}),
    )
    return path


def test_the_splits_share_the_images_out_and_differ(tmp_path):
    file = packed(tmp_path / miml.FILE, 1300)
    factories = [zoo.load_plugins().dataset(f"miml.split{n}").factory for n in range(1, 6)]
    drawn = [factory(root=tmp_path) for factory in factories]
    for data in drawn:
        parts = {name: {int(i) for i in part.ids} for name, part in data.parts().items()}
        assert {name: len(ids) for name, ids in parts.items()} == {"train": 1000, "database": 100, "query": 200}
        assert set().union(*parts.values()) == set(range(1300))
        assert data.multilabel
        assert data.train.labels.sum(1).max() == 2
    assert len({tuple(data.query.ids.tolist()) for data in drawn}) == 5
    assert factories[0](root=file, seed=0).query.ids.tolist() == drawn[0].query.ids.tolist()
    assert factories[0](root=file, seed=1).query.ids.tolist() != drawn[0].query.ids.tolist()


def test_another_file_is_refused_in_one_line(tmp_path):
    factory = zoo.load_plugins().dataset("miml.split1").factory
    with pytest.raises(EnvironmentFailure, match=r"has no miml_scenes2000\.npz; set root"):
        factory(root=tmp_path)
    with pytest.raises(EnvironmentFailure, match="no multi-hot labels"):
        factory(root=packed(tmp_path / "x.npz", 10, labels=False))
    with pytest.raises(EnvironmentFailure, match="has 1200 images, and more than 1200 are needed"):
        factory(root=packed(tmp_path / "y.npz", 1200))
