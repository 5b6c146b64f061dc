"""Weights of the user's own: as training programs, downloads and other people leave them."""

from __future__ import annotations

import pickle

import pytest
import torch
from hashzoo_plugins.backbones import timm, torchvision
from safetensors.torch import save_file

from hashzoo.api import Request, prepare
from hashzoo.errors import EnvironmentFailure, HashzooError, UsageError
from hashzoo.registry.build import build_backbone
from hashzoo.registry.source import code_digest
from hashzoo.registry.zoo import load_plugins
from tests.shared_data import SHARED, needs

SHAPE = (3, 32, 32)
NAME = "torchvision/squeezenet1_1"
HOUSE = load_plugins()


@pytest.fixture(scope="module")
def state():
    from torchvision.models import squeezenet1_1

    torch.manual_seed(3)
    return squeezenet1_1().state_dict()


def ten_classes(state):
    return state | {"classifier.1.weight": torch.zeros(10, 512, 1, 1), "classifier.1.bias": torch.zeros(10)}


def prefixed(state, prefix):
    return {prefix + key: value for key, value in state.items()}


def built(path, name=NAME, **options):
    small = {"size": 32} if name == NAME else {}
    return build_backbone(HOUSE, name, SHAPE, {"weights": str(path), **small, **options}, 0)


def loaded(backbone, state):
    own = backbone.network.state_dict()
    assert own
    return all(torch.equal(value, state[key]) for key, value in own.items())


@pytest.mark.parametrize("classifier", ["its own", "another size", "none", "another form"])
def test_a_classifier_of_any_size_is_discarded_without_allow_missing(classifier, state, tmp_path):
    trunk = {key: value for key, value in state.items() if not key.startswith("classifier")}
    given = {
        "its own": state,
        "another size": ten_classes(state),
        "none": trunk,
        "another form": trunk | {"classifier.4.scale": torch.ones(3)},
    }[classifier]
    torch.save(given, tmp_path / "mine.pth")
    assert loaded(built(tmp_path / "mine.pth"), state)


@pytest.mark.parametrize("suffix", ["pth", "PTH", "Pt", "SAFETENSORS"])
def test_a_suffix_is_read_in_any_case(suffix, state, tmp_path):
    path = tmp_path / f"mine.{suffix}"
    (save_file if suffix.lower() == "safetensors" else torch.save)(state, path)
    assert loaded(built(path), state)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "backbone.", "encoder.", "module._orig_mod."])
def test_a_prefix_of_all_keys_is_stripped_and_said(prefix, state, tmp_path):
    torch.save(prefixed(ten_classes(state), prefix), tmp_path / "mine.pth")
    backbone = built(tmp_path / "mine.pth")
    assert loaded(backbone, state)
    assert backbone.note == f"mine.pth: loaded without the prefix {prefix}"


def test_a_prefix_of_some_keys_is_an_error_that_names_keys(state, tmp_path):
    torch.save(state | {"module.extra": torch.zeros(1)}, tmp_path / "mine.pth")
    with pytest.raises(UsageError, match=r"1 unexpected \(module\.extra\)") as refused:
        built(tmp_path / "mine.pth")
    assert "allow_missing" not in str(refused.value)  # it would not help


@pytest.mark.parametrize("table", ["state_dict", "model", "model_state_dict", "net", "ema"])
def test_weights_are_found_in_the_table_that_a_training_program_wrote(table, state, tmp_path):
    torch.save({table: state, "epoch": 3}, tmp_path / "mine.pth")
    backbone = built(tmp_path / "mine.pth")
    assert loaded(backbone, state)
    assert backbone.note == f"mine.pth: loaded its table {table}"


def test_several_tables_are_refused_until_one_is_chosen(state, tmp_path):
    other = {key: value + 1 for key, value in state.items()}
    torch.save({"model": state, "ema": other}, tmp_path / "mine.pth")
    with pytest.raises(UsageError, match=r"several tables of weights: model, ema; choose one, as weights_from=model"):
        built(tmp_path / "mine.pth")
    backbone = built(tmp_path / "mine.pth", weights_from="ema")
    assert loaded(backbone, other)
    assert backbone.weights.endswith(" ema")  # part of the key of a cell
    with pytest.raises(UsageError, match="no table 'net'; weights_from can be: model, ema"):
        built(tmp_path / "mine.pth", weights_from="net")


