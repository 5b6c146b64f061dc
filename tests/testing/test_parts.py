"""Findings of `hashzoo check` for typical mistakes of plugin authors: one line with the problem and the fix."""

from __future__ import annotations

import random
import textwrap
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from hashzoo import Backbone, Card, Features, Method, Output, bits
from hashzoo.cli.main import main
from hashzoo.errors import UsageError
from hashzoo.registry import zoo
from hashzoo.testing import check_backbone, check_dataset, check_head, check_loss, check_method


class Plane(Method):
    """Random hyperplanes; the classes below break it."""

    card = Card("shallow", "none")

    def __init__(self, setting, backbone):
        super().__init__()
        self.backbone, self.bits = backbone, setting.bits
        self.register_buffer("mean", torch.zeros(backbone.dim))
        self.register_buffer("w", torch.zeros(backbone.dim, setting.bits))

    def fit(self, train, run):
        self.mean = run.features(self.backbone, train).pooled.mean(0)
        self.w = torch.randn(self.w.shape, generator=run.generator)

    def x(self, batch):
        return (self.backbone(batch.images).pooled - self.mean) @ self.w

    def encode(self, batch):
        return {"code": bits(self.x(batch))}


class NumPy(Plane):
    def encode(self, batch):
        return {"code": self.x(batch).numpy() >= 0}


class NoDict(Plane):
    def encode(self, batch):
        return bits(self.x(batch))


class Floats(Plane):
    def encode(self, batch):
        return {"code": self.x(batch).sign()}


class Flat(Plane):
    def encode(self, batch):
        return {"code": bits(self.x(batch)).all(1)}


class Turned(Plane):
    def encode(self, batch):
        return {"code": bits(self.x(batch)).T}


class HalfAsLong(Plane):
    def encode(self, batch):
        return {"code": bits(self.x(batch))[:, ::2]}


class TwiceAsLong(Plane):
    def encode(self, batch):
        return {"code": bits(torch.cat([self.x(batch), -self.x(batch)], 1))}


class ReadsLabels(Plane):
    def encode(self, batch):
        code = bits(self.x(batch))
        code[:, :6] ^= batch.labels.bool()
        return {"code": code}


class GlobalNumPy(Plane):
    def fit(self, train, run):
        super().fit(train, run)
        self.w = torch.from_numpy(np.random.randn(*self.w.shape)).float()


class SpoilsItsBatch(Plane):
    def encode(self, batch):
        batch.images.sub_(batch.images.mean((1, 2, 3), keepdim=True))
        return super().encode(batch)


class SpoilsTrain(Plane):
    def fit(self, train, run):
        super().fit(train, run)
        train.labels.sub_(0.5)


class KeepsNoState(Plane):
    def fit(self, train, run):
        self.learned = torch.randn(self.w.shape, generator=run.generator)

    def x(self, batch):
        return (self.backbone(batch.images).pooled - self.mean) @ self.learned


class WithoutStar(Plane):
    def __init__(self, setting, backbone, spread=1.0):
        super().__init__(setting, backbone)


class OneArgument(Plane):
    def __init__(self, backbone):
        super().__init__(None, backbone)


class NoCard(Plane):
    card = Method.card


class NoEncode(Method):
    def fit(self, train, run): ...


class LearnsNothing(Plane):
    def fit(self, train, run): ...


WRONG_METHODS = {
    NumPy: ("fit and encode", "'code' as numpy.ndarray, not as a torch tensor: return a dict such as"),
    NoDict: ("fit and encode", "encode returned Tensor: return a dict such as {'code': hashzoo.bits(x)}"),
    Floats: ("bits", "code: torch.float32): return bool tensors (B, K), as hashzoo.bits makes them"),
    Flat: ("fit and encode", "of shape (80,) for 80 images"),
    Turned: ("rows", "it is (K, B) and must be (B, K)"),
    HalfAsLong: ("budget", "8 bits per image are stored, but 16 were requested: store setting.bits"),
    TwiceAsLong: ("budget", "32 bits per image are stored, but 16 were requested"),
    ReadsLabels: ("labels", "encode from batch.images alone"),
    GlobalNumPy: ("seeded", "draw random numbers from run.generator only"),
    SpoilsItsBatch: ("inputs", "encode changed batch.images in place: write x = x - mean"),
    SpoilsTrain: ("inputs", "fit changed the labels of train in place: work on a copy"),
    KeepsNoState: ("state", "restored from state_dict fails to encode: AttributeError: "),
    WithoutStar: (
        "signature",
        "'spread' is not keyword-only, so it is not a hyperparameter: write (setting, backbone, *, ",
    ),
    OneArgument: ("fit and encode", "it takes (backbone), but hashzoo calls it with (setting, backbone, *, "),
    NoEncode: ("fit and encode", "abstract"),
    LearnsNothing: ("level", "make sure that fit trains the method"),
}


