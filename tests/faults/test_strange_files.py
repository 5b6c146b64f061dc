"""Files and plugins from strangers: none runs code it was not asked to, none brings the command or the others down."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import pickle
import subprocess
import sys
import tarfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from safetensors.torch import save

from hashzoo.cli.main import main
from hashzoo.data import image_files, split_file
from hashzoo.data.integrity import read_scan
from hashzoo.errors import HashzooError
from hashzoo.evaluation.codes_file import NAMES, read_codes
from hashzoo.registry import saved_method, zoo
from hashzoo.registry.build import build_backbone
from hashzoo.results import csv_file, store
from hashzoo.storage.files import canonical_json
from hashzoo.training import feature_store
from tests.faults.targets import cell
from tests.root.test_house import BROKEN

ROOT = Path(__file__).parents[2]


class Evil:
    """What makes a file when it is loaded: the sign that code has run."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def packed(act):
    made = io.BytesIO()
    act(made)
    return made.getvalue()


def in_tar(content):
    def act(made):
        with tarfile.open(fileobj=made, mode="w") as archive:
            for name in ("sys_info", "pickle", "storages", "tensors"):
                about = tarfile.TarInfo(name)
                about.size = len(content)
                archive.addfile(about, io.BytesIO(content))

    return packed(act)


def held(mark):
    """The same pickle in each container, and the reader that would run it."""
    evil = Evil(mark)
    raw = pickle.dumps(evil)
    lots = dict.fromkeys([*NAMES, "jpeg", "offsets", "prints", "rows", "reasons", "digest", "train_ids"], evil)
    named = {name: np.array([one], object) for name, one in lots.items()}
    table = {"state_dict": evil, "weight": evil}
    safe = save({"weight": torch.zeros(2)}, {"hashzoo": raw.decode("latin-1"), "digest": ""})
    return {
        "pickle": (raw, lambda data: pickle.loads(data)),
        "torch zip": (packed(lambda f: torch.save(table, f)), unsafe_torch),
        "torch of old": (packed(lambda f: torch.save(table, f, _use_new_zipfile_serialization=False)), unsafe_torch),
        "tar": (
            in_tar(raw),
            lambda data: pickle.loads(tarfile.open(fileobj=io.BytesIO(data)).extractfile("pickle").read()),
        ),
        "npy": (packed(lambda f: np.save(f, named["jpeg"], allow_pickle=True)), unsafe_numpy),
        "npz": (packed(lambda f: np.savez(f, **named)), lambda data: unsafe_numpy(data)["jpeg"]),
        "joblib": (packed(lambda f: joblib.dump(evil, f)), lambda data: joblib.load(io.BytesIO(data))),
        "gzip": (gzip.compress(raw), lambda data: pickle.loads(gzip.decompress(data))),
        "safetensors": (safe, None),  # a pickle in its text, which nothing has a reason to load
    }


def unsafe_torch(data):
    return torch.load(io.BytesIO(data), weights_only=False)


def unsafe_numpy(data):
    return np.load(io.BytesIO(data), allow_pickle=True)


CONTAINERS = ["pickle", "torch zip", "torch of old", "tar", "npy", "npz", "joblib", "gzip", "safetensors"]