def test_the_keys_of_a_file_that_does_not_fit_are_named(state, tmp_path):
    first, *_ = trunk = [key for key in state if not key.startswith("classifier")]
    torch.save({key: value for key, value in state.items() if key != first}, tmp_path / "missing.pth")
    with pytest.raises(UsageError, match=rf"1 missing \({first}\).*allow_missing"):
        built(tmp_path / "missing.pth")
    assert built(tmp_path / "missing.pth", allow_missing=(first,)).weights.startswith("missing.pth ")
    torch.save(state | {trunk[0]: torch.zeros(2)}, tmp_path / "shape.pth")
    with pytest.raises(UsageError, match=rf"1 of another shape \({first}\)"):
        built(tmp_path / "shape.pth")


class Model:
    pass


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 4956208\n",
            "Git LFS pointer.*git lfs pull",
        ),
        (b"\n<!DOCTYPE html>\n<html>", "is a web page"),
        (b"<html><body>404", "is a web page"),
        (b"junk" * 100, "not a weights file, or is damaged"),
        (pickle.dumps(Model()), "Python objects besides tensors"),
        (Model(), "Python objects besides tensors"),
        ({"model": Model()}, "Python objects besides tensors"),
        ({"epoch": 3}, "not a table of tensors"),
    ],
)
@pytest.mark.parametrize("suffix", ["pth", "bin", "safetensors"])
def test_what_is_no_weights_file_is_refused_in_one_line_without_advice_to_unpickle(content, says, suffix, tmp_path):
    path = tmp_path / f"mine.{suffix}"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    if suffix == "safetensors" and not says.startswith(("is", "Git")):
        says = "not a weights file, or is damaged"
    with pytest.raises(EnvironmentFailure, match=says) as refused:
        built(path)
    text = str(refused.value)
    assert "weights_only" not in text
    assert "\n" not in text
    assert str(path) in text


def test_fully_connected_layers_are_read_and_only_the_last_one_is_a_classifier(tmp_path):
    from torchvision.models import alexnet

    state = alexnet(num_classes=7).state_dict()
    torch.save(state, tmp_path / "mine.pth")
    assert loaded(built(tmp_path / "mine.pth", "torchvision-fc/alexnet"), state)
    torch.save({key: value for key, value in state.items() if not key.startswith("classifier")}, tmp_path / "cut.pth")
    with pytest.raises(UsageError, match=r"4 missing \(classifier\.1\.bias, classifier\.1\.weight"):
        built(tmp_path / "cut.pth", "torchvision-fc/alexnet")


def test_a_timm_network_takes_weights_with_any_classifier_too(tmp_path):
    import timm as library

    state = library.create_model("test_resnet", num_classes=7).state_dict()
    torch.save({"state_dict": prefixed(state, "module.")}, tmp_path / "mine.pth")
    assert loaded(built(tmp_path / "mine.pth", "timm/test_resnet"), state)


def rows(path, *more: str, tmp_path):
    settings = {NAME: {"weights": str(path), "size": 32} | dict(one.split("=") for one in more)}
    options = {"baselines": False, "quick": True, "backbone": NAME, "settings": settings}
    return prepare(Request("digits", methods=["lsh"], bits=[8], **options)).jobs


def test_the_row_says_what_own_weights_were_trained_on_and_the_key_does_not_change(state, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(state, tmp_path / "mine.pth")
    (plain,) = rows(tmp_path / "mine.pth", tmp_path=tmp_path)
    (known,) = rows(tmp_path / "mine.pth", "trained_on=ImageNet", tmp_path=tmp_path)
    assert plain.row.settings.endswith("trained_on=unknown")
    assert known.row.settings.endswith("trained_on=ImageNet")
    assert plain.identity.key == known.identity.key
    assert plain.identity.backbone_options.keys() == {"weights", "allow_missing", "taps", "size"}
    assert built(tmp_path / "mine.pth").trained_on == ""
    assert built(tmp_path / "mine.pth", trained_on="ImageNet").trained_on == "ImageNet"


def test_what_weights_were_trained_on_is_for_files_alone():
    with pytest.raises(UsageError, match="trained_on = 'ImageNet' describes a weights file"):
        built("random", trained_on="ImageNet")


def test_the_code_of_a_cell_is_that_of_the_network_alone():
    for name, build in (("torchvision/squeezenet1_1", torchvision.build), ("timm/test_resnet", timm.build)):
        from functools import partial

        assert code_digest(HOUSE.backbone(name).factory) == code_digest(partial(build, name.partition("/")[2]))


def test_a_data_set_without_its_protocol_names_the_protocols():
    with pytest.raises(
        UsageError, match=r"no dataset 'cifar10'; choose one of: .*cifar10\.disjoint, .*cifar10\.official"
    ):
        HOUSE.dataset("cifar10")


@needs("cases", "weights-refused", "lfs.pth")
def test_the_shared_pointer_is_named():
    with pytest.raises(HashzooError, match="Git LFS pointer"):
        built(SHARED / "cases" / "weights-refused" / "lfs.pth")
