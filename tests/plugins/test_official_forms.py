"""Datasets in the form of their publishers: synthetic archives of that layout, real images where there are any."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hashzoo_plugins.datasets import archives, cifar10, cifar100, cifar_files, download, imagenette, mnist
from hashzoo_plugins.datasets.download import Remote
from hashzoo_plugins.datasets.paths import ImagePaths
from hashzoo_plugins.datasets.pool import Pool
from PIL import Image

from hashzoo.errors import EnvironmentFailure
from hashzoo.registry import zoo
from tests.plugins.web import Served, Site

REAL = Path("/work/shared/data")
RANDOM = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _own_data(tmp_path, monkeypatch):
    monkeypatch.setenv("HASHZOO_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("HASHZOO_MIRROR", raising=False)
    monkeypatch.setattr(download, "PAUSE", 0.0)


def packed(files):
    """The bytes of a .tar.gz."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


class Cifar:
    """One of the two datasets with 20 images a batch and their files, made of random bytes."""

    def __init__(self, kind, monkeypatch):
        self.module = {"cifar10": cifar10, "cifar100": cifar100}[kind]
        constant = kind.upper()
        whole = getattr(cifar_files, constant)
        self.few = replace(whole, images=dict.fromkeys(whole.images, 20))
        count = 20 * len(whole.images)
        self.images = RANDOM.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
        self.classes = RANDOM.integers(0, whole.classes, count, dtype=np.uint8)
        coarse = [RANDOM.integers(0, 20, (count, 1), dtype=np.uint8)] if whole.labels == 2 else []
        table = np.concatenate([*coarse, self.classes[:, None], self.images.reshape(count, -1)], axis=1)
        self.files = {
            f"{whole.folder}/{file}": table[20 * i : 20 * i + 20].tobytes() for i, file in enumerate(whole.images)
        }
        self.files[f"{whole.folder}/fine_label_names.txt"] = "\n".join(f"class_{i}" for i in range(100)).encode()
        self.use(monkeypatch, self.few)

    def use(self, monkeypatch, spec):
        monkeypatch.setattr(self.module, spec.name.upper(), spec)

    def agrees(self, found):
        whole, first = found
        assert torch.equal(whole.images, torch.from_numpy(self.images))
        assert whole.labels.argmax(1).tolist() == self.classes.tolist()
        assert (whole.labels.sum(1) == 1).all()
        assert first == len(self.images) - 20


@pytest.fixture(params=["cifar10", "cifar100"])
def cifar(request, monkeypatch):
    return Cifar(request.param, monkeypatch)


@pytest.mark.parametrize("form", ["inside", "itself", "archive"])
def test_cifar_is_read_from_a_folder_around_its_files_from_these_and_from_the_archive(cifar, tmp_path, form):
    root = tmp_path / "root"
    (root / cifar.few.folder).mkdir(parents=True)
    for name, data in cifar.files.items():
        (root / name).write_bytes(data)
    if form == "archive":
        root = tmp_path
        (root / cifar.few.remote.path).write_bytes(packed(cifar.files))
    elif form == "itself":
        root /= cifar.few.folder
    cifar.agrees(cifar.module.pool(root))
    assert not (tmp_path / "data").exists()


def test_cifar_is_downloaded_where_no_root_is_given_and_then_kept(cifar, tmp_path, monkeypatch):
    data = packed(cifar.files)
    name = cifar.few.remote.path
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    cifar.use(monkeypatch, replace(cifar.few, remote=replace(cifar.few.remote, md5=md5)))
    with Served(Site({f"/~kriz/{name}": data}, cut=[5000])) as site:
        monkeypatch.setenv("HASHZOO_MIRROR", site.url)
        cifar.agrees(cifar.module.pool(None))
        cifar.agrees(cifar.module.pool(None))
        assert site.sent[f"/~kriz/{name}"] == len(data)
    assert (tmp_path / "data" / cifar.few.name / name).is_file()


def test_a_download_of_cifar_that_is_not_the_official_file_is_refused(cifar, tmp_path, monkeypatch):
    with Served(Site({f"/~kriz/{cifar.few.remote.path}": packed(cifar.files)})) as site:
        monkeypatch.setenv("HASHZOO_MIRROR", site.url)
        with pytest.raises(EnvironmentFailure, match=rf"its md5 is \w+, expected {cifar.few.remote.md5}"):
            cifar.module.pool(None)
    assert not (tmp_path / "data" / cifar.few.name / cifar.few.remote.path).exists()