def command(*arguments):
    """The exit code of a command; whatever escapes it is raised."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        try:
            main([str(one) for one in arguments])
        except SystemExit as stopped:
            return stopped.code or 0
    return 0


def weights_as(suffix):
    def door(data, folder):
        (folder / f"w.{suffix}").write_bytes(data)
        name = "torchvision/squeezenet1_1"
        build_backbone(zoo.load_plugins(), name, (3, 8, 8), {"weights": str(folder / f"w.{suffix}")}, 0)

    return door


def file_as(name, read):
    def door(data, folder):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return read(path)

    return door


def arrays_of_a_cell(data, folder):
    """A cell whose arrays are these, its checksums as they should be: a stranger can compute them too."""
    file = store.write(folder, cell(), {})
    content = json.loads(file.read_text())
    del content["checksum"]
    content["arrays"] = hashlib.sha256(data).hexdigest()
    content["checksum"] = hashlib.sha256(canonical_json(content).encode()).hexdigest()
    file.write_text(json.dumps(content))
    file.with_name(f"{file.stem}.{content['arrays'][:12]}.npz").write_bytes(data)
    assert store.read(file) == cell()
    return store.arrays(file)


def stored_features(data, folder):
    for name in ("pooled", "map0"):
        (folder / f"{name}.npy").write_bytes(data)
    (folder / "features.json").write_text('{"rows": 1, "arrays": 2}')
    return feature_store.read(folder, 1)


def said(*arguments):
    def door(data, folder):
        for suffix in ("csv", "txt", "npz", "toml", "json", "png"):
            (folder / f"x.{suffix}").write_bytes(data)
        code = command(*(str(one).replace("HERE", str(folder)) for one in arguments))
        assert code in (1, 2, 3), code

    return door


DOORS = {
    "codes to evaluate": file_as("x.npz", read_codes),
    **{
        f"weights of a backbone, .{suffix}": weights_as(suffix) for suffix in ("pth", "pt", "bin", "pkl", "safetensors")
    },
    "trained weights": file_as("x.safetensors", saved_method.contents),
    "a cell": file_as("cells/x.json", store.read),
    "arrays of a cell": arrays_of_a_cell,
    "a split": file_as("x.npz", split_file.read),
    "stored features": stored_features,
    "prints of images": file_as("x.npz", lambda path: read_scan(path, 1)),
    "packed images": file_as(
        "x.npz", lambda path: __import__("hashzoo_plugins.datasets.packed", fromlist=["x"]).PackedImages(path)
    ),
    "an image": lambda data, folder: image_files.decode(data),
    "a board": file_as("leaderboard.csv", csv_file.read_csv),
    "a list": said("data", "show", "HERE/x.csv"),
    "a list of text": said("data", "show", "HERE/x.txt"),
    "a file as data": said("data", "show", "HERE/x.npz"),
    "a benchmark": said("bench", "HERE/x.toml", "--dry-run"),
    "a plugin by its file": said("list", "methods", "--plugin", "HERE/x.npz"),
    "a cell to explain": said("explain", "--run", "HERE/x.json", "--figure", "pr", "-o", "HERE/y.png"),
}


def test_pickles(tally, whole, tmp_path):
    """Pickles in nine containers through every door that reads a file: no code runs"""
    mark = tmp_path / "ran"
    boxes = held(mark)
    assert list(boxes) == CONTAINERS
    for box, (data, unsafe) in boxes.items():
        if unsafe is not None:
            unsafe(data)
            assert mark.exists(), f"{box} would not even run where it is loaded carelessly"
            mark.unlink()
    pairs = [(box, door) for box in boxes for door in DOORS]
    for number, (box, door) in enumerate(pairs if whole else pairs[::4]):
        folder = tmp_path / str(number)
        folder.mkdir()
        try:
            found = DOORS[door](boxes[box][0], folder)
            wrong = "" if found is None else f"{found!r} came out"
        except HashzooError as error:
            wrong = "" if "\n" not in str(error) else "an error of several lines"
        except Exception as error:
            wrong = f"{type(error).__name__}: {error}"
        if mark.exists():
            mark.unlink()
            wrong = "code has run"
        tally.case(f"{box} as {door}: {wrong}" if wrong else "")


FUZZ = """
import random, sys
from pathlib import Path
import torch
from hashzoo.errors import HashzooError
from hashzoo.registry import saved_method
from hashzoo.registry.build import build_backbone
from hashzoo.registry.zoo import Zoo, Entry
from hashzoo_plugins.backbones import weights
from tests.faults.odd_weights import files

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024

def backbone(shape, *, weights_file):
    weights.load(torch.nn.Linear(3, 2), Path(weights_file), ("steps",))
    return torch.nn.Identity()

