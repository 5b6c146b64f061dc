"""Builds datasets and backbones from names and options."""

from __future__ import annotations

import inspect as signatures
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from hashzoo.backbone import Backbone
from hashzoo.data.integrity import Inspection, inspect_splits
from hashzoo.data.transforms import as_tensor
from hashzoo.data.vectors import Vectors, holds_vectors
from hashzoo.errors import EnvironmentFailure, HashzooError, UsageError, first_line, unknown_name
from hashzoo.factory import Option, options
from hashzoo.registry.zoo import Zoo
from hashzoo.storage.files import expand_user
from hashzoo.types import ProgressCallback, Splits


def convert_options(kind: str, name: str, factory: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a factory: the given values, converted to the declared types, and the defaults of the others.

    Args:
        kind: The kind of the factory, such as "dataset", for error messages.
        name: Its name.
        factory: A callable whose keyword-only parameters are its options.
        given: Values by the name of an option.

    Raises:
        UsageError: For an unknown option, an invalid value, and a required option without a value.
    """
    known = options(factory)
    for key in given:
        if key not in known:
            problem = unknown_name("option", key, known) if known else f"no options; {key!r} was given"
            raise UsageError(f"{kind} {name} has {problem}")
    return {key: _convert_option(kind, name, option, given) for key, option in known.items()}


def _convert_option(kind: str, name: str, option: Option, given: Mapping[str, Any]) -> Any:
    if option.name not in given:
        if option.default is signatures.Parameter.empty:
            short = "--root FOLDER or " if option.name == "root" else ""
            setting = f"{short}--set {name}.{option.name}=VALUE"
            raise UsageError(f"{kind} {name} requires the option {option.name}; give {setting}")
        return option.default
    value = given[option.name]
    try:
        made = TypeAdapter(option.annotation).validate_python(value)
        return expand_user(made) if isinstance(made, Path) else made
    except ValidationError as error:
        text = error.errors()[0]["msg"]
        raise UsageError(f"{name}.{option.name} = {value!r}: {text[0].lower() + text[1:]}") from error


def load_data(zoo: Zoo, name: str, given: Mapping[str, Any]) -> Splits:
    """Load the splits of a dataset with all its options.

    Raises UsageError for options that the dataset rejects, and for an empty split.
    """
    try:
        data: Splits = zoo.dataset(name).factory(**given)
    except ValueError as error:
        raise UsageError(f"dataset {name}: {error}") from error
    for part, split in data.parts().items():
        if not len(split):
            raise UsageError(f"the {part} split of {name} is empty")
    return data


def inspect_images(name: str, data: Splits, skip_bad: bool, tell: ProgressCallback | None = None) -> Inspection:
    """Decode every image of a dataset.

    Args:
        name: The name of the dataset, for error messages.
        data: Its splits.
        skip_bad: Whether images that do not decode are left out; otherwise the first one raises EnvironmentFailure.
        tell: Receives the progress.
    """
    found = inspect_splits(data, tell)
    for part, bad in found.bad.items():
        if bad and not skip_bad:
            row, reason = next(iter(bad.items()))
            if holds_vectors(data.parts()[part].images):
                raise EnvironmentFailure(
                    f"{reason}; repair or remove it, or use --on-bad-image skip ({found.left_out} in total)"
                )
            raise EnvironmentFailure(
                f"image {int(data.parts()[part].ids[row])} of the {part} split of {name} does not decode: {reason}; "
                f"repair or remove it, or use --on-bad-image skip ({found.left_out} in total)"
            )
    return found


def path_options(factory: Callable[..., Any]) -> set[str]:
    """The options of a dataset that are paths.

    >>> from pathlib import Path
    >>> def source(*, root: Path | None = None, seed: int = 0): ...
    >>> path_options(source)
    {'root'}
    """
    return {name for name, option in options(factory).items() if name == "root" or "Path" in str(option.annotation)}


def without_paths(
    factory: Callable[..., Any], values: Mapping[str, Any], source: str, fingerprint: str
) -> dict[str, Any]:
    """The options of a dataset as the key of a cell records them: its files can be moved, so paths are replaced.

    An option with the mark :data:`hashzoo.ADDED` is left out at its default value. The source of the data replaces an
    optional path. The fingerprint of the data replaces a required path, since
    the path alone decides which images are read.

    >>> from pathlib import Path
    >>> def official(*, root: Path | None = None, seed: int = 0): ...
    >>> without_paths(official, {"root": Path("/home/me"), "seed": 1}, "Digits (JPEG)", "f00d")
    {'root': 'Digits (JPEG)', 'seed': 1}
    >>> def own(*, root: Path): ...
    >>> without_paths(own, {"root": Path("/home/me")}, "a folder", "f00d")
    {'root': 'f00d'}
    """
    known = options(factory)
    recorded = {
        name: value
        for name, value in values.items()
        if name not in known or not (known[name].added and value == known[name].default)
    }
    for name in path_options(factory) & values.keys():
        recorded[name] = fingerprint if known[name].default is signatures.Parameter.empty else source
    return recorded


def with_paths(factory: Callable[..., Any], values: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Recorded options of a dataset (:func:`without_paths`) with the paths in ``given``, or their defaults.

    Raises UsageError for a required path that is not given.
    """
    restored = dict(values)
    for name in path_options(factory):
        restored[name] = given.get(name, options(factory)[name].default)
        if restored[name] is signatures.Parameter.empty:
            raise UsageError(f"this cell was measured on files in a folder ({values[name]}); name it with --{name}")
    return restored


def image_shape(data: Splits) -> tuple[int, int, int]:
    """The shape (channels, height, width) of the first training image; (D, 1, 1) for vectors."""
    images = data.train.images
    if isinstance(images, Vectors):
        return images.dim, 1, 1
    first = images[0] if isinstance(images, Tensor) else as_tensor(images[0])
    channels, height, width = first.shape
    return channels, height, width


def build_backbone(zoo: Zoo, name: str, shape: tuple[int, int, int], given: Mapping[str, Any], seed: int) -> Backbone:
    """Build a backbone for images of a shape (channels, height, width).

    Random weights are drawn from ``seed``; the state of the global generator does not change.

    Raises:
        UsageError: If the backbone rejects the shape or an option.
        EnvironmentFailure: If its weights cannot be read.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            backbone: Backbone = zoo.backbone(name).factory(shape, **given)
        except ValueError as error:
            raise UsageError(f"backbone {name}: {error}") from error
        except (HashzooError, MemoryError):
            raise
        except Exception as error:  # readers of damaged weights raise exceptions of many types
            raise EnvironmentFailure(f"backbone {name}: {type(error).__name__}: {first_line(error)}") from error
        return backbone
