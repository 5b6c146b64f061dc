"""Weights of the user's own: files as training programs leave them, loaded into a network without its classifier.

A factory of networks is wrapped when it is registered, so that its module, whose digest is part of every key of a cell,
stays as it is. The wrapper adds the options ``weights_from`` and ``trained_on``; neither is part of a key: the text
``weights`` of the backbone names the table that was chosen, and what weights were trained on changes no score.
"""

from __future__ import annotations

import functools
import inspect
import os
import pickle
import warnings
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hashzoo import Backbone, EnvironmentFailure, UsageError
from hashzoo_plugins.backbones.weights import SHOWN, digest

#: Names under which training programs store the weights of a network.
TABLES = ("state_dict", "model", "model_state_dict", "net", "ema", "state_dict_ema", "model_ema")

#: Prefixes that wrappers of networks add to every key.
PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "encoder.")

PLAIN = "save model.state_dict() with torch.save, or a .safetensors file"
Weights = dict[str, Tensor]
Classifier = Callable[[Any], tuple[str, ...]]


def with_own_weights(build: Callable[..., Backbone], classifier: Classifier) -> Callable[..., Backbone]:
    """A factory ``build(name, shape, *, weights, allow_missing, ...)`` that reads weights files itself.

    Args:
        build: The factory. It is called with ``weights="random"`` for a network that a file is loaded into.
        classifier: Returns the names of the modules of the classifier of such a network, which the network lacks.
    """

    @functools.wraps(build)
    def wrapper(
        name: str,
        shape: tuple[int, int, int],
        *,
        weights: str = "default",
        weights_from: str | None = None,
        trained_on: str | None = None,
        allow_missing: tuple[str, ...] = (),
        **options: Any,
    ) -> Backbone:
        if weights in ("default", "random"):
            for option, value in (("weights_from", weights_from), ("trained_on", trained_on)):
                if value is not None:
                    raise ValueError(
                        f"{option} = {value!r} describes a weights file; give weights=FILE or leave it out"
                    )
            return build(name, shape, weights=weights, allow_missing=allow_missing, **options)
        path = Path(os.path.expanduser(weights))  # noqa: PTH111 - keeps ~ where there is no home folder, and raises nothing
        given, place = choose_table(path, read_file(path), weights_from)
        backbone = build(name, shape, weights="random", **options)
        network: Any = backbone.network
        given, stripped = strip_prefixes(given, network.state_dict().keys())
        load(network, given, classifier(network), path, allow_missing)
        backbone.weights = " ".join(filter(None, [path.name, digest(path), weights_from]))
        backbone.trained_on = trained_on or ""
        if place or stripped:
            loaded = " and ".join(
                [f"its table {place}"] * bool(place) + [f"without the prefix {stripped}"] * bool(stripped)
            )
            backbone.note = f"{path.name}: loaded {loaded}"
        return backbone

    extra = [
        inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, default=None, annotation="str | None")
        for option in ("weights_from", "trained_on")
    ]
    signature = inspect.signature(build)
    wrapper.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *extra])  # type: ignore[attr-defined]
    wrapper.__annotations__ = {**build.__annotations__, **{one.name: one.annotation for one in extra}}
    wrapper.unrecorded = tuple(one.name for one in extra)  # type: ignore[attr-defined]
    return wrapper


def torchvision_classifier(network: nn.Module) -> tuple[str, ...]:
    """The modules that ``torchvision.chopped`` removes."""
    return ("classifier", "fc", "head", "heads", "AuxLogits", "aux1", "aux2")


def timm_classifier(network: Any) -> tuple[str, ...]:
    """The classifiers that timm names in the configuration of a network."""
    named = getattr(network, "pretrained_cfg", {}).get("classifier") or ()
    return (named,) if isinstance(named, str) else tuple(named)


def read_file(path: Path) -> Any:
    """The content of a .safetensors, .pth or .pt file: tensors and plain values. Code in a file is never executed.

    Raises EnvironmentFailure, with the reason and the fix, for any other file.
    """
    if not path.is_file():
        raise EnvironmentFailure(f"weights file not found: {path}")
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise EnvironmentFailure(f"cannot read {path}: {error.strerror or error}") from error
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not start:
        raise EnvironmentFailure(f"{path} is empty; download or copy it again")
    if text.startswith(b"version https://git-lfs"):
        raise EnvironmentFailure(f"{path} is a Git LFS pointer, not the weights; get them with git lfs pull")
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise EnvironmentFailure(f"{path} is a web page, not weights; download the file itself, not the page about it")
    return _tables(path)