house = Zoo(backbones={"x": Entry("x", backbone, "x", "")})
folder, before, good, refused = Path(sys.argv[2]), peak(), 0, 0
for number, (suffix, data) in enumerate(files(int(sys.argv[1]), 2026)):
    file = folder / f"x.{suffix}"
    file.write_bytes(data)
    doors = [lambda: build_backbone(house, "x", (3, 8, 8), {"weights_file": file}, 0)]
    doors += [lambda: saved_method.contents(file)] if suffix == "safetensors" else []
    for door in doors:
        try:
            door()
            good += 1
        except HashzooError as error:
            assert str(error) and "\\n" not in str(error), error
            refused += 1
        except Exception as error:
            print("bad", suffix, number, type(error).__name__, str(error)[:100].replace("\\n", " "))
print(good, refused, round(peak() - before))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_broken_weights(tally, whole, tmp_path):
    """Broken safetensors and .pth files: read or refused in one line, in less than a GiB"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FUZZ, "1500" if whole else "150", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    *bad, last = done.stdout.strip().splitlines()
    good, refused, mebibytes = map(int, last.split())
    for _ in range(good + refused):
        tally.case()
    for line in bad:
        tally.case(line)
    assert refused > 20
    assert mebibytes < 1024


KINDS = {
    **{name: code for name, (code, _) in BROKEN.items()},
    "syntax": "def (",
    "zeros": "x = 1\0",
    "endless": "def f(): return f()\nf()",
    "missing": "import nothing_of_that_name",
    "hook_raises": "from hashzoo import hookimpl\n@hookimpl\ndef hashzoo_methods(): raise ValueError('in\\nthe hook')",
    "odd_error": "class E(Exception):\n    def __str__(self): raise RuntimeError('no text')\nraise E",
    "odd_card": (
        "from hashzoo import hookimpl\nclass Card:\n    def __get__(self, *_): raise RuntimeError('no card')\n"
        "class M:\n    card = Card()\n    def __init__(self, setting, backbone): pass\n"
        "@hookimpl\ndef hashzoo_methods(): return {'odd-card': M}"
    ),
    "odd_doc": (
        "from hashzoo import hookimpl\nclass M:\n    __doc__ = 7\n    def __init__(self, setting, backbone): pass\n"
        "@hookimpl\ndef hashzoo_methods(): return {'odd-doc': M}"
    ),
    "odd_hints": (
        "from __future__ import annotations\nfrom hashzoo import hookimpl\n"
        "class M:\n    def __init__(self, setting, backbone, *, a: Nowhere = 1): pass\n"
        "@hookimpl\ndef hashzoo_methods(): return {'odd-hints': M}"
    ),
    "no_signature": "from hashzoo import hookimpl\n@hookimpl\ndef hashzoo_methods(): return {'bare': dict.fromkeys}",
    "prints": "print('\\x1b[2J')",
}
ASKED = [
    ("list", "methods"),
    ("list", "methods", "--json"),
    ("list", "plugins"),
    ("list", "datasets"),
    ("bench", "digits", "--quick", "--methods", "itq", "--dry-run"),
    ("bench", "digits", "--quick", "--methods", "*", "--dry-run"),
]


def installed(name, code, folder, monkeypatch):
    (folder / f"strange_{name}.py").write_text(code)
    about = folder / f"strange_{name}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: strange-{name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[hashzoo]\nmine = strange_{name}\n")
    monkeypatch.syspath_prepend(str(folder))


@pytest.mark.parametrize("name", [*sorted(KINDS), "all of them"])
def test_bad_plugins(name, tally, whole, tmp_path, monkeypatch):
    """Bad plugins of 19 kinds, alone and all at once: every command works for the others"""
    for one in KINDS if name == "all of them" else [name]:
        folder = tmp_path / one
        folder.mkdir()
        installed(one, KINDS[one], folder, monkeypatch)
    monkeypatch.delenv("HASHZOO_PLUGINS")
    monkeypatch.chdir(tmp_path)
    for asked in ASKED if whole else ASKED[2:6:3] if name != "all of them" else ASKED:
        try:
            code = command(*asked)
            tally.case("" if code == 0 else f"{name}: {' '.join(asked)}: exit {code}")
        except BaseException as error:
            tally.case(f"{name}: {' '.join(asked)}: {type(error).__name__}: {error}")