@pytest.mark.parametrize("method", WRONG_METHODS, ids=lambda m: m.__name__)
def test_a_mistake_in_a_method_is_found_with_its_fix(method):
    check, says = WRONG_METHODS[method]
    found = {f.check: f.why for f in check_method(method) if not f.ok}
    assert says in found.get(check, ""), found


def test_a_method_without_a_card_gets_a_note():
    found = {f.check: (f.ok, f.why) for f in check_method(NoCard)}
    assert found["card"][0]
    assert "counts as deep" in found["card"][1]


def loss(forward):
    class Loss(nn.Module):
        def __init__(self, setting):
            super().__init__()

        def forward(self, output, batch):
            return forward(output.code, batch, output)

    return Loss


def spoils(code, batch, output):
    labels = batch.labels
    labels *= 2
    return {"x": (code.sum(1) * labels.sum(1)).sum()}


WRONG_LOSSES = {
    "no dict": (lambda u, b, o: u.mean(), "terms", "forward returned Tensor: return a dict of named terms"),
    "a float": (lambda u, b, o: {"x": u.mean().item()}, "terms", "is a float, not a tensor"),
    "a row": (lambda u, b, o: {"x": u.mean(1)}, "terms", "has shape (12,), but must be one number"),
    "detached": (lambda u, b, o: {"x": u.detach().mean()}, "gradient", "no gradient reaches the code"),
    "signs": (lambda u, b, o: {"x": (u.sign() @ u.T.sign()).square().mean()}, "gradient", "sign, whose gradient"),
    "no number": (lambda u, b, o: {"x": (u.mean() * 0).log() * 0}, "terms", "is nan"),
    "spoils": (spoils, "twice", "forward changed batch.labels in place"),
    "by place": (lambda u, b, o: {"x": (u * torch.arange(len(u))[:, None]).sum()}, "order", "order of the batch"),
    "no pairs": (
        lambda u, b, o: {"x": ((u @ u.T) * (1 - b.similar)).sum() / (1 - b.similar).sum()},
        "corners",
        "not finite for a batch of one class, where no pair is dissimilar: divide by max(1, count)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_LOSSES)
def test_a_mistake_in_a_loss_is_found_with_its_fix(name):
    forward, check, says = WRONG_LOSSES[name]
    found = {f.check: f.why for f in check_loss(loss(forward)) if not f.ok}
    assert says in found.get(check, ""), found
    assert check != "terms" or len(found) == 1  # the other checks would repeat the problem


def test_entries_that_a_loss_reads_from_a_special_head_are_a_note():
    found = check_loss(loss(lambda u, b, o: {"x": (u - o.extra["local"].mean()).square().mean()}))
    assert all(f.ok for f in found)
    assert "reads extra['local']" in {f.check: f.why for f in found}["extra"]


def test_a_wrong_sign_gets_a_note_and_a_correct_one_does_not():
    def pairs(u, batch):
        return (u @ u.T / u.shape[1] - 2 * batch.similar + 1).square().mean()

    right, turned, unlabelled = (
        check_loss(loss(forward))[-1]
        for forward in (
            lambda u, b, o: {"x": pairs(u, b)},
            lambda u, b, o: {"x": -pairs(u, b)},
            lambda u, b, o: {"x": (u.abs() - 1).square().mean()},
        )
    )
    assert (right.check, right.ok, right.why) == ("direction", True, "")
    assert "check the sign" in turned.why
    assert unlabelled.ok


def test_a_loss_with_a_table_by_image_id_does_not_depend_on_the_order():
    memory = torch.randn(240, 16)
    found = check_loss(loss(lambda u, b, o: {"x": (u - memory.to(u)[b.ids]).square().mean()}))
    assert [f for f in found if not f.ok] == []


def head(forward):
    class Head(nn.Module):
        def __init__(self, setting, backbone):
            super().__init__()
            self.layer = nn.Linear(backbone.dim, setting.bits)

        def forward(self, features):
            return forward(self.layer(features.pooled))

    return Head


WRONG_HEADS = {
    "a tensor": (lambda z: z, "shape", "forward returned Tensor: return hashzoo.Output(code)"),
    "too short": (lambda z: Output(z[:, :-1]), "shape", "code has shape (24, 15), not (24, 16)"),
    "detached": (lambda z: Output(z.detach()), "gradient", "no gradient reaches the backbone: remove detach"),
    "signs": (lambda z: Output(z.sign()), "gradient", "no gradient reaches the backbone"),
    "batch mean": (lambda z: Output(z - z.mean(0)), "single", "instead of x.mean(0)"),
}


@pytest.mark.parametrize("name", WRONG_HEADS)
def test_a_mistake_in_a_head_is_found_with_its_fix(name):
    forward, check, says = WRONG_HEADS[name]
    found = {f.check: f.why for f in check_head(head(forward)) if not f.ok}
    assert says in found.get(check, ""), found
    assert check != "shape" or len(found) == 1  # the other checks would repeat the problem


def backbone(forward, **attributes):
    class Network(Backbone):
        def __init__(self, shape):
            super().__init__()
            self.dropout = nn.Dropout()
            for name, value in attributes.items():
                setattr(self, name, value)

        def forward(self, images):
            return forward(images)

    return Network


def flat(x):
    return x.flatten(1)[:, :8]


WRONG_BACKBONES = {
    "a tensor": (backbone(flat, dim=8), "shapes", "forward returned Tensor: return hashzoo.Features(pooled)"),
    "no dim": (backbone(lambda x: Features(flat(x))), "build", "must extend hashzoo.Backbone and set self.dim"),
    "another dim": (
        backbone(lambda x: Features(flat(x)), dim=9),
        "shapes",
        "pooled has shape (2, 8), but dim requires (2, 9)",
    ),
    "no maps": (backbone(lambda x: Features(flat(x)), dim=8, map_dims=(4,)), "shapes", "map_dims is (4,)"),
    "draws": (backbone(lambda x: Features(flat(x) + torch.rand(1)), dim=8), "repeats", "two forward passes differ"),
    "by batch": (backbone(lambda x: Features(flat(x) - flat(x).mean(0)), dim=8), "alone", "depend on its batch"),
    "no number": (backbone(lambda x: Features(flat(x).log()), dim=8), "shapes", "pooled is not finite"),
    "spoils": (backbone(lambda x: Features(flat(x.sub_(0.5))), dim=8), "shapes", "forward changed its images in place"),
    "one size": (
        backbone(lambda x: Features(x.reshape(len(x), 3 * 64 * 64)[:, :8]), dim=8),
        "sizes",
        "use the argument shape, or set self.input",
    ),
    "no network": (lambda shape: nn.Flatten(), "build", "Flatten must extend hashzoo.Backbone"),
    "an option": (lambda shape, width=3: backbone(flat)(shape), "build", "'width' is not keyword-only"),
}


@pytest.mark.parametrize("name", WRONG_BACKBONES)
def test_a_mistake_in_a_backbone_is_found_with_its_fix(name):
    factory, check, says = WRONG_BACKBONES[name]
    found = {f.check: f.why for f in check_backbone(factory) if not f.ok}
    assert says in found.get(check, ""), found


def data(**changes):
    from hashzoo_plugins.datasets import digits

    made = digits.small()
    return replace(made, **{name: change(made) for name, change in changes.items()})


def part(made, **changes):
    return replace(made, **changes)


class Broken(list):
    def __getitem__(self, row):
        raise OSError("cut short")


WRONG_DATA = {
    "a tuple": (lambda: (1, 2), "build", "the factory returned tuple: return hashzoo.Splits"),
    "a list as a part": (partial(data, train=lambda d: [d.train]), "parts", "train is a list: use hashzoo.Split"),
    "classes as labels": (
        partial(data, query=lambda d: part(d.query, labels=d.query.labels.argmax(1))),
        "parts",
        "labels of query are torch.int64 (100,), not float32 (N, C): use torch.eye(C)[classes]",
    ),
    "names of other classes": (partial(data, class_names=lambda d: ("a", "b")), "parts", "class_names has 2 names"),
    "several labels unsaid": (
        partial(data, train=lambda d: part(d.train, labels=torch.ones_like(d.train.labels))),
        "parts",
        "multilabel=True",
    ),
    "floats as images": (
        partial(data, train=lambda d: part(d.train, images=d.train.images / 255)),
        "images",
        "not uint8 (N, 3 or 1, H, W)",
    ),
    "channels last": (
        partial(data, train=lambda d: part(d.train, images=d.train.images.permute(0, 2, 3, 1))),
        "images",
        "(8, 8, 1): use PIL images or uint8 tensors (3 or 1, H, W)",
    ),
    "images that do not decode": (
        partial(data, query=lambda d: part(d.query, images=Broken(range(100)))),
        "images",
        "image 0 of query does not decode: OSError: cut short",
    ),
    "queries in the database": (partial(data, database=lambda d: d.query), "faults", "query-in-database (100 of 100)"),
    "train in the database": (partial(data, database=lambda d: d.train), "faults", "notes = {'train': "),
    "drawn anew": (
        lambda: data(query=lambda d: d.query.take(torch.randperm(len(d.query)))),
        "repeats",
        "use a generator seeded with an option",
    ),
    "an option left of the star": (lambda seed=0: data(), "build", "write (*, seed=...)"),
}


@pytest.mark.parametrize("name", WRONG_DATA)
def test_a_mistake_in_a_dataset_is_found_with_its_fix(name):
    factory, check, says = WRONG_DATA[name]
    found = {f.check: f.why for f in check_dataset(factory) if not f.ok}
    assert says in found.get(check, ""), found


@pytest.mark.parametrize("name", ["digits.standard", "digits.inside", "digits.lt50"])
def test_built_in_datasets_pass_the_contract(name):
    random.seed(5)
    expected = random.getstate()
    assert [f for f in check_dataset(zoo.load_plugins().dataset(name).factory) if not f.ok] == []
    assert random.getstate() == expected


def test_checking_a_file_covers_everything_in_it_and_takes_options(tmp_path, capsys):
    (tmp_path / "mine.py").write_text(
        textwrap.dedent("""
        from hashzoo import deep, hookimpl
        from hashzoo_plugins.datasets import digits
        from hashzoo_plugins.heads.linear import Linear
        from hashzoo_plugins.pairwise.dhn import DHN

        def few(*, queries: int):
            return digits.draw({"query": queries, "train": 100, "database": 100}, 0, 0.0)

        @hookimpl
        def hashzoo_losses():
            return {"mine": DHN}

        @hookimpl
        def hashzoo_heads():
            return {"mine": Linear}

        @hookimpl
        def hashzoo_datasets():
            return {"mine.few": few}
        """)
    )
    file = str(tmp_path / "mine.py")
    main(["check", file, "--set", "mine.few.queries=20"])
    told = capsys.readouterr().out.splitlines()
    assert [line for line in told if not line.startswith(" ")] == ["dataset mine.few", "head mine", "loss mine"]
    main(["check", file, "--kind", "head"])
    assert capsys.readouterr().out.startswith("head mine\n")
    main(["check", "mine", "--plugin", file, "--kind", "head"])
    assert capsys.readouterr().out.startswith("head mine\n")
    for arguments, says in (
        ([file], "requires the option queries; give --set mine.few.queries=VALUE"),
        (
            [file, "--kind", "backbone"],
            "provides nothing to check; implement one of the hooks hashzoo_b",
        ),
        ([file, "--set", "mein.width=3"], "--set: no checked part 'mein'; did you mean 'mine'?"),
        (["mein", "--plugin", file, "--kind", "loss"], "no loss 'mein'; did you mean 'mine'?"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["check", *arguments])
        assert ended.value.code == 2
        assert says in capsys.readouterr().err


def test_a_misspelt_hook_is_an_error_with_the_correct_name(tmp_path):
    (tmp_path / "odd.py").write_text(
        "from hashzoo import hookimpl\n\n@hookimpl\ndef hashzoo_metods():\n    return {}\n"
    )
    with pytest.raises(UsageError, match="no hook 'hashzoo_metods'; did you mean 'hashzoo_methods'"):
        zoo.load_plugins([str(tmp_path / "odd.py")])


def test_a_failing_file_ends_with_code_1_and_the_location(tmp_path, capsys):
    (tmp_path / "bad.py").write_text(
        "import torch\nfrom hashzoo import hookimpl\n\n\nclass Bad(torch.nn.Module):\n"
        "    def __init__(self, setting):\n        super().__init__()\n\n"
        "    def forward(self, output, batch):\n        return output.cod\n\n\n"
        "@hookimpl\ndef hashzoo_losses():\n    return {'bad': Bad}\n"
    )
    with pytest.raises(SystemExit) as ended:
        main(["check", str(tmp_path / "bad.py")])
    assert ended.value.code == 1
    assert (
        "FAILED  terms: AttributeError: 'Output' object has no attribute 'cod' (bad.py:10)" in capsys.readouterr().out
    )