@pytest.mark.parametrize("which", [0, 1])
def test_pickles_of_cifar_are_never_loaded_and_the_cure_is_named(cifar, tmp_path, which):
    (tmp_path / cifar.few.pickles[which]).mkdir()
    with pytest.raises(EnvironmentFailure, match=r"pickles and is never loaded; put cifar-100?-binary.tar.gz there"):
        cifar.module.pool(tmp_path)


def test_a_root_without_cifar_or_with_damaged_files_is_trouble(cifar, tmp_path):
    with pytest.raises(EnvironmentFailure, match=rf"has no {cifar.few.folder} and no "):
        cifar.module.pool(tmp_path)
    archive = tmp_path / cifar.few.remote.path
    whole = packed(cifar.files)
    for part in (whole[:0], whole[:100], whole[: len(whole) // 2]):
        archive.write_bytes(part)
        with pytest.raises(EnvironmentFailure, match="is damaged"):
            cifar.module.pool(tmp_path)
    archive.write_bytes(packed(dict([*cifar.files.items()][1:])))
    with pytest.raises(EnvironmentFailure, match="is damaged"):
        cifar.module.pool(tmp_path)
    first = next(iter(cifar.files))
    archive.write_bytes(packed(cifar.files | {first: cifar.files[first][:-1]}))
    with pytest.raises(EnvironmentFailure, match=r"\.bin has \d+ bytes, expected \d+"):
        cifar.module.pool(tmp_path)
    archive.write_bytes(packed(cifar.files | {first: b"\xff" * len(cifar.files[first])}))
    with pytest.raises(EnvironmentFailure, match="has a label 255"):
        cifar.module.pool(tmp_path)


def test_the_names_of_the_fine_classes_come_with_cifar_100(tmp_path, monkeypatch):
    made = Cifar("cifar100", monkeypatch)
    (tmp_path / made.few.remote.path).write_bytes(packed(made.files))
    assert cifar100.pool(tmp_path)[0].class_names == tuple(f"class_{i}" for i in range(100))
    made.files[f"{made.few.folder}/fine_label_names.txt"] = b"one\ntwo\n"
    (tmp_path / made.few.remote.path).write_bytes(packed(made.files))
    with pytest.raises(EnvironmentFailure, match="has 2 names, expected 100"):
        cifar100.pool(tmp_path)


def idx(array):
    """The bytes of an idx file."""
    return np.array([0x0800 + array.ndim, *array.shape], dtype=">i4").tobytes() + array.tobytes()


class Digits:
    """MNIST or its cousin with 30 and 10 images."""

    def __init__(self, kind, monkeypatch):
        self.images = RANDOM.integers(0, 256, (40, 28, 28), dtype=np.uint8)
        self.classes = RANDOM.integers(0, 10, 40, dtype=np.uint8)
        parts = (self.images[:30], self.classes[:30], self.images[30:], self.classes[30:])
        self.kind, whole = kind, getattr(mnist, kind)
        self.files = {name: gzip.compress(idx(part), 1) for name, part in zip(whole.md5, parts, strict=True)}
        sums = {name: hashlib.md5(data, usedforsecurity=False).hexdigest() for name, data in self.files.items()}
        self.few = replace(whole, counts=(30, 10), md5=sums)

    def agrees(self, found):
        whole, first = found
        assert torch.equal(whole.images, torch.from_numpy(self.images)[:, None])
        assert whole.labels.argmax(1).tolist() == self.classes.tolist()
        assert first == 30


@pytest.fixture(params=["MNIST", "FASHION"])
def digits(request, monkeypatch):
    return Digits(request.param, monkeypatch)


@pytest.mark.parametrize("form", ["packed", "plain", "torchvision"])
def test_mnist_is_read_packed_or_not_and_from_the_folder_of_torchvision(digits, tmp_path, form):
    place = tmp_path / digits.few.folder / "raw" if form == "torchvision" else tmp_path
    place.mkdir(parents=True, exist_ok=True)
    for name, data in digits.files.items():
        if form == "packed":
            (place / name).write_bytes(data)
        else:
            (place / name.removesuffix(".gz")).write_bytes(gzip.decompress(data))
    digits.agrees(digits.few.pool(tmp_path))


def test_mnist_is_downloaded_where_no_root_is_given_from_the_mirror_that_has_it(digits, tmp_path, monkeypatch):
    with Served(Site({f"/second/{name}": data for name, data in digits.files.items()}, cut=[500])) as site:
        few = replace(digits.few, mirrors=(f"{site.url}/first/", f"{site.url}/second/"))
        digits.agrees(few.pool(None))
        count = len(site.asked)
        digits.agrees(few.pool(None))
        assert len(site.asked) == count
    assert {p.name for p in (tmp_path / "data" / few.name).glob("*.gz")} == {*digits.files}


def test_a_missing_network_names_every_file_of_mnist(digits):
    few = replace(digits.few, mirrors=("http://127.0.0.1:9/",))
    with pytest.raises(EnvironmentFailure) as caught:
        few.pool(None)
    assert all(name in str(caught.value) for name in few.md5)
    assert "--root FOLDER" in str(caught.value)


def test_files_of_mnist_that_are_missing_or_damaged_are_trouble(digits, tmp_path):
    with pytest.raises(EnvironmentFailure, match=r"has no train-images-idx3-ubyte.gz, "):
        digits.few.pool(tmp_path)
    for name, data in digits.files.items():
        (tmp_path / name).write_bytes(data)
    name = "t10k-images-idx3-ubyte.gz"
    good = digits.files[name]
    for bad in (b"", good[:50], good[:-5], gzip.compress(idx(digits.images)), gzip.compress(b"no idx"), b"no gzip"):
        (tmp_path / name).write_bytes(bad)
        with pytest.raises(
            EnvironmentFailure,
            match=r"t10k-images-idx3-ubyte.gz is not an idx file|cannot read .*t10k-images-idx3-ubyte.gz",
        ):
            digits.few.pool(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(EnvironmentFailure, match=r"has no t10k-images-idx3-ubyte.gz"):
        digits.few.pool(tmp_path)


def test_places_and_checksums_of_mnist_and_cifar_are_those_of_torchvision():
    from torchvision import datasets

    for ours, theirs in ((mnist.MNIST, datasets.MNIST), (mnist.FASHION, datasets.FashionMNIST)):
        assert [*ours.md5.items()] == theirs.resources
        assert [*ours.mirrors] == theirs.mirrors
    assert mnist.FASHION.classes == tuple(datasets.FashionMNIST.classes)
    assert cifar_files.CIFAR10.pickles == (datasets.CIFAR10.base_folder, datasets.CIFAR10.filename)
    assert cifar_files.CIFAR100.pickles == (datasets.CIFAR100.base_folder, datasets.CIFAR100.filename)


def jpeg(value):
    out = io.BytesIO()
    Image.new("RGB", (24, 20), (value, 0, 0)).save(out, "JPEG")
    return out.getvalue()


@pytest.fixture
def images(monkeypatch):
    """The files of a small ImageNette, two training and one validation image a class, names in falling order."""
    monkeypatch.setattr(imagenette, "IMAGES", {"train": 20, "val": 10})
    files = {}
    for c, wnid in enumerate(imagenette.WNIDS):
        for part, numbers in (("train", (9, 1)), ("val", (5,))):
            for i in numbers:
                files[f"imagenette2-320/{part}/{wnid}/{wnid}_{i}.JPEG"] = jpeg(20 * c + i)
    files["imagenette2-320/noisy_imagenette.csv"] = b"path"
    return files


def red(image):
    return np.asarray(image)[..., 0].mean()


def check_imagenette(whole, first):
    assert first == 20
    assert len(whole.images) == 30
    assert whole.labels[:20].argmax(1).tolist() == [c for c in range(10) for _ in range(2)]
    assert whole.labels[20:].argmax(1).tolist() == [*range(10)]
    assert isinstance(whole.images, ImagePaths)
    expected = [20 * c + i for c in range(10) for i in (1, 9)] + [20 * c + 5 for c in range(10)]
    assert np.allclose([red(image) for image in whole.images], expected, atol=6)
    assert whole.pretraining == ("ImageNet",)


@pytest.mark.parametrize("form", ["around", "itself", "renamed"])
def test_imagenette_is_read_from_its_folders_in_the_official_order(images, tmp_path, form):
    for name, data in images.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    root = tmp_path if form == "around" else tmp_path / "imagenette2-320"
    if form == "renamed":
        root = root.rename(tmp_path / "mine")
    whole, first = imagenette.pool(root)
    check_imagenette(whole, first)
    assert whole.source == ("ImageNette (own folder)" if form == "renamed" else "ImageNette (320)")


def test_imagenette_is_downloaded_and_unpacked_where_no_root_is_given(images, tmp_path, monkeypatch):
    data = packed(images)
    with Served(Site({"/i.tgz": data}, cut=[700])) as site:
        remote = Remote(
            (f"{site.url}/i.tgz",), "i.tgz", len(data), sha256=hashlib.sha256(data).hexdigest(), makes="imagenette2-320"
        )
        monkeypatch.setitem(archives.ARCHIVES, "imagenette", (remote,))
        check_imagenette(*imagenette.pool(None))
        check_imagenette(*imagenette.pool(None))
        assert site.sent["/i.tgz"] == len(data)
    assert not (tmp_path / "data" / "imagenette" / "i.tgz").exists()
    found = zoo.load_plugins().dataset("imagenette.standard").factory(validation=0.5)
    assert (len(found.train), len(found.validation), len(found.database), len(found.query)) == (10, 10, 20, 10)
    assert found.source == "ImageNette (320)"


def test_imagenette_with_a_image_missing_or_still_packed_is_trouble(images, tmp_path):
    with pytest.raises(EnvironmentFailure, match=r"has no train and val folders, and no "):
        imagenette.pool(tmp_path)
    (tmp_path / "imagenette2-320.tgz").write_bytes(b"")
    with pytest.raises(EnvironmentFailure, match=r"is still packed; unpack it there"):
        imagenette.pool(tmp_path)
    for name, data in [*images.items()][1:]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    with pytest.raises(EnvironmentFailure, match=r"train has 19 images, expected 20; unpack"):
        imagenette.pool(tmp_path)


def test_classes_of_imagenette_are_those_of_torchvision():
    from torchvision.datasets import Imagenette

    assert tuple(sorted(Imagenette._WNID_TO_CLASS)) == imagenette.WNIDS
    assert tuple(Imagenette._WNID_TO_CLASS[wnid][0] for wnid in imagenette.WNIDS) == imagenette.CLASSES


def test_images_by_path_change_their_stamp_with_the_file_and_name_what_is_damaged(tmp_path):
    path = tmp_path / "1.jpg"
    path.write_bytes(jpeg(90))
    files = ImagePaths([path, tmp_path / "none.jpg"])
    before = files.stamp(0)
    assert before == files.stamp(0)
    assert (len(files), files.name(0), files[0].size) == (2, str(path), (24, 20))
    path.write_bytes(jpeg(90) + b"x")
    assert files.stamp(0) != before
    path.write_bytes(b"no image")
    for row in (0, 1):
        with pytest.raises(EnvironmentFailure, match=str(files.paths[row])):
            files[row]


def made(name, counts):
    """A dataset of one-pixel images with so many in each class, classes in turn until they run out."""
    left, classes = list(counts), []
    while any(left):
        classes += [c for c, n in enumerate(left) if n]
        left = [max(0, n - 1) for n in left]
    labels = torch.eye(len(counts))[torch.tensor(classes)]
    return Pool(
        torch.zeros(len(classes), 1, 1, 1, dtype=torch.uint8), labels, tuple(map(str, range(len(counts)))), name
    )


MNIST_COUNTS = (6903, 7877, 6990, 7141, 6824, 6313, 6876, 7293, 6825, 6958)
SETS = {
    "cifar10": (cifar10, (6000,) * 10, 50_000),
    "cifar100": (cifar100, (600,) * 100, 50_000),
    "imagenette": (imagenette, (1350, 1350, 1350, 1344, 1350, 1350, 1350, 1350, 1350, 1250), 9469),
    "mnist": (mnist, MNIST_COUNTS, 60_000),
    "fashion-mnist": (mnist, (7000,) * 10, 60_000),
}
PINNED = {
    ("cifar10.disjoint", 0, 0.0): "e7355d47c9724450",
    ("cifar10.disjoint", 1, 0.2): "ebd30eb9cb14e233",
    ("cifar10.inside", 0, 0.0): "2961ddaa2f4078ed",
    ("cifar10.inside", 1, 0.2): "2785f76d0b1bba8d",
    ("cifar10.official", 0, 0.0): "5e27c2547310cc90",
    ("cifar10.official", 1, 0.2): "3b4a9a75cd97beb9",
    ("cifar100.disjoint", 0, 0.0): "51c8e55ced6baf4d",
    ("cifar100.disjoint", 1, 0.2): "3dd48833bf03ef73",
    ("cifar100.official", 0, 0.0): "a4a963d6bb6101ee",
    ("cifar100.official", 1, 0.2): "cc60c69d0c5ebf89",
    ("fashion-mnist.disjoint", 0, 0.0): "ac28b263df3afe0e",
    ("fashion-mnist.disjoint", 1, 0.2): "51dc9a72b523a065",
    ("fashion-mnist.official", 0, 0.0): "a94b606b46fe21d5",
    ("fashion-mnist.official", 1, 0.2): "3103ca82f20b49a8",
    ("imagenette.standard", 0, 0.0): "4af3c1e6a0929dc0",
    ("imagenette.standard", 1, 0.2): "37639d0bba3be752",
    ("mnist.disjoint", 0, 0.0): "3e5c08eb76435706",
    ("mnist.disjoint", 1, 0.2): "3f7db89bb92e768a",
    ("mnist.official", 0, 0.0): "cf2dc671bcea1423",
    ("mnist.official", 1, 0.2): "c9059ed1703b9309",
}
REAL_CIFAR10 = "ae7677e59dcf542c"  # of cifar10.disjoint, seed 0, with the real order of classes


def digest(data):
    """Of the ids of all parts."""
    parts = [data.train, data.database, data.query, *([data.validation] if data.validation else [])]
    ids = [np.array([len(part)], dtype="<i8").tobytes() + part.ids.numpy().astype("<i8").tobytes() for part in parts]
    return hashlib.sha256(b"".join(ids)).hexdigest()[:16]


@pytest.mark.parametrize(("protocol", "seed", "validation"), PINNED)
def test_the_parts_of_a_protocol_are_the_same_for_ever(protocol, seed, validation, monkeypatch):
    name = protocol.partition(".")[0]
    module, counts, first = SETS[name]
    pool = made(name, counts)
    if module is mnist:
        monkeypatch.setattr(mnist.IdxFiles, "pool", lambda self, root: (pool, first))
    else:
        monkeypatch.setattr(module, "pool", lambda root: (pool, first))
    data = zoo.load_plugins().dataset(protocol).factory(seed=seed, validation=validation)
    assert digest(data) == PINNED[protocol, seed, validation]
    assert not torch.isin(data.query.ids, torch.cat([data.train.ids, data.database.ids])).any()
    assert len(data.database.ids.unique()) == len(data.database)
    if protocol.endswith(".disjoint"):
        assert not torch.isin(data.train.ids, data.database.ids).any()
        assert (len(data.query), len(data.database)) == (1000, len(pool.labels) - 6000)
        assert len(data.train) + (len(data.validation) if data.validation else 0) == 5000
        share = data.query.labels.sum(0) / pool.labels.sum(0) * len(pool.labels) / 1000
        assert (share - 1).abs().max() < 0.01  # each class in proportion


@pytest.mark.skipif(not (REAL / "cifar10_jpeg.npz").is_file(), reason=f"no real CIFAR-10 in {REAL}")
def test_real_cifar_10_has_the_official_counts_in_every_part():
    data = cifar10.disjoint(root=REAL)
    assert [part.labels.sum(0).unique().tolist() for part in (data.query, data.train, data.database)] == [
        [100], [500], [5400],
    ]  # fmt: skip
    assert digest(data) == REAL_CIFAR10
    assert data.source == "CIFAR-10 (JPEG)"
    assert data.train.images[0].size == (32, 32)
    whole = cifar10.official(root=REAL)
    assert whole.query.labels.sum(0).unique().tolist() == [1000]


@pytest.mark.skipif(not (REAL / "imagenette224_train.npz").is_file(), reason=f"no real ImageNette in {REAL}")
def test_real_imagenette_packed_has_the_order_that_its_folders_give():
    whole, first = imagenette.pool(REAL)
    names = [*whole.images.first.extra["names"], *whole.images.second.extra["names"]]
    assert [first, len(names) - first] == [*imagenette.IMAGES.values()]
    by_part = [[str(n) for n in names[:first]], [str(n) for n in names[first:]]]
    for part in by_part:
        assert part == sorted(part)
    assert {name.partition("/")[0] for part in by_part for name in part} == {*imagenette.WNIDS}
    assert whole.class_names == imagenette.CLASSES
    assert digest(imagenette.standard(root=REAL)) == PINNED["imagenette.standard", 0, 0.0]
