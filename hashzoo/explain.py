"""What a trained method looks at, and what it takes for what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import interpolate

from hashzoo import cells, figures, picture_paths, zoo
from hashzoo.bench import convert, examined, fingerprint, load_data, paths_put_back
from hashzoo.cells import Cell
from hashzoo.errors import TroubleError, UsageError
from hashzoo.index import Index
from hashzoo.inspection import kept
from hashzoo.measure import ask
from hashzoo.method import Backbone, Method
from hashzoo.trained import Trained, read
from hashzoo.types import Batch, Codes, Splits

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def looks(trained: Trained, pictures: Sequence[Image.Image]) -> tuple[Tensor, Tensor]:
    """The pictures as the network sees them, (B, C, H, W) in 0..1, and where the method looks, (B, H, W) in 0..1.

    Its own attention where it has one, Grad-CAM of its code otherwise. UsageError for a method that has neither.
    """
    batch = next(iter(trained.run.blank(trained.split(pictures), size=len(pictures))))
    with torch.no_grad():
        found = trained.method.attention(batch)
    if found is None:
        found = grad_cam(trained.method, batch)
    if found is None:
        identity = trained.cell.identity
        raise UsageError(
            f"{identity.method} on {identity.backbone} looks at no place: it has no attention, and Grad-CAM needs a "
            "relaxed code and a backbone with maps"
        )
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (trained.input.mean, trained.input.std))
    seen = (batch.images.cpu() * std + mean).clamp(0, 1)
    return seen, scaled(found.detach().cpu().float(), (seen.shape[2], seen.shape[3]))


def scaled(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (B, h, w) at (B, *size), each from 0 to 1; a constant map is 0.

    >>> scaled(torch.tensor([[[1.0, 3.0]], [[2.0, 2.0]]]), (1, 2)).tolist()
    [[[0.0, 1.0]], [[0.0, 0.0]]]
    """
    low = maps.amin((1, 2), keepdim=True)
    shares = (maps - low) / (maps.amax((1, 2), keepdim=True) - low).clamp(min=1e-12)
    return interpolate(shares[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def pointing(maps: Tensor, boxes: Sequence[Tensor], size: tuple[int, int]) -> float:
    """The share of pictures whose map (B, h, w), scaled up to ``size``, is highest inside one of the picture's boxes.

    The pointing game of Zhang et al. (ECCV 2016), on any labelled thing; boxes (n, 4) are x0 y0 x1 y1 in pixels.

    >>> pointing(torch.tensor([[[0.0, 1.0], [0.0, 0.0]]]), [torch.tensor([[2, 0, 4, 2]])], (4, 4))
    1.0
    """
    flat = scaled(maps, size).flatten(1).argmax(1)
    hits = 0
    for place, found in zip(flat.tolist(), boxes, strict=True):
        y, x = divmod(place, size[1])
        hits += any(x0 <= x < x1 and y0 <= y < y1 for x0, y0, x1, y1 in found.tolist())
    return hits / max(1, len(maps))


def grad_cam(method: Method, batch: Batch) -> Tensor | None:
    """Grad-CAM (Selvaraju et al., ICCV 2017) of how sure the bits are, the sum of their sizes: (B, h, w), not negative.

    Of several last maps, such as those of two streams, the mean, each scaled to its own maximum. None without a
    relaxed code or maps. TroubleError where captum is not installed.
    """
    try:
        from captum.attr import LayerGradCam
    except ImportError:
        raise TroubleError("Grad-CAM needs captum; pip install 'hashzoo[explain]'") from None
    eyes = next((module.eyes for module in method.modules() if isinstance(module, Backbone) and module.eyes), ())
    with torch.no_grad():
        if not eyes or method.relaxed(batch) is None:
            return None

    def sureness(images: Tensor) -> Tensor:
        code = cast("Tensor", method.relaxed(replace(batch, views=(images,))))
        return code.abs().sum(1)  # (B,)

    found = [_cam(LayerGradCam(sureness, eye), batch.images) for eye in eyes]
    size = (max(f.shape[1] for f in found), max(f.shape[2] for f in found))
    return torch.stack([scaled(f, size) for f in found]).mean(0)


def _cam(cam: nn.Module, images: Tensor) -> Tensor:
    made: Tensor = cam.attribute(images, relu_attributions=True)  # type: ignore[operator]
    return made[:, 0].detach()


def retrieved(index: Index, query: Codes, data: Splits, at: int = 100) -> NDArray[np.float64]:
    """(C, C) what queries of a class find: the expected share of each class among the first ``at`` pictures.

    Ties count in expectation. With several labels a picture, a row is over the queries that carry its label, and
    sums to more than 1.
    """
    wanted = data.query.labels.numpy() > 0
    one = torch.ones(len(wanted), 1)
    shares = np.zeros(wanted.shape)
    for column in range(wanted.shape[1]):  # as if every query asked for this class alone
        asked = replace(
            data,
            query=replace(data.query, labels=one),
            database=replace(data.database, labels=data.database.labels[:, column : column + 1]),
            multilabel=True,
            pairs=None,
        )
        found, _ = ask(index, query, asked, (f"p@{at}",), {})
        shares[:, column] = np.nan_to_num(found.per_query[f"p@{at}"])  # NaN: no such picture
    mean: NDArray[np.float64] = wanted.T.astype(float) @ shares / np.maximum(wanted.sum(0), 1)[:, None]
    return mean


def drawn(
    kind: str, cell: Path, pictures: Sequence[Path] = (), plugins: Sequence[str] = (), root: Path | None = None
) -> Figure:
    """The figure of a cell, by the path of its JSON; ``plugins`` are loaded; the files of its data are in ``root``.

    UsageError where the cell does not hold what the figure needs.
    """
    if cell.is_dir():
        raise UsageError(f"{cell} is a folder; name one cell, a .json of {cell / 'cells'}")
    cell = cell.with_suffix(".json")
    if kind == "pr":
        found, arrays = cells.read(cell), cells.arrays(cell)
        if "pr_recall" not in arrays:
            raise UsageError(
                f"{cell.name} has no curve by radius: its status is {found.status}, or its distances are not integers"
            )
        return figures.pr_curve(arrays["pr_recall"], arrays["pr_precision"], title(found))
    if kind == "classes":
        found = cells.read(cell)
        data = data_of(found, plugins, root)
        return figures.class_distribution(
            data.setting(1).class_counts.numpy(), data.class_names, found.identity.dataset
        )
    kept = read(cell, plugins=plugins)
    if kind == "confusion":
        data, index = data_of(kept.cell, plugins, root), kept.method.index()
        index.add(kept.run.encode(kept.method, data.database, ids=kept.method.card.saw_database))
        shares = retrieved(index, kept.run.encode(kept.method, data.query), data)
        return figures.confusion(shares, data.class_names, f"{title(kept.cell)}: the first 100")
    seen, where = looks(kept, [picture_paths.opened(path) for path in pictures])
    return figures.overlays(seen.numpy(), where.numpy(), [path.name for path in pictures])


def title(cell: Cell) -> str:
    """A cell's name above a figure."""
    identity = cell.identity
    return f"{identity.method}, {identity.bits} bits, {identity.dataset}"


def data_of(cell: Cell, plugins: Sequence[str], root: Path | None) -> Splits:
    """The data that a cell was measured on. TroubleError where it is no longer the same."""
    identity, house = cell.identity, zoo.load(plugins)
    factory = house.dataset(identity.dataset).factory
    where = {"root": root.absolute()} if root else {}
    asked = paths_put_back(factory, identity.dataset_options, where)
    data = load_data(house, identity.dataset, convert("dataset", identity.dataset, factory, asked))
    found = examined(identity.dataset, data, bool(cell.facts.get("bad_pictures")))
    data = kept(data, found)
    if fingerprint(data, found) != identity.data:
        raise TroubleError(f"{identity.dataset} is not what this cell was measured on: its pictures or splits changed")
    return data
