"""A trained method at work: images in, codes out, batch by batch, with a bounded number of images in memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, final

import PIL
import torch
from PIL import Image
from torch import Tensor

from hashzoo._version import __version__
from hashzoo.data import image_paths
from hashzoo.data.image_files import DECODER
from hashzoo.data.transforms import prepare
from hashzoo.errors import EnvironmentFailure, NonFiniteError, UsageError, first_line
from hashzoo.registry import saved_method
from hashzoo.registry.saved_method import TrainedMethod
from hashzoo.retrieval import heatmaps
from hashzoo.training.feature_store import state_digest
from hashzoo.types import Batch, Codes, Operation, ProgressCallback, Ranking

#: An image in memory, or the path of its file.
ImageLike = Image.Image | str | os.PathLike[str]

#: To be told of an image that does not decode: its place among the images, and why.
Refused = Callable[[int, str], None]

AT_ONCE = 64  # images of a batch; as many more are decoded meanwhile
READERS = 4  # threads that decode


def load_encoder(run: str | os.PathLike[str], *, device: str = "cpu", plugins: Sequence[str] = ()) -> Encoder:
    """The trained method of a cell, ready to encode images.

    ``run`` is the path of a cell's ``.json`` in a results folder of ``hashzoo bench --save-weights``. ``plugins`` are
    loaded, and one that the cell was made with must be among them. UsageError where there is no such cell or it has no
    weights, EnvironmentFailure where a file is damaged, the method's code has changed since, or the device is not
    there.
    """
    cell = Path(run)
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise EnvironmentFailure("no CUDA device is available here; encode on the CPU")
    if cell.is_dir():
        raise UsageError(f"{cell} is a folder; name one cell, a .json of {cell / 'cells'}")
    if not cell.with_suffix(".json").is_file():
        raise UsageError(f"there is no cell {cell}; name a .json of a results folder's cells")
    return Encoder(saved_method.read(cell, device, plugins), cell.with_suffix(".json"), plugins)


@final
class Encoder:
    """A trained method that encodes images and composes codes; :func:`hashzoo.load_encoder` makes it.

    ``trained`` is the method with its cell, ``cell`` the path of the cell's JSON, ``plugins`` what was loaded for it.
    """

    def __init__(self, of: TrainedMethod, cell: Path, plugins: Sequence[str] = ()) -> None:
        self.plugins = tuple(plugins)
        self.trained, self.cell = of, Path(os.path.abspath(cell))  # noqa: PTH100 - links stay as they were named

    def encode(self, images: ImageLike | Sequence[ImageLike]) -> Codes:
        """The codes (N, ...) of N images: PIL images, paths of files or, for all images below, of folders.

        What is bool is bits; what else there is serves the method's own way to search. EnvironmentFailure naming a
        image that does not decode.
        """
        given = [images] if isinstance(images, Image.Image | str | os.PathLike) else list(images)
        if not given:
            raise UsageError("there is no image to encode")
        flat: list[ImageLike] = []
        for one in given:
            if isinstance(one, Image.Image) or not Path(one).is_dir():
                flat.append(one)
            else:
                root, inside = image_paths.find_images([Path(one)])
                flat += [root / relative for relative in inside]
        parts = [codes for _, codes in self.encoding(flat)]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def encoding(
        self, images: Sequence[ImageLike], refused: Refused | None = None, tell: ProgressCallback | None = None
    ) -> Iterator[tuple[list[int], Codes]]:
        """The codes of images, batch by batch, each with the places of its images; no folders here.

        ``refused`` is told of each image that does not decode, which is then left out; without it,
        EnvironmentFailure. ``tell`` is told how many are done. The next batch is decoded while this one is encoded,
        and no more.
        """
        groups = [range(start, min(start + AT_ONCE, len(images))) for start in range(0, len(images), AT_ONCE)]
        with ExitStack() as stack:
            readers = ThreadPoolExecutor(min(READERS, os.cpu_count() or 1))
            stack.callback(readers.shutdown, cancel_futures=True)  # what is not wanted any more is not decoded

            def asked(group: range) -> list[Future[Tensor]]:
                return [readers.submit(self._ready, images[place]) for place in group]

            coming = asked(groups[0]) if groups else []
            for number, group in enumerate(groups):
                here, coming = coming, asked(groups[number + 1]) if number + 1 < len(groups) else []
                places, ready = [], []
                for place, future in zip(group, here, strict=True):
                    try:
                        ready.append(future.result())
                        places.append(place)
                    except EnvironmentFailure as error:
                        if refused is None:
                            raise
                        refused(place, str(error))
                if ready:
                    yield places, self._codes(torch.stack(ready))
                if tell:
                    tell(group.stop, len(images))

    def _ready(self, image: ImageLike) -> Tensor:
        """(C, H, W) an image as the backbone takes it."""
        if not isinstance(image, Image.Image):
            return prepare(self.trained.tensor(image_paths.open_image(Path(image))), self.trained.input)
        try:
            image.load()
        except (OSError, SyntaxError, ValueError) as error:  # of a file that Pillow has only begun to read
            raise EnvironmentFailure(f"an image does not decode: {first_line(error)}") from error
        return prepare(self.trained.tensor(image), self.trained.input)

    def _codes(self, ready: Tensor) -> Codes:
        """The codes of prepared images (B, C, H, W)."""
        of, count = self.trained, len(ready)
        batch = Batch(
            views=(ready.to(of.run.device),),
            labels=torch.zeros(count, len(of.class_names), device=of.run.device),
            ids=torch.full((count,), -1, device=of.run.device),
            progress=of.run.progress,
        )
        try:
            with torch.no_grad():
                codes = {name: value.detach().cpu() for name, value in of.method.encode(batch).items()}
        except NonFiniteError as error:
            raise EnvironmentFailure(f"{of.cell.identity.method} cannot encode an image: {error}") from error
        for name, value in codes.items():
            if value.is_floating_point() and not torch.isfinite(value).all():
                raise EnvironmentFailure(f"the code {name!r} of {of.cell.identity.method} is not finite")
        return codes

    def search(
        self,
        query: ImageLike | Sequence[ImageLike] | Codes,
        among: ImageLike | Sequence[ImageLike] | Codes,
        k: int = 20,
    ) -> Ranking:
        """The k nearest of some images to each query, by the method's own index: rows and distances (Q, k).

        Both are images as :meth:`encode` takes them, or codes that it gave. For more than a few, build an index once:
        :func:`hashzoo.retrieval.image_index.build`.
        """
        index = self.trained.method.index()
        index.add(among if isinstance(among, dict) else self.encode(among))
        return index.search(query if isinstance(query, dict) else self.encode(query), k)

    def compose(self, operation: Operation, a: Codes, b: Codes) -> Codes:
        """The codes (Q, ...) of queries for what either (``union``), both (``intersection``) or only a has."""
        with torch.no_grad():
            of = self.trained
            there = [{name: value.to(of.run.device) for name, value in codes.items()} for codes in (a, b)]
            composed = of.method.compose(operation, *there)
        return {name: value.detach().cpu() for name, value in composed.items()}

    def looks(self, images: Sequence[Image.Image]) -> tuple[Tensor, Tensor]:
        """See :func:`hashzoo.retrieval.heatmaps.looks`: images as the network sees them, and where the method
        looks.
        """
        return heatmaps.looks(self.trained, images)

    def about(self) -> dict[str, Any]:
        """What tells this encoder from others, and how images must reach it, as JSON holds it."""
        identity, to, (channels, height, width) = self.trained.cell.identity, self.trained.input, self.trained.shape
        return {
            "method": identity.method,
            "hyperparameters": identity.hyperparameters,
            "bits": identity.bits,
            "seed": identity.seed,
            "dataset": identity.dataset,
            "backbone": identity.backbone,
            "preprocessing": {
                "upright": "turned as EXIF says",
                "channels": to.channels or channels,
                "from": "grey, repeated" if channels == 1 and to.channels == 3 else "RGB" if channels == 3 else "grey",
                "resize": [height, width] if to.size is None else round(to.size / to.crop),
                "resize_of": "the middle, in the shape of the target" if to.size is None else "the shorter side",
                "crop": [height, width] if to.size is None else [to.size, to.size],
                "interpolation": "bicubic" if to.size is None else "bilinear, antialiased",
                "scale": "divided by 255",
                "mean": list(to.mean),
                "std": list(to.std),
            },
            "run": {"cell": str(self.cell), "key": identity.key, "state": state_digest(self.trained.method)},
            "made_with": {
                "hashzoo": __version__,
                "torch": torch.__version__,
                "pillow": PIL.__version__,
                "decoder": DECODER,
            },
        }
