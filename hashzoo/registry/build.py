"""Datasets and backbones built from their names and options."""

from __future__ import annotations

import inspect as signatures
from collections.abc import Callable, Mapping
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from hashzoo.backbone import Backbone
from hashzoo.data.integrity import Inspection, inspect
from hashzoo.data.transforms import as_tensor
from hashzoo.errors import EnvironmentFailure, HashzooError, UsageError, first_line, unknown_name
from hashzoo.method import options
from hashzoo.registry.zoo import Zoo
from hashzoo.types import ProgressCallback, Splits


def convert_options(kind: str, name: str, factory: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Every option of a factory, defaults filled in, with the given values in the declared types."""
    known = options(factory)
    for key in given:
        if key not in known:
            where = f"{kind} {name} has "
            raise UsageError(
                where + (unknown_name("option", key, known) if known else f"no options; {key!r} was given")
            )
    values = {}
    for key, option in known.items():
        if key not in given:
            if option.default is signatures.Parameter.empty:
                short = "--root FOLDER or " if key == "root" else ""
                raise UsageError(f"{kind} {name} needs its option {key}; give {short}--set {name}.{key}=VALUE")
            values[key] = option.default
            continue
        try:
            values[key] = TypeAdapter(option.annotation).validate_python(given[key])
        except ValidationError as error:
            text = error.errors()[0]["msg"]
            raise UsageError(f"{name}.{key} = {given[key]!r}: {text[0].lower() + text[1:]}") from error
    return values


def load_data(zoo: Zoo, name: str, given: Mapping[str, Any]) -> Splits:
    """The splits of a dataset. UsageError for options that it cannot serve, and for an empty part."""
    try:
        data: Splits = zoo.dataset(name).factory(**given)
    except ValueError as error:
        raise UsageError(f"dataset {name}: {error}") from error
    for part, split in data.parts().items():
        if not len(split):
            raise UsageError(f"the {part} split of {name} is empty")
    return data


def inspect_images(name: str, data: Splits, skip_bad: bool, tell: ProgressCallback | None = None) -> Inspection:
    """What a look at every image found. EnvironmentFailure naming the first that does not decode, unless to be
    skipped.
    """
    found = inspect(data, tell)
    for part, bad in found.bad.items():
        if bad and not skip_bad:
            row, reason = next(iter(bad.items()))
            raise EnvironmentFailure(
                f"image {int(data.parts()[part].ids[row])} of the {part} split of {name} does not decode: {reason}; "
                f"mend or remove it, or use --on-bad-image skip ({found.left_out} in all)"
            )
    return found


def path_options(factory: Callable[..., Any]) -> set[str]:
    """The options of a dataset that say where files lie.

    >>> from pathlib import Path
    >>> def source(*, root: Path | None = None, seed: int = 0): ...
    >>> places(source)
    {'root'}
    """
    return {name for name, option in options(factory).items() if name == "root" or "Path" in str(option.annotation)}


def without_paths(
    factory: Callable[..., Any], values: Mapping[str, Any], source: str, fingerprint: str
) -> dict[str, Any]:
    """The options of a dataset as a key holds them: where its files lie is nobody's business, what they are is.

    A folder that has to be given is the dataset: its fingerprint takes its place, so that two folders are two.

    >>> from pathlib import Path
    >>> def official(*, root: Path | None = None, seed: int = 0): ...
    >>> paths_left_out(official, {"root": Path("/home/me"), "seed": 1}, "Digits (JPEG)", "f00d")
    {'root': 'Digits (JPEG)', 'seed': 1}
    >>> def own(*, root: Path): ...
    >>> paths_left_out(own, {"root": Path("/home/me")}, "a folder", "f00d")
    {'root': 'f00d'}
    """
    known, found = options(factory), dict(values)
    for name in path_options(factory) & values.keys():
        found[name] = fingerprint if known[name].default is signatures.Parameter.empty else source
    return found


def with_paths(factory: Callable[..., Any], values: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What :func:`paths_left_out` left out, as given here or by default. UsageError for a path that has to be given."""
    found = dict(values)
    for name in path_options(factory):
        found[name] = given.get(name, options(factory)[name].default)
        if found[name] is signatures.Parameter.empty:
            raise UsageError(f"this cell was measured on files in a folder ({values[name]}); name it with --{name}")
    return found


def image_shape(data: Splits) -> tuple[int, int, int]:
    """(channels, height, width) of the first training image."""
    images = data.train.images
    first = images[0] if isinstance(images, Tensor) else as_tensor(images[0])
    channels, height, width = first.shape
    return channels, height, width


def build_backbone(zoo: Zoo, name: str, shape: tuple[int, int, int], given: Mapping[str, Any], seed: int) -> Backbone:
    """A backbone whose random weights, if it has any, are drawn from ``seed``; the global generator is put back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            backbone: Backbone = zoo.backbone(name).factory(shape, **given)
        except ValueError as error:
            raise UsageError(f"backbone {name}: {error}") from error
        except (HashzooError, MemoryError):
            raise
        except Exception as error:  # the readers of damaged weights raise many kinds
            raise EnvironmentFailure(f"backbone {name}: {type(error).__name__}: {first_line(error)}") from error
        return backbone
