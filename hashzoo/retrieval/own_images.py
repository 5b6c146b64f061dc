"""A hash that is learned from the images of an index themselves, without labels and without a measured cell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hashzoo.bench.benchmark_file import read
from hashzoo.bench.fallback import choose_backbone
from hashzoo.bench.job import PROTOCOL
from hashzoo.bench.plan import unmet
from hashzoo.data import image_paths
from hashzoo.data.transforms import resize
from hashzoo.errors import EnvironmentFailure
from hashzoo.factory import options
from hashzoo.hookspecs import TrainingFacts
from hashzoo.registry import saved_method
from hashzoo.registry.build import build_backbone, convert_options
from hashzoo.registry.saved_method import Recipe, TrainedMethod
from hashzoo.registry.source import code_digest
from hashzoo.registry.zoo import Entry, Zoo, load_plugins
from hashzoo.results import store
from hashzoo.results.cell import Cell, Identity
from hashzoo.run import Run
from hashzoo.storage.files import sha256
from hashzoo.training.budget import Budget
from hashzoo.training.process_state import limit_threads
from hashzoo.types import ProgressCallback, Setting, Split

#: The benchmark file that names the methods, the number of bits and the backbones.
FILE = "index"

MOST = 2000  # images to learn from: enough for the covariance of features, and 300 MB of pixels
SIDES = {True: 224, False: 96}  # of square images, for networks that resize them themselves, and for others
NAME = "index"  # of the benchmark and the dataset of the cell


def fit(
    images: Sequence[Path],
    target: Path,
    *,
    backbone: str | None = None,
    device: str = "cpu",
    plugins: Sequence[str] = (),
    note: Callable[[str], None] = lambda text: None,
    progress: ProgressCallback | None = None,
) -> Path:
    """Learn a hash from images, and save it as a cell.

    The method is the first one of the benchmark file ``index`` that the images suffice for. It is learned from evenly
    spaced images, 2,000 at most. Images that do not decode are passed over.

    Args:
        images: Image files and folders.
        target: The JSON file of the cell; its weights lie beside it.
        backbone: The backbone; by default that of the benchmark file, or its fallback.
        device: Where features are computed.
        plugins: Plugin files or modules to load.
        note: Receives a line about the backbone if its weights are not installed.
        progress: Called with the number of images read and their total.

    Returns:
        The path of the cell.

    Raises:
        UsageError: If a path does not exist, or there is no such backbone.
        EnvironmentFailure: If no image decodes, or the weights of the backbone cannot be read.
    """
    zoo = load_plugins(plugins)
    chosen = choose_backbone(read(FILE), zoo, backbone, note)
    name, bits = backbone or chosen.backbone or "", chosen.bits[0]
    factory = zoo.backbone(name).factory
    own = {"size": SIDES[True]} if "size" in options(factory) else {}
    values = convert_options("backbone", name, factory, own)
    budget = Budget.model_validate({"backbone": "frozen"})
    limit_threads(budget.threads)
    side = SIDES[build_backbone(zoo, name, (3, 96, 96), values, 0).input.size is not None]
    network = build_backbone(zoo, name, (3, side, side), values, 0)
    run = Run(budget, 0, to=network.input, device=device)
    pixels = _read(images, _converter(run, network.input, side), progress)
    entry, hyperparameters = _choose_method(zoo, chosen.methods, TrainingFacts(bits, budget.batch, {}, len(pixels)))
    recorded = values | {option: network.weights for option in values if option.endswith("weights")}
    identity = Identity(
        dataset=NAME, dataset_options={}, backbone=name, backbone_options=recorded, method=entry.name,
        hyperparameters=hyperparameters, bits=bits, seed=0, budget=budget.recorded(), protocol=PROTOCOL,
        code=code_digest(entry.factory, factory), data=sha256(pixels.numpy().tobytes())[:16],
    )  # fmt: skip
    count = len(pixels)
    setting = Setting(bits, 1, False, torch.tensor([count]), count)
    method = entry.factory(setting, run.place(network), **hyperparameters)
    method.fit(Split(pixels, torch.zeros(count, 1), torch.arange(count)), run)
    recipe = Recipe(identity.key, setting, (NAME,), (3, side, side), values, tuple(plugins))
    saved_method.write(saved_method.path_of(target), method.eval(), recipe, frozen=True)
    facts: dict[str, Any] = {"train": count, "stored_bits": bits}
    return store.write_file(target, Cell(identity=identity, benchmark=NAME, status="ok", facts=facts))


def _choose_method(zoo: Zoo, names: Sequence[str], known: TrainingFacts) -> tuple[Entry, dict[str, Any]]:
    """The first method that the images suffice for, else the last one, with its hyperparameters."""
    for name in names:
        entry = zoo.method(name)
        values = convert_options("method", name, entry.factory, {})
        if not unmet(zoo, entry, replace(known, options=values)):
            break
    return entry, values


def _converter(run: Run, to: Any, side: int) -> Callable[[Path], Tensor]:
    """Reads an image as a query is read, as uint8 (C, H, W) of one size."""
    reader = TrainedMethod(None, None, run, (NAME,), (3, side, side), to)  # type: ignore[arg-type]  # only converts
    return lambda path: resize(reader.to_tensor(image_paths.open_image(path)), to)


def _read(images: Sequence[Path], convert: Callable[[Path], Tensor], progress: ProgressCallback | None) -> Tensor:
    """The pixels of evenly spaced images that decode, (N, C, H, W) uint8."""
    found = image_paths.find_images(images)
    rows = np.unique(np.linspace(0, len(found.images) - 1, min(MOST, len(found.images))).round().astype(int))
    made, reason = list[Tensor](), ""
    for number, row in enumerate(rows.tolist(), 1):
        try:
            made.append(convert(found.root / found.images[row]))
        except EnvironmentFailure as error:
            reason = str(error)
        if progress:
            progress(number, len(rows))
    if not made:
        raise EnvironmentFailure(f"none of {len(rows)} images decodes: {reason}")
    return torch.stack(made)
