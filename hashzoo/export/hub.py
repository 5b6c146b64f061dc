"""Trained methods for the Hugging Face Hub: the files of one, and their upload as one commit.

The files are the cell, the tensors as safetensors, ``config.json`` with the digest of each file, and a model card.
:mod:`hashzoo.registry.hub` reads them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hashzoo._version import __version__
from hashzoo.errors import EnvironmentFailure, UsageError, first_line
from hashzoo.export.model_card import model_card
from hashzoo.registry import hub, saved_method
from hashzoo.registry.hub import CELL, CHOICE, CONFIG, FORMAT, SCHEMA, TENSORS
from hashzoo.results import store
from hashzoo.results.bundle import GIVEN, scrubbed
from hashzoo.retrieval.encoder import TrainedEncoder
from hashzoo.retrieval.vector_encoder import load_any_encoder
from hashzoo.storage.files import disk_errors, replace_bytes, sha256
from hashzoo.storage.tensors import tensor_bytes

CARD = "README.md"  # the name that the hub reads


def share(
    run: str | os.PathLike[str], repository: str, *, license_name: str = "", plugins: Sequence[str] = ()
) -> dict[str, bytes]:
    """The files of a trained method for a repository, by name.

    Absolute paths in the command and in reasons are replaced by FOLDER.

    Args:
        run: As for :func:`hashzoo.load_encoder` or :func:`hashzoo.load_vector_encoder`.
        repository: ``owner/name``, which the card says how to load from.
        license_name: The license of the method as an identifier of the hub, such as ``apache-2.0``; empty if unknown.
        plugins: Plugin files or modules to load.

    Raises:
        UsageError: If there is no such cell, or others could not build its method.
        EnvironmentFailure: If a file is damaged, or the code of the method has changed since the cell was measured.
    """
    encoder = load_any_encoder(run, plugins=plugins)
    cell = encoder.cell
    if encoder.trained.cell.plugin == GIVEN:
        raise UsageError(f"{cell.name}: its method was given as an object and has no name that others can use")
    content, _ = store.content(cell)
    content["cell"] = {**content["cell"], "provenance": scrubbed(content["cell"]["provenance"])}
    files = {CELL: store.content_bytes(content), TENSORS: _tensors(cell)}
    choice: dict[str, Any] | None = None
    if (about := cell.with_name(CHOICE)).is_file():
        with disk_errors("read", about):
            choice = scrubbed(json.loads(about.read_bytes()))
        files[CHOICE] = (json.dumps(choice, indent=1) + "\n").encode()
    files[CONFIG] = _config(encoder, files)
    files[CARD] = model_card(encoder, repository, license_name, choice).encode()
    return files


def check_repository(repository: str, revision: str = "") -> hub.Reference:
    """The reference of a repository and branch. Raises UsageError if they are not valid names."""
    named = (
        hub.reference(f"hf://{repository}" + f"@{revision}" * bool(revision)) if repository.count("/") == 1 else None
    )
    if named is None or (named.repository, named.revision) != (repository, revision):
        raise UsageError(f"{repository} is no name of a repository; use OWNER/NAME")
    return named


def push(
    files: Mapping[str, bytes], repository: str, *, private: bool = False, revision: str = "", message: str = ""
) -> hub.Reference:
    """Upload files as one commit, and return the reference of the commit. The repository is created if it is missing.

    Raises:
        UsageError: If the name of the repository is not valid.
        EnvironmentFailure: If the hub cannot be reached or refuses; then the repository has none of the files.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    named = check_repository(repository, revision)
    api = HfApi(hub.endpoint(), library_name="hashzoo", library_version=__version__)
    with hub.failures(named, f"push to {named}"), hub.quiet():
        api.create_repo(repository, private=private or None, exist_ok=True)
        if revision:
            api.create_branch(repository, branch=revision, exist_ok=True)
        made = api.create_commit(
            repository,
            operations=[CommitOperationAdd(name, content) for name, content in files.items()],
            commit_message=message or f"Trained method of hashzoo {__version__}",
            revision=revision or None,
        )
    return hub.Reference(repository, made.oid)


def write(files: Mapping[str, bytes], folder: Path) -> None:
    """Write files into a new or empty folder. Raises UsageError if it holds others."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists; name a new folder")
    with disk_errors("create", folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        replace_bytes(folder / name, content)


def _tensors(cell: Path) -> bytes:
    """The file of tensors of a cell, without the folders of plugins in its recipe."""
    file = saved_method.path_of(cell)
    fields, tensors = saved_method.contents(file)
    for option, value in fields["backbone_options"].items():
        if isinstance(value, str) and (Path(value).is_absolute() or Path(value).is_file()):
            raise UsageError(
                f"{cell.name}: {option} of its backbone is the file {value}, which others do not have; push a cell "
                "whose backbone has weights that others can download"
            )
    named = {**fields, "plugins": [Path(name).name for name in fields["plugins"]]}
    try:
        return file.read_bytes() if named == fields else tensor_bytes(json.dumps(named), tensors)
    except OSError as error:
        raise EnvironmentFailure(f"cannot read {file}: {first_line(error)}") from error


def _config(encoder: TrainedEncoder, files: Mapping[str, bytes]) -> bytes:
    """What the files are, for people and for :func:`hashzoo.registry.hub.pull`."""
    identity, described = encoder.trained.cell.identity, encoder.describe()
    content = {
        "format": FORMAT,
        "schema": SCHEMA,
        "library_name": "hashzoo",
        "hashzoo": __version__,
        "method": identity.method,
        "hyperparameters": identity.hyperparameters,
        "bits": identity.bits,
        "backbone": identity.backbone,
        "preprocessing": described["preprocessing"],
        "dataset": identity.dataset,
        "split": encoder.trained.cell.facts.get("split"),
        "key": identity.key,
        "code": identity.code,
        "files": {name: sha256(data) for name, data in files.items()},
    }
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()
