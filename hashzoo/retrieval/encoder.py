"""Encoding images with a trained method, batch by batch, with a bounded number of images in memory."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, final

import PIL
import torch
from PIL import Image
from torch import Tensor, nn

from hashzoo._version import __version__
from hashzoo.bench.benchmark_file import VECTOR_BACKBONE
from hashzoo.data import image_paths
from hashzoo.data.image_files import DECODER
from hashzoo.data.stored_images import StoredImage
from hashzoo.data.transforms import prepare
from hashzoo.errors import EnvironmentFailure, NonFiniteError, UsageError, first_line, printable
from hashzoo.registry import hub, saved_method
from hashzoo.registry.saved_method import TrainedMethod
from hashzoo.retrieval.heatmaps import compute_heatmaps
from hashzoo.training.cpu_fallback import cpu_fallback
from hashzoo.training.devices import resolve_device
from hashzoo.training.feature_store import state_digest
from hashzoo.types import Batch, Codes, Operation, ProgressCallback, Ranking

#: An image in memory, or the path of its file.
ImageLike = Image.Image | str | os.PathLike[str]

#: Called with the index of an image that does not decode, and the reason.
UnreadableCallback = Callable[[int, str], None]

BATCH_SIZE = 64  # images encoded at a time; the next batch is decoded meanwhile
DECODER_THREADS = 4
VECTOR = "vector"  # the name of what is kept beside codes: the vector, or the features of an image

CHOSEN = hub.CELL  # the cell in a folder that hashzoo quantize -o writes


def load_encoder(run: str | os.PathLike[str], *, device: str = "cpu", plugins: Sequence[str] = ()) -> Encoder:
    """Load the trained method of a cell, ready to encode images.

    Args:
        run: Path of a cell's ``.json`` in a results folder of ``hashzoo bench --save-weights``, or ``hf://OWNER/NAME``
            for a repository of the Hugging Face Hub, with ``@REVISION`` for a branch, a tag or a commit of it.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:N"``, ``"mps"``, ``"xpu"``, or ``"auto"`` for a CUDA GPU if there is one.
        plugins: Plugin files or modules to load. They must include every such plugin that the cell was measured with.

    Returns:
        The encoder.

    Raises:
        UsageError: If there is no such cell or repository, or it has no weights.
        EnvironmentFailure: If a file is damaged, the hub cannot be reached, the code of the method has changed since
            the cell was measured, or the device is not available.
    """
    trained, cell = read_trained(run, device, plugins)
    if trained.cell.identity.backbone == VECTOR_BACKBONE:
        raise UsageError(f"{printable(run)} was trained on vectors, and this encodes images; name a cell of images")
    return Encoder(trained, cell, plugins)


def read_trained(
    run: str | os.PathLike[str], device: str = "cpu", plugins: Sequence[str] = ()
) -> tuple[TrainedMethod, Path]:
    """The trained method of a cell, a repository or a folder of ``hashzoo quantize -o``, and the path of its JSON."""
    named = hub.reference(run)
    cell = hub.pull(named) if named else Path(run)
    device = resolve_device(device)
    if cell.is_dir() and (cell / CHOSEN).is_file():
        cell = cell / CHOSEN
    if cell.is_dir():
        raise UsageError(f"{cell} is a folder; name one cell, a .json of {cell / 'cells'}")
    if not cell.with_suffix(".json").is_file():
        raise UsageError(f"there is no cell {cell}; name a .json in the folder cells of a results folder")
    return saved_method.read(cell, device, plugins), cell.with_suffix(".json")


class TrainedEncoder(ABC):
    """A trained method that encodes items and composes codes: the base class of encoders of images and of vectors.

    Attributes:
        trained: The method with its cell.
        cell: Absolute path of the cell's JSON file.
        plugins: The plugins loaded for the method.
        with_vectors: Whether ``vector`` is returned beside the codes: (N, D) the vectors, or features of the images.
    """

    #: What one item and several are called in messages.
    item, items = "an image", "images"

    def __init__(self, trained: TrainedMethod, cell: Path, plugins: Sequence[str] = ()) -> None:
        self.plugins, self.with_vectors = tuple(plugins), False
        self.trained = trained
        self.cell = Path(os.path.abspath(cell))  # noqa: PTH100 - does not follow links, unlike resolve

    def batch(self, images: Tensor) -> Batch:
        """Prepared images (B, C, H, W), or vectors (B, D), as a batch without labels on the device of the method."""
        count, device = len(images), self.trained.run.device
        return Batch(
            views=(images.to(device),),
            labels=torch.zeros(count, len(self.trained.class_names), device=device),
            ids=torch.full((count,), -1, device=device),
            progress=self.trained.run.progress,
        )

    def _encode_tensors(self, images: Tensor) -> Codes:
        """The codes of prepared images (B, C, H, W), or of vectors (B, D)."""
        trained = self.trained
        method, device = trained.cell.identity.method, trained.run.device
        batch = self.batch(images)
        try:
            with torch.no_grad(), cpu_fallback(device), self._vectors(images) as vectors:
                found = trained.method.encode(batch) | ({VECTOR: vectors()} if self.with_vectors else {})
            codes = {name: value.detach().cpu() for name, value in found.items()}
        except NonFiniteError as error:
            raise EnvironmentFailure(f"{method} cannot encode {self.item}: {error}") from error
        for name, value in codes.items():
            if value.is_floating_point() and not torch.isfinite(value).all():
                raise EnvironmentFailure(f"{method} returns values that are not finite in the code {name!r}")
        return codes

    def compose(self, operation: Operation, a: Codes, b: Codes) -> Codes:
        """Combine the codes of two items, row by row, into codes of composed queries.

        Args:
            operation: ``"union"`` looks for what either image shows, ``"intersection"`` for what both show, and
                ``"difference"`` for what only the first shows.
            a: Codes of Q images, as :meth:`encode` returns them.
            b: Codes of Q images.

        Returns:
            The composed codes, with the shapes of ``a``.
        """
        device = self.trained.run.device
        with torch.no_grad(), cpu_fallback(device):
            sides = [{name: value.to(device) for name, value in codes.items()} for codes in (a, b)]
            composed = self.trained.method.compose(operation, *sides)
        return {name: value.detach().cpu() for name, value in composed.items()}

    def describe(self) -> dict[str, Any]:
        """What distinguishes this encoder from others and how it prepares images, as JSON values."""
        identity, shared = self.trained.cell.identity, hub.origin(self.cell)
        run = {"cell": str(self.cell), "key": identity.key, "state": state_digest(self.trained.method)}
        return {
            "method": identity.method,
            "hyperparameters": identity.hyperparameters,
            "bits": identity.bits,
            "seed": identity.seed,
            "dataset": identity.dataset,
            "backbone": identity.backbone,
            "preprocessing": self._preprocessing(),
            "run": run if shared is None else {**run, "hub": str(shared)},
            "made_with": {
                "hashzoo": __version__,
                "torch": torch.__version__,
                "pillow": PIL.__version__,
                "decoder": DECODER,
            },
        }

    @abstractmethod
    def _vectors(self, items: Tensor) -> AbstractContextManager[Callable[[], Tensor]]:
        """Context for encoding items (B, ...), and what gives their vectors (B, D) at its end."""

    @abstractmethod
    def _preprocessing(self) -> dict[str, Any]:
        """The steps from an item to the input of the backbone, in words and numbers."""


@final
class Encoder(TrainedEncoder):
    """A trained method that encodes images and composes codes. Created by :func:`hashzoo.load_encoder`.

    Shapes in this class: Q queries, N images, K bits, (C, H, W) the image size of the backbone. Attributes are those of
    the base class: ``trained``, ``cell`` and ``plugins``.
    """

    def encode(self, images: ImageLike | Sequence[ImageLike]) -> Codes:
        """Encode images.

        Args:
            images: One or more PIL images, paths of image files, or paths of folders; a folder stands for all images
                below it.

        Returns:
            Each code of the N images by name, (N, K) bool for a binary code, (N, ...) for other values, which the
            method's own index uses.

        Raises:
            UsageError: If there are no images, or a path does not exist.
            EnvironmentFailure: If an image does not decode; the message names it.
        """
        given = [images] if isinstance(images, Image.Image | str | os.PathLike) else list(images)
        if not given:
            raise UsageError("there is no image to encode; name at least one")
        flat: list[ImageLike] = []
        for item in given:
            if isinstance(item, Image.Image) or not Path(item).is_dir():
                flat.append(item)
            else:
                found = image_paths.find_images([Path(item)])
                if found.left_out:
                    raise EnvironmentFailure(found.left_out[0])
                flat += [found.root / path for path in found.images]
        parts = [codes for _, codes in self.encode_batches(flat)]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def encode_batches(
        self,
        images: Iterable[ImageLike | StoredImage],
        on_unreadable: UnreadableCallback | None = None,
        progress: ProgressCallback | None = None,
        total: int = 0,
    ) -> Iterator[tuple[list[int], Codes]]:
        """Encode images batch by batch. While one batch is encoded, only the next one is decoded.

        Args:
            images: PIL images, or paths of image files; no folders. They are taken one after another.
            on_unreadable: Called for each image that does not decode, which is then skipped. By default such an image
                raises EnvironmentFailure.
            progress: Called with the number of images processed and their total.
            total: The number of images, if they cannot be counted before they are taken.

        Yields:
            The indices of the encoded images, and their codes.
        """
        total, taken, done = len(images) if isinstance(images, Sized) else total, iter(images), 0
        with ExitStack() as stack:
            pool = ThreadPoolExecutor(min(DECODER_THREADS, os.cpu_count() or 1))
            stack.callback(pool.shutdown, cancel_futures=True)  # without waiting for images that are no longer needed

            def decode() -> list[Future[Tensor]]:
                return [pool.submit(self._prepare, image) for image in islice(taken, BATCH_SIZE)]

            next_batch = decode()
            while decoded := next_batch:
                next_batch = decode()
                indices, tensors = [], []
                for index, future in enumerate(decoded, done):
                    try:
                        tensors.append(future.result())
                        indices.append(index)
                    except EnvironmentFailure as error:
                        if on_unreadable is None:
                            raise
                        on_unreadable(index, str(error))
                if tensors:
                    yield indices, self._encode_tensors(torch.stack(tensors))
                done += len(decoded)
                if progress:
                    progress(done, total)

    def _prepare(self, image: ImageLike | StoredImage) -> Tensor:
        """An image as the backbone takes it, (C, H, W)."""
        if not isinstance(image, Image.Image):
            to, draft = self.trained.input, self.trained.run.train.draft
            side = to.resized if draft else None
            opened = image.open(side) if isinstance(image, StoredImage) else image_paths.open_image(Path(image), side)
            return prepare(self.trained.to_tensor(opened), to)
        try:
            image.load()
        except (OSError, SyntaxError, ValueError) as error:  # Pillow reads pixels lazily
            raise EnvironmentFailure(f"an image does not decode: {first_line(error)}") from error
        return prepare(self.trained.to_tensor(image), self.trained.input)

    def search(
        self,
        queries: ImageLike | Sequence[ImageLike] | Codes,
        database: ImageLike | Sequence[ImageLike] | Codes,
        k: int = 20,
    ) -> Ranking:
        """Find the nearest database images of each query with the method's own index.

        To search many images, build an index once with :func:`hashzoo.retrieval.image_index.build`.

        Args:
            queries: Images as :meth:`encode` takes them, or codes that it returned.
            database: Likewise.
            k: Number of images to return for each query.

        Returns:
            Rows of the database and distances, both (Q, k), nearest first.
        """
        index = self.trained.method.index()
        index.add(database if isinstance(database, dict) else self.encode(database))
        return index.search(queries if isinstance(queries, dict) else self.encode(queries), k)

    def heatmaps(self, images: Sequence[Image.Image]) -> tuple[Tensor, Tensor]:
        """Compute where the method looks in images: its attention, or else Grad-CAM of its code.

        Args:
            images: B images.

        Returns:
            The images as the backbone takes them, (B, C, H, W) from 0 to 1 without normalization, and the heatmaps,
            (B, H, W) from 0 to 1.

        Raises:
            UsageError: If the method has neither attention nor what Grad-CAM needs.
        """
        with cpu_fallback(self.trained.run.device):
            return compute_heatmaps(self.trained, images)

    @contextmanager
    def _vectors(self, items: Tensor) -> Iterator[Callable[[], Tensor]]:
        """The pooled features that the backbone computes. UsageError unless it is called once."""
        seen, backbone = list[Tensor](), getattr(self.trained.method, "backbone", None)

        def found() -> Tensor:
            if len(seen) != 1:
                name = self.trained.cell.identity.method
                raise UsageError(f"{name} reads several features of an image, so that --vectors has no one to keep")
            return seen[0]

        with ExitStack() as stack:
            if self.with_vectors and isinstance(backbone, nn.Module):
                keep = lambda _, __, out: seen.append(out.pooled.float())  # noqa: E731
                stack.enter_context(backbone.register_forward_hook(keep))
            yield found

    def _preprocessing(self) -> dict[str, Any]:
        """The steps from an image file to the input of the backbone, in words and numbers."""
        to, (channels, height, width) = self.trained.input, self.trained.shape
        return {
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
        }