def _tables(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix.lower() == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings(action="ignore"):  # of an unusual pickle protocol
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        objects = "Unsupported" in str(error) or "GLOBAL" in str(error) or "weights_only" in str(error)
        if objects and _is_pickle(path):
            raise EnvironmentFailure(
                f"{path} holds Python objects besides tensors, which are never loaded since they can run code; {PLAIN}"
            ) from error
        raise EnvironmentFailure(f"{path} is not a weights file, or is damaged; {PLAIN}") from error
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        if "TorchScript" in str(error):
            raise EnvironmentFailure(f"{path} is a TorchScript program, not weights; {PLAIN}") from error
        raise EnvironmentFailure(f"{path} is not a weights file, or is damaged; {PLAIN}") from error


def _is_pickle(path: Path) -> bool:
    """Whether a file starts as torch.save or pickle write them."""
    with path.open("rb") as file:
        return file.read(2)[:1] in (b"\x80", b"P")


def choose_table(path: Path, found: Any, wanted: str | None) -> tuple[Weights, str]:
    """The table of tensors in the content of a file, and the name that it stands under; empty if it is the file.

    Raises UsageError if there are several tables, or not the wanted one, and EnvironmentFailure if there is none.
    """
    place = list[str]()
    while isinstance(found, dict):
        tables = [name for name in TABLES if isinstance(found.get(name), dict) and found[name]]
        if wanted is not None and not place:
            if not isinstance(found.get(wanted), dict):
                known = ", ".join(name for name, value in found.items() if isinstance(value, dict)) or "none"
                raise UsageError(f"{path.name} has no table {wanted!r}; weights_from can be: {known}")
            tables = [wanted]
        elif len(tables) > 1:
            raise UsageError(
                f"{path.name} has several tables of weights: {', '.join(tables)}; "
                f"choose one, as weights_from={tables[0]}"
            )
        if not tables:
            break
        place.append(tables[0])
        found = found[tables[0]]
    if not isinstance(found, dict) or not found or not all(isinstance(value, Tensor) for value in found.values()):
        raise EnvironmentFailure(f"{path} is not a table of tensors; {PLAIN}")
    return found, ".".join(place)


def strip_prefixes(given: Weights, wanted: Any) -> tuple[Weights, str]:
    """The weights without the prefixes that all of their keys have, and these prefixes.

    >>> strip_prefixes({"module._orig_mod.fc.bias": torch.zeros(1)}, ["fc.bias"])[1]
    'module._orig_mod.'
    """
    stripped = ""
    while found := [one for one in PREFIXES if all(key.startswith(one) for key in given)]:
        if any(key.startswith(found[0]) for key in wanted):
            break
        given = {key.removeprefix(found[0]): value for key, value in given.items()}
        stripped += found[0]
    return given, stripped


def load(
    network: nn.Module, given: Weights, classifier: tuple[str, ...], path: Path, allow_missing: tuple[str, ...]
) -> None:
    """Load weights into a network without a classifier. Those of a classifier of any size are discarded.

    Raises UsageError, with the keys, for other unexpected keys, missing keys, and keys of another shape.
    """
    wanted = network.state_dict()
    own = {
        key: value
        for key, value in given.items()
        if key in wanted or not any(key.startswith(f"{name}.") for name in classifier)
    }
    counters = {key for key in wanted if key.endswith("num_batches_tracked")}
    missing = [k for k in wanted.keys() - own.keys() - counters if not any(fnmatchcase(k, p) for p in allow_missing)]
    shapes = [key for key in wanted.keys() & own.keys() if wanted[key].shape != own[key].shape]
    problems = [
        f"{len(keys)} {what} ({', '.join(sorted(keys)[:SHOWN])}{', ...' if len(keys) > SHOWN else ''})"
        for what, keys in (
            ("missing", missing),
            ("unexpected", sorted(own.keys() - wanted.keys())),
            ("of another shape", shapes),
        )
        if keys
    ]
    if problems:
        advice = "; list keys that may be missing in allow_missing" if missing else ""
        raise UsageError(
            f"{path.name} does not fit the network: {'; '.join(problems)}; name the backbone that they are of{advice}"
        )
    network.load_state_dict(own, strict=False)
