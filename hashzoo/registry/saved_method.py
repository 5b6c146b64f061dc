"""Writes trained methods to disk and reads them: tensors as safetensors, with a recipe to build the method again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import Tensor

from hashzoo.data.image_files import to_rgb
from hashzoo.data.transforms import pil_to_tensor
from hashzoo.errors import EnvironmentFailure, UsageError, first_line
from hashzoo.method import Method
from hashzoo.registry.build import build_backbone
from hashzoo.registry.nested import build_method, keep_prefix
from hashzoo.registry.source import code_digest
from hashzoo.registry.zoo import Zoo, load_plugins
from hashzoo.results import store
from hashzoo.results.cell import Cell
from hashzoo.run import Run
from hashzoo.storage.files import replace_bytes
from hashzoo.storage.schema import RESULTS, refuse_newer
from hashzoo.storage.tensors import read_tensors, tensor_bytes
from hashzoo.training.budget import Budget
from hashzoo.types import Input, Setting, Split

SCHEMA = 1  # of the recipe; files of 0.1.0 do not record it


@dataclass(frozen=True)
class TrainedMethod:
    """A trained method in eval mode, and the run that holds its device and the input of its backbone."""

    cell: Cell
    method: Method
    run: Run
    class_names: tuple[str, ...]
    shape: tuple[int, int, int]  # channels, height and width of the dataset's images
    input: Input  # of the backbone
    metric: str = ""  # how vectors are compared; empty for images

    def to_tensor(self, image: Image.Image) -> Tensor:
        """Convert an image to uint8 (C, H, W) with the channels of the dataset.

        The EXIF orientation is applied, and transparent areas become white. If the backbone takes images of any size,
        the image is cropped at its center to the aspect ratio of the dataset's images and resized to their size.
        """
        upright = to_rgb(ImageOps.exif_transpose(image))
        converted = upright.convert("L") if self.shape[0] == 1 else upright
        if self.input.size is None:
            converted = ImageOps.fit(converted, self.shape[:0:-1], Image.Resampling.BICUBIC)
        return pil_to_tensor(converted)

    def to_split(self, images: Sequence[Image.Image]) -> Split:
        """Convert images to an unlabeled split, each by :meth:`to_tensor`."""
        tensors = [self.to_tensor(image) for image in images]
        return Split(tensors, torch.zeros(len(tensors), len(self.class_names)), torch.arange(len(tensors)))


def path_of(cell: Path) -> Path:
    """The path of the weights of the cell at this path."""
    return cell.with_suffix(".safetensors")


@dataclass(frozen=True)
class Recipe:
    """What is needed besides the tensors to build a trained method again; ``key`` is the key of its cell."""

    key: str
    setting: Setting
    class_names: tuple[str, ...]
    shape: tuple[int, int, int]  # channels, height and width of the dataset's images
    backbone_options: Mapping[str, Any]
    plugins: tuple[str, ...]
    metric: str = ""  # how vectors are compared; empty for images


def write(path: Path, method: Method, recipe: Recipe, *, frozen: bool = False) -> None:
    """Write a method's tensors and its recipe, all or nothing. Raises EnvironmentFailure if the disk fails.

    With ``frozen``, the tensors of the backbone are left out: it is built again with its own weights.
    """
    setting = {**vars(recipe.setting), "class_counts": recipe.setting.class_counts.tolist()}
    fields = {"schema": SCHEMA, **vars(recipe), "setting": setting}
    state = method.state_dict()
    tensors = {name: value for name, value in state.items() if not (frozen and "backbone." in name)}
    replace_bytes(path, tensor_bytes(json.dumps(fields), tensors))


def contents(file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The fields of the recipe and the tensors of a file. Raises EnvironmentFailure if the file is damaged."""
    try:
        text, tensors = read_tensors(file, allow_unsealed=True)  # files of 0.1.0 are not sealed
        fields = json.loads(text)
        fields["key"], fields["plugins"]
    except Exception as error:  # readers of damaged files raise exceptions of many types
        cure = "run hashzoo bench again with --rerun all"
        raise EnvironmentFailure(f"{file} cannot be read: {first_line(error)}; {cure}") from error
    return fields, tensors


