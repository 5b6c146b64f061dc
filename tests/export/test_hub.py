"""Trained methods on a hub: pushed as one commit, downloaded with their digests checked, and never executed."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import hashzoo
from hashzoo.registry import hub
from tests.embedded import embed
from tests.export.hub_site import TOKEN, serving
from tests.in_process import command, refused

pytest.importorskip("huggingface_hub")
NAME = "me/my-hash"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return embed(tmp_path_factory.mktemp("embedded"))


@pytest.fixture
def site(monkeypatch, tmp_path):
    from huggingface_hub import constants

    with serving() as found:
        monkeypatch.setenv("HF_ENDPOINT", found.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield found


def files(site, revision="main"):
    """The files of the newest commit, which a test can change."""
    return site.files(NAME, revision)[1]


def test_a_pushed_method_encodes_elsewhere_as_it_does_here(made, site, tmp_path):
    assert command("push", made.cell, NAME) == 0
    assert set(files(site)) == {"README.md", "config.json", "method.json", "method.safetensors"}
    assert len(site.commits[NAME]["main"]) == 1
    for source in (made.cell, f"hf://{NAME}", f"hf://{NAME}@{site.files(NAME)[0]}"):
        assert command("encode", source, made.vectors, "-o", tmp_path / "codes.npz") == 0
        codes = (tmp_path / "codes.npz").read_bytes()
        encoder = hashzoo.load_vector_encoder(source)
        assert torch.equal(
            encoder.encode(made.queries)["code"], hashzoo.load_vector_encoder(made.cell).encode(made.queries)["code"]
        )
    assert codes


def test_an_index_finds_its_method_on_the_hub_when_the_cache_is_gone(made, site, tmp_path):
    assert command("push", made.cell, NAME) == 0
    assert command("index", "build", f"hf://{NAME}", "--vectors", made.vectors, "-o", tmp_path / "my.index") == 0
    expected = hashzoo.open_vector_index(tmp_path / "my.index").search(made.queries, 5).rows
    shutil.rmtree(tmp_path / "cache")
    assert (hashzoo.open_vector_index(tmp_path / "my.index").search(made.queries, 5).rows == expected).all()


def test_the_main_branch_moves_and_a_commit_does_not(made, site):
    assert command("push", made.cell, NAME) == 0
    first = site.files(NAME)[0]
    assert command("push", made.cell, NAME, "--message", "again", "--license", "mit") == 0
    assert b"license: mit" in files(site)["README.md"]
    assert hub.pull(hub.Reference(NAME, first)).parent.name == first
    assert hub.pull(hub.Reference(NAME)).parent.name == site.files(NAME)[0] != first
    assert command("push", made.cell, NAME, "--revision", "v1") == 0
    assert len(site.commits[NAME]["v1"]) == 1


def test_nothing_is_pushed_with_an_output_folder(made, tmp_path, capsys):
    assert command("push", made.cell, NAME, "-o", tmp_path / "look") == 0
    assert (tmp_path / "look" / "config.json").is_file()
    assert "name a new folder" in refused(capsys, 2, "push", made.cell, NAME, "-o", tmp_path / "look")


def test_no_path_of_this_machine_is_shared(made, tmp_path):
    assert command("push", made.cell, NAME, "-o", tmp_path / "look") == 0
    for file in (tmp_path / "look").iterdir():
        assert str(made.cell.parents[1]).encode() not in file.read_bytes(), file.name


def test_the_card_can_be_read_by_the_hub_and_has_the_scores(made, tmp_path):
    from huggingface_hub import ModelCard

    assert command("push", made.cell, NAME, "-o", tmp_path / "look", "--license", "apache-2.0") == 0
    card = ModelCard((tmp_path / "look" / "README.md").read_text())
    assert (card.data.license, card.data.library_name) == ("apache-2.0", "hashzoo")
    found = {one.metric_type: one.metric_value for one in card.data.eval_results}
    assert found == {name: round(value, 6) for name, value in made.metrics.items() if value == value}
    assert f"hf://{NAME}" in card.text
    assert "by `itq` (Gong & Lazebnik" in card.text


@pytest.mark.parametrize(
    ("change", "code", "reason"),
    [
        ({"method.safetensors": b"other"}, 3, "method.safetensors is not the file whose digest"),
        ({"config.json": None}, 2, "is no trained method of hashzoo"),
        ({"config.json": b"{"}, 2, "is no trained method of hashzoo"),
        ({"config.json": b'{"model_type": "bert"}'}, 2, "is no trained method of hashzoo"),
        ({"config.json": b'{"format": "hashzoo method", "schema": 1}'}, 3, "does not list method.json"),
        ({"config.json": b'{"format": "hashzoo method", "schema": 9}'}, 3, "pull an older revision"),
        ({"method.json": None}, 2, "is no trained method of hashzoo"),
    ],
)
def test_a_repository_with_other_files_is_refused(made, site, change, code, reason, capsys, tmp_path):
    assert command("push", made.cell, NAME) == 0
    for name, content in change.items():
        files(site).pop(name) if content is None else files(site).update({name: content})
    error = refused(capsys, code, "encode", f"hf://{NAME}", made.vectors, "-o", tmp_path / "codes.npz")
    assert reason in error
    assert not (tmp_path / "codes.npz").exists()


def test_only_the_files_of_a_method_are_downloaded(made, site):
    assert command("push", made.cell, NAME) == 0
    content = json.loads(files(site)["config.json"])
    content["files"]["../../escape.json"] = content["files"]["pytorch_model.bin"] = "0"
    files(site).update({"config.json": json.dumps(content).encode(), "pytorch_model.bin": b"pickle"})
    hub.pull(hub.Reference(NAME))
    assert not [address for address in site.asked if "pytorch_model" in address or "escape" in address]


def test_a_broken_download_is_one_line_and_the_next_one_completes_it(made, site, capsys, tmp_path):
    assert command("push", made.cell, NAME) == 0
    site.cut = 100
    assert "run the command again" in refused(
        capsys, 3, "encode", f"hf://{NAME}", made.vectors, "-o", tmp_path / "c.npz"
    )
    site.cut = None
    assert command("encode", f"hf://{NAME}", made.vectors, "-o", tmp_path / "c.npz") == 0


@pytest.mark.parametrize(
    ("part", "status", "reason"),
    [("commit", 403, "may not do this"), ("preupload", 400, "run the command again later"), ("commit", 409, "changed")],
)
def test_a_push_that_fails_leaves_nothing(made, site, part, status, reason, capsys):
    site.fail[f"/{part}/"] = [status]
    assert reason in refused(capsys, 3, "push", made.cell, NAME)
    assert files(site) == {}
    assert command("push", made.cell, NAME) == 0


def test_other_failures_are_one_line_with_what_to_do(made, site, capsys, tmp_path, monkeypatch):
    encode = ("encode", "hf://me/none", made.vectors, "-o", tmp_path / "codes.npz")
    assert "there is no repository me/none, or it is private" in refused(capsys, 2, *encode)
    assert command("push", made.cell, NAME) == 0
    assert "has no revision v9" in refused(capsys, 2, "encode", f"hf://{NAME}@v9", *encode[2:])
    assert "hf://a names no repository" in refused(capsys, 2, "encode", "hf://a", *encode[2:])
    assert "is a trained method; name the images" in refused(
        capsys, 2, "index", "build", f"hf://{NAME}", "-o", "x.index"
    )
    assert "a/b/c is no name of a repository" in refused(capsys, 2, "push", made.cell, "a/b/c")
    monkeypatch.setenv("HF_TOKEN", "another")
    assert "the token is not valid" in refused(capsys, 3, "push", made.cell, NAME)


def test_a_downloaded_method_needs_no_network(made, site, monkeypatch, capsys, tmp_path):
    from huggingface_hub import constants

    assert command("push", made.cell, NAME) == 0
    hub.pull(hub.Reference(NAME))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(site.asked)
    assert command("encode", f"hf://{NAME}", made.vectors, "-o", tmp_path / "codes.npz") == 0
    assert len(site.asked) == asked
    error = refused(capsys, 3, "encode", "hf://me/none", made.vectors, "-o", tmp_path / "codes.npz")
    assert "HF_HUB_OFFLINE is set" in error


NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True)


@given(NAMES, NAMES, st.just("") | NAMES | st.just("refs/pr/1"))
def test_a_reference_is_read_as_it_is_written(owner, name, revision):
    named = hub.Reference(f"{owner}/{name}", revision)
    assert hub.reference(str(named)) == named


@pytest.mark.parametrize("text", ["hf://a", "hf://a/b/c", "hf://a/b@", "hf://a/../b", "hf://a/b@v 1", "hf://"])
def test_other_references_are_refused(text):
    with pytest.raises(hashzoo.UsageError, match="names no repository of the hub"):
        hub.reference(text)
