"""A trained method on disk, and back: its tensors as safetensors, with what is needed to build it again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from hashzoo import cells, sealed, zoo
from hashzoo.bench import build_backbone
from hashzoo.cells import Cell
from hashzoo.errors import TroubleError, UsageError, first_line
from hashzoo.method import Input, Method
from hashzoo.picture_files import in_rgb
from hashzoo.run import Run, Train
from hashzoo.schema import RESULTS, refuse_newer
from hashzoo.types import Setting, Split, Splits

if TYPE_CHECKING:
    from hashzoo.bench import Job


SCHEMA = 1  # of what the file says beside tensors; files from before it was written lack it


@dataclass(frozen=True)
class Trained:
    """A method as its fit left it, in eval mode, and the run whose backbone input and device it uses."""

    cell: Cell
    method: Method
    run: Run
    class_names: tuple[str, ...]
    shape: tuple[int, int, int]  # channels, height and width of the data set's pictures
    input: Input  # of the backbone

    def tensor(self, picture: Image.Image) -> Tensor:
        """A picture as uint8 (C, H, W): upright, in the channels that the data set has, what is see-through on white.

        A backbone that takes pictures of any size gets the middle of this one, in the shape and size of the data set's.
        """
        upright = in_rgb(ImageOps.exif_transpose(picture))
        turned = upright.convert("L") if self.shape[0] == 1 else upright
        if self.input.size is None:
            turned = ImageOps.fit(turned, self.shape[:0:-1], Image.Resampling.BICUBIC)
        made: Tensor = pil_to_tensor(turned)
        return made

    def split(self, pictures: Sequence[Image.Image]) -> Split:
        """Pictures as an unlabelled split, each as :meth:`tensor` makes it."""
        images = [self.tensor(picture) for picture in pictures]
        return Split(images, torch.zeros(len(images), len(self.class_names)), torch.arange(len(images)))


def path_of(cell: Path) -> Path:
    """Where the weights of the cell at this path lie."""
    return cell.with_suffix(".safetensors")


def write(path: Path, method: Method, job: Job, data: Splits, shape: tuple[int, int, int]) -> None:
    """Write a trained method's tensors and how to build it, in one step. TroubleError when the disk refuses."""
    setting = data.setting(job.identity.bits)
    about = {
        "schema": SCHEMA,
        "key": job.identity.key,
        "setting": {**vars(setting), "class_counts": setting.class_counts.tolist()},
        "class_names": data.class_names,
        "shape": shape,
        "backbone_options": job.backbone_options,
        "plugins": job.plugins,
    }
    cells.replace_bytes(path, sealed.data(json.dumps(about), method.state_dict()))


def contents(file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What :func:`write` put into a file: how to build the method, and its tensors. TroubleError where it differs."""
    try:
        text, tensors = sealed.read(file, unsealed=True)  # as 0.1.0 wrote it
        about = json.loads(text)
        about["key"], about["plugins"]
    except Exception as error:  # whatever a damaged file makes of its readers
        cure = "run hashzoo bench again with --rerun all"
        raise TroubleError(f"{file} cannot be read: {first_line(error)}; {cure}") from error
    return about, tensors


def _told(file: Path, about: Mapping[str, Any]) -> tuple[Setting, tuple[int, int, int]]:
    """The setting that a method was built for, and the shape of its pictures."""
    try:
        channels, height, width = about["shape"]
        setting = Setting(**{**about["setting"], "class_counts": torch.tensor(about["setting"]["class_counts"])})
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise TroubleError(f"{file} does not say how to build its method: {error}") from error
    return setting, (channels, height, width)


def read(cell_path: Path, device: str = "cpu", plugins: Sequence[str] = ()) -> Trained:
    """The trained method of a cell, by the path of its JSON or of its weights.

    ``plugins`` are loaded; a plugin that only the file names is not, since a file must not choose what code runs.
    UsageError for such a one, and where the cell was measured without keeping its weights; TroubleError where the file
    is damaged or was written for another cell.
    """
    cell_path = cell_path.with_suffix(".json")
    cell, file = cells.read(cell_path), path_of(cell_path)
    if cell.status != "ok":
        raise UsageError(f"{cell_path.name} is {cell.status}: {cell.reason}; only a cell that is ok has a method")
    if not file.is_file():
        raise UsageError(f"{cell_path.name} has no weights beside it; run its hashzoo bench again with --save-weights")
    about, tensors = contents(file)
    refuse_newer(file, about.get("schema", SCHEMA), SCHEMA, RESULTS)
    if about["key"] != cell.identity.key:
        raise TroubleError(f"{file} belongs to another cell; run hashzoo bench again with --rerun all")
    given = {Path(name).name for name in plugins}  # wherever the file lies: the digest of its code is compared below
    if unnamed := [name for name in about["plugins"] if Path(name).name not in given]:
        raise UsageError(
            f"{cell_path.name} was made with the plugin {unnamed[0]}; name it with --plugin to run its code"
        )
    identity, house = cell.identity, zoo.load(plugins)
    entry, trunk = house.method(identity.method), house.backbone(identity.backbone)
    if zoo.code_digest(entry.factory, trunk.factory) != identity.code:
        raise TroubleError(f"the code of {identity.method} or its backbone has changed since {cell_path.name} was made")
    budget = Train.model_validate(identity.budget)
    setting, shape = _told(file, about)
    backbone = build_backbone(house, identity.backbone, shape, about["backbone_options"], identity.seed)
    recorded = {value for name, value in identity.backbone_options.items() if name.endswith("weights")}
    if recorded - {backbone.weights}:
        raise TroubleError(
            f"the weights of {identity.backbone} are no longer those that {cell_path.name} was made with"
        )
    run = Run(budget, identity.seed, to=backbone.input, device=device)
    method: Method = entry.factory(setting, run.place(backbone), **identity.hyperparameters)
    try:
        missing, unexpected = method.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise TroubleError(f"{file} does not fit {identity.method}: {str(error).splitlines()[-1].strip()}") from error
    # a frozen backbone was no part of the method that was trained; it is built above as it was then
    wrong = [*unexpected, *(n for n in missing if budget.backbone == "full" or "backbone." not in n)]
    if wrong:
        raise TroubleError(f"{file} does not fit {identity.method} as installed here ({wrong[0]}); has it changed?")
    method.to(run.device).eval()
    return Trained(cell, method, run, tuple(about["class_names"]), shape, backbone.input)