def read(cell_path: Path, device: str = "cpu", plugins: Sequence[str] = ()) -> TrainedMethod:
    """Build the trained method of a cell.

    Args:
        cell_path: The path of the cell's JSON or of its weights.
        device: The device of the method.
        plugins: Plugin files or modules to load. A plugin that only the file names is not loaded, since a file must
            not decide which code runs.

    Raises:
        UsageError: If the cell is not ok or has no weights, or a plugin is not named.
        EnvironmentFailure: If the file is damaged or belongs to another cell, or the code or the weights of the
            backbone have changed.
    """
    cell_path = cell_path.with_suffix(".json")
    cell, file = store.read(cell_path), path_of(cell_path)
    if cell.status != "ok":
        raise UsageError(f"{cell_path.name} is {cell.status}: {cell.reason}; name a cell that is ok")
    if not file.is_file():
        raise UsageError(f"{cell_path.name} has no weights; run its hashzoo bench again with --save-weights")
    fields, tensors = contents(file)
    refuse_newer(file, fields.get("schema", SCHEMA), SCHEMA, RESULTS)
    if fields["key"] != cell.identity.key:
        raise EnvironmentFailure(f"{file} belongs to another cell; run hashzoo bench again with --rerun all")
    given = {Path(name).name for name in plugins}  # in any folder, since the digest of the code is compared below
    if missing := [name for name in fields["plugins"] if Path(name).name not in given]:
        raise UsageError(f"{cell_path.name} needs the plugin {missing[0]}; name it with --plugin to run its code")
    return _build(cell, file, fields, tensors, load_plugins(plugins), device)


def _build(
    cell: Cell, file: Path, fields: Mapping[str, Any], tensors: dict[str, Tensor], zoo: Zoo, device: str
) -> TrainedMethod:
    identity, name = cell.identity, file.with_suffix(".json").name
    entry, backbone_entry = zoo.method(identity.method), zoo.backbone(identity.backbone)
    if code_digest(entry.factory, backbone_entry.factory) != identity.code:
        raise EnvironmentFailure(f"the code of {identity.method} or its backbone has changed since {name} was made")
    setting, shape = _read_setting(file, fields)
    backbone = build_backbone(zoo, identity.backbone, shape, fields["backbone_options"], identity.seed)
    recorded = {value for option, value in identity.backbone_options.items() if option.endswith("weights")}
    if recorded - {backbone.weights}:
        raise EnvironmentFailure(f"the weights of {identity.backbone} have changed since {name} was made")
    budget = Budget.model_validate(identity.budget)
    run = Run(budget, identity.seed, to=backbone.input, device=device)
    method = build_method(entry, setting, run.place(backbone), identity.hyperparameters, budget)
    _load_tensors(method, tensors, f"{file} does not fit {identity.method}", frozen=budget.backbone != "full")
    keep_prefix(method, setting.bits)
    method.to(run.device).eval()
    return TrainedMethod(
        cell, method, run, tuple(fields["class_names"]), shape, backbone.input, fields.get("metric", "")
    )


def _read_setting(file: Path, fields: Mapping[str, Any]) -> tuple[Setting, tuple[int, int, int]]:
    """The setting that a method was built for, and the shape of its images."""
    try:
        channels, height, width = fields["shape"]
        setting = Setting(**{**fields["setting"], "class_counts": torch.tensor(fields["setting"]["class_counts"])})
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise EnvironmentFailure(f"{file} does not say how to build its method: {error}") from error
    return setting, (channels, height, width)


def _load_tensors(method: Method, tensors: dict[str, Tensor], problem: str, frozen: bool) -> None:
    """Load the state of a method; that of a frozen backbone is not in the file. Raises EnvironmentFailure."""
    try:
        missing, unexpected = method.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise EnvironmentFailure(f"{problem}: {str(error).splitlines()[-1].strip()}") from error
    wrong = [*unexpected, *(name for name in missing if not frozen or "backbone." not in name)]
    if wrong:
        raise EnvironmentFailure(f"{problem} as installed here ({wrong[0]}); has it changed?")
