"""A trained method on disk, and back: its tensors as safetensors, with what is needed to build it again."""

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
from hashzoo.registry import zoo
from hashzoo.registry.build import build_backbone
from hashzoo.registry.source import code_digest
from hashzoo.results import store
from hashzoo.results.cell import Cell
from hashzoo.run import Run
from hashzoo.storage.files import replace_bytes
from hashzoo.storage.schema import RESULTS, refuse_newer
from hashzoo.storage.tensors import read_tensors, tensor_bytes
from hashzoo.training.budget import Budget
from hashzoo.types import Input, Setting, Split

SCHEMA = 1  # of what the file says beside tensors; files from before it was written lack it


@dataclass(frozen=True)
class TrainedMethod:
    """A method as its fit left it, in eval mode, and the run whose backbone input and device it uses."""

    cell: Cell
    method: Method
    run: Run
    class_names: tuple[str, ...]
    shape: tuple[int, int, int]  # channels, height and width of the dataset's images
    input: Input  # of the backbone

    def tensor(self, image: Image.Image) -> Tensor:
        """An image as uint8 (C, H, W): upright, in the channels that the dataset has, what is see-through on white.

        A backbone that takes images of any size gets the middle of this one, in the shape and size of the dataset's.
        """
        upright = to_rgb(ImageOps.exif_transpose(image))
        turned = upright.convert("L") if self.shape[0] == 1 else upright
        if self.input.size is None:
            turned = ImageOps.fit(turned, self.shape[:0:-1], Image.Resampling.BICUBIC)
        return pil_to_tensor(turned)

    def split(self, images: Sequence[Image.Image]) -> Split:
        """Images as an unlabelled split, each as :meth:`tensor` makes it."""
        tensors = [self.tensor(image) for image in images]
        return Split(tensors, torch.zeros(len(tensors), len(self.class_names)), torch.arange(len(tensors)))


def path_of(cell: Path) -> Path:
    """Where the weights of the cell at this path lie."""
    return cell.with_suffix(".safetensors")


@dataclass(frozen=True)
class Recipe:
    """What is needed, beside the tensors, to build a trained method again; ``key`` is the key of its cell."""

    key: str
    setting: Setting
    class_names: tuple[str, ...]
    shape: tuple[int, int, int]  # channels, height and width of the dataset's images
    backbone_options: Mapping[str, Any]
    plugins: tuple[str, ...]


def write(path: Path, method: Method, recipe: Recipe) -> None:
    """Write a trained method's tensors and its recipe, in one step. EnvironmentFailure when the disk refuses."""
    setting = {**vars(recipe.setting), "class_counts": recipe.setting.class_counts.tolist()}
    about = {"schema": SCHEMA, **vars(recipe), "setting": setting}
    replace_bytes(path, tensor_bytes(json.dumps(about), method.state_dict()))


def contents(file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What :func:`write` put into a file: how to build the method, and its tensors. EnvironmentFailure where it
    differs.
    """
    try:
        text, tensors = read_tensors(file, allow_unsealed=True)  # as 0.1.0 wrote it
        about = json.loads(text)
        about["key"], about["plugins"]
    except Exception as error:  # whatever a damaged file makes of its readers
        cure = "run hashzoo bench again with --rerun all"
        raise EnvironmentFailure(f"{file} cannot be read: {first_line(error)}; {cure}") from error
    return about, tensors


def _told(file: Path, about: Mapping[str, Any]) -> tuple[Setting, tuple[int, int, int]]:
    """The setting that a method was built for, and the shape of its images."""
    try:
        channels, height, width = about["shape"]
        setting = Setting(**{**about["setting"], "class_counts": torch.tensor(about["setting"]["class_counts"])})
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise EnvironmentFailure(f"{file} does not say how to build its method: {error}") from error
    return setting, (channels, height, width)


def read(cell_path: Path, device: str = "cpu", plugins: Sequence[str] = ()) -> TrainedMethod:
    """The trained method of a cell, by the path of its JSON or of its weights.

    ``plugins`` are loaded; a plugin that only the file names is not, since a file must not choose what code runs.
    UsageError for such a one, and where the cell was measured without keeping its weights; EnvironmentFailure where
    the file is damaged or was written for another cell.
    """
    cell_path = cell_path.with_suffix(".json")
    cell, file = store.read(cell_path), path_of(cell_path)
    if cell.status != "ok":
        raise UsageError(f"{cell_path.name} is {cell.status}: {cell.reason}; only a cell that is ok has a method")
    if not file.is_file():
        raise UsageError(f"{cell_path.name} has no weights beside it; run its hashzoo bench again with --save-weights")
    about, tensors = contents(file)
    refuse_newer(file, about.get("schema", SCHEMA), SCHEMA, RESULTS)
    if about["key"] != cell.identity.key:
        raise EnvironmentFailure(f"{file} belongs to another cell; run hashzoo bench again with --rerun all")
    given = {Path(name).name for name in plugins}  # wherever the file lies: the digest of its code is compared below
    if unnamed := [name for name in about["plugins"] if Path(name).name not in given]:
        raise UsageError(
            f"{cell_path.name} was made with the plugin {unnamed[0]}; name it with --plugin to run its code"
        )
    identity, house = cell.identity, zoo.load_plugins(plugins)
    entry, trunk = house.method(identity.method), house.backbone(identity.backbone)
    if code_digest(entry.factory, trunk.factory) != identity.code:
        raise EnvironmentFailure(
            f"the code of {identity.method} or its backbone has changed since {cell_path.name} was made"
        )
    budget = Budget.model_validate(identity.budget)
    setting, shape = _told(file, about)
    backbone = build_backbone(house, identity.backbone, shape, about["backbone_options"], identity.seed)
    recorded = {value for name, value in identity.backbone_options.items() if name.endswith("weights")}
    if recorded - {backbone.weights}:
        raise EnvironmentFailure(
            f"the weights of {identity.backbone} are no longer those that {cell_path.name} was made with"
        )
    run = Run(budget, identity.seed, to=backbone.input, device=device)
    method: Method = entry.factory(setting, run.place(backbone), **identity.hyperparameters)
    try:
        missing, unexpected = method.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise EnvironmentFailure(
            f"{file} does not fit {identity.method}: {str(error).splitlines()[-1].strip()}"
        ) from error
    # a frozen backbone was no part of the method that was trained; it is built above as it was then
    wrong = [*unexpected, *(n for n in missing if budget.backbone == "full" or "backbone." not in n)]
    if wrong:
        raise EnvironmentFailure(
            f"{file} does not fit {identity.method} as installed here ({wrong[0]}); has it changed?"
        )
    method.to(run.device).eval()
    return TrainedMethod(cell, method, run, tuple(about["class_names"]), shape, backbone.input)
