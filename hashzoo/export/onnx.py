"""Export of a trained method as ONNX: uint8 images in, packed bits out, compared with torch before it is written."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hashzoo.data import image_paths
from hashzoo.data.transforms import as_tensor, normalise, resize
from hashzoo.data.vectors import Vectors
from hashzoo.errors import EnvironmentFailure, UsageError, first_line
from hashzoo.export import manifest
from hashzoo.registry.open_dataset import reload_data
from hashzoo.registry.saved_method import TrainedMethod
from hashzoo.retrieval.encoder import Encoder
from hashzoo.retrieval.vector_encoder import VectorEncoder
from hashzoo.storage.files import replace_bytes
from hashzoo.types import Batch, Codes

OPSET = 18
INPUT, VECTOR_INPUT = "images", "vectors"  # name of the graph's input
TOLERANCE = 1e-5  # a bit whose value is nearer to its threshold can differ between ONNX and torch
MAX_IMAGES = 1000  # compared
BATCH_SIZE = 50


class PackedEncoder(nn.Module):
    """Encodes uint8 images (B, C, H, W) of the backbone's size, or float32 vectors (B, D).

    It returns a tuple of packed bits or values per code.

    Args:
        trained: The method.
        names: The codes to return.
    """

    def __init__(self, trained: TrainedMethod, names: Sequence[str]) -> None:
        super().__init__()
        self.method, self.names, self.input = trained.method, names, trained.input
        self.classes, self.metric = len(trained.class_names), trained.metric

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Packed bits (B, ceil(K / 8)) uint8 for a binary code, with bit 0 the highest of byte 0; else the values."""
        codes = self.codes(images)
        return tuple(pack_bits(codes[name]) if codes[name].dtype == torch.bool else codes[name] for name in self.names)

    def codes(self, images: Tensor) -> Codes:
        """The codes of the images, by name."""
        count = images.shape[0]  # len() would become a constant in the graph
        labels, ids = torch.zeros(count, self.classes), torch.full((count,), -1)
        return self.method.encode(Batch((self.prepared(images),), labels, ids))

    def prepared(self, images: Tensor) -> Tensor:
        """What the backbone takes: scaled images, or vectors, for ``cosine`` divided by their lengths."""
        if not self.metric:
            return normalise(images, self.input)
        if self.metric != "cosine":
            return images
        length = images.square().sum(1, keepdim=True).sqrt()
        return images / torch.where(length > 0, length, 1.0)


def pack_bits(bits: Tensor) -> Tensor:
    """(B, K) bool to (B, ceil(K / 8)) uint8 like :func:`hashzoo.hamming.packing.pack`, with operators of ONNX.

    >>> pack_bits(torch.tensor([[True, False, False, False, False, False, False, True, True]])).tolist()
    [[129, 128]]
    """
    padded = torch.nn.functional.pad(bits.to(torch.int32), (0, -bits.shape[1] % 8))
    octets = padded.reshape(padded.shape[0], padded.shape[1] // 8, 8)
    return (octets * (2 ** torch.arange(7, -1, -1, dtype=torch.int32))).sum(2).to(torch.uint8)


class MarginRecorder(TorchFunctionMode):
    """A context that records how far from 0 the values are that a comparison with 0 turns into bits."""

    def __init__(self) -> None:
        super().__init__()
        self._comparisons: list[tuple[Tensor, Tensor]] = []  # result, values

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function; record result and values of a comparison with 0."""
        result = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") in ("ge", "__ge__", "gt", "__gt__") and len(args) == 2 and args[1] is not None:
            left, right = args
            if isinstance(left, Tensor) and isinstance(right, int | float) and right == 0:
                self._comparisons.append((result, left))
        return result

    def margins(self, bits: Tensor) -> Tensor:
        """|x| if the tensor ``bits`` is the result of x >= 0; otherwise infinity, in the shape of ``bits``."""
        for result, values in self._comparisons:
            if result is bits:
                return values.abs()
        return torch.full(bits.shape, torch.inf)


@dataclass(frozen=True)
class Comparison:
    """How the codes of ONNX and torch compare.

    Attributes:
        images: Number of images.
        bits: Number of bits of all their codes.
        differing: Number of bits that differ.
        max_margin: The largest distance of a differing bit's value from its threshold.
    """

    images: int
    bits: int
    differing: int
    max_margin: float


def export(
    encoder: Encoder | VectorEncoder, output: Path, images: Sequence[Path] = (), root: Path | None = None
) -> Comparison:
    """Write an encoder as ONNX with its manifest, if onnxruntime gives the codes of torch for real items.

    The graph takes images (B, C, H, W) uint8 that are upright, resized and cropped as the manifest says; or vectors
    (B, D) float32 as they come from the embedding model.

    Args:
        encoder: The encoder, on the CPU.
        output: The ``.onnx`` file.
        images: Image files and folders, of which up to 1,000 images are compared. By default these are queries of the
            dataset that the cell was measured on. For vectors, one file of vectors; by default random ones.
        root: The folder of the dataset's files, if they were moved.

    Returns:
        The comparison of ONNX with torch.

    Raises:
        UsageError: If the encoder is on another device, or there are no images to compare.
        EnvironmentFailure: If the extra ``onnx`` is not installed, torch cannot export the method, or codes differ.
    """
    try:
        import onnxruntime
    except ImportError:
        raise EnvironmentFailure("this needs onnx and onnxruntime; pip install 'hashzoo[onnx]'") from None
    trained = encoder.trained
    if trained.run.device.type != "cpu":
        raise UsageError("only an encoder on the CPU can be exported; leave out --device")
    of_vectors = isinstance(encoder, VectorEncoder)
    examples = _vectors(encoder, images) if isinstance(encoder, VectorEncoder) else _examples(encoder, images, root)
    source = VECTOR_INPUT if of_vectors else INPUT
    names = trained.method.index().reads()
    with torch.no_grad():
        codes = PackedEncoder(trained, ()).codes(examples[:1])
    module = PackedEncoder(trained, tuple(codes) if names is None else names).eval()
    data = _onnx_model(module, examples[:2], trained.cell.identity.method, source)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    comparison = compare(module, examples, lambda batch: session.run(None, {source: batch.numpy()}))
    replace_bytes(output, data)
    manifest.write(
        manifest.manifest_path(output),
        "onnx",
        encoder.describe(),
        [output],
        input=_vector_spec(trained) if of_vectors else _input_spec(examples),
        outputs={name: _output_spec(codes[name]) for name in module.names},
        opset=OPSET,
        checked={
            encoder.items: comparison.images,
            "bits": comparison.bits,
            "differing": comparison.differing,
            "farthest": comparison.max_margin,
        },
    )
    return comparison


def _input_spec(images: Tensor) -> dict[str, Any]:
    return {
        "name": INPUT,
        "type": "uint8",
        "shape": ["batch", *images.shape[1:]],
        "what": "upright, resized and cropped as under preprocessing; scale, mean and std are in the graph",
    }


def _vector_spec(trained: TrainedMethod) -> dict[str, Any]:
    divided = "; the graph divides them by their lengths" if trained.metric == "cosine" else ""
    what = f"vectors as they come from the embedding model{divided}"
    return {"name": VECTOR_INPUT, "type": "float32", "shape": ["batch", trained.shape[0]], "what": what}


def _vectors(encoder: VectorEncoder, files: Sequence[Path]) -> Tensor:
    """Vectors (N, D) to compare: the first of a file, or random ones."""
    if len(files) > 1:
        raise UsageError(f"--check takes one file of vectors, not {len(files)}; name one")
    if not files:
        return torch.randn(MAX_IMAGES, encoder.dim, generator=torch.Generator().manual_seed(0))
    found = encoder.open(files[0])
    rows = found.rows[:MAX_IMAGES]
    return torch.from_numpy(Vectors(found.matrix).numbers(rows))


def _output_spec(code: Tensor) -> dict[str, Any]:
    if code.dtype == torch.bool:
        return {"bits": code.shape[1], "shape": ["batch", -(-code.shape[1] // 8)], "type": "uint8"}
    return {"shape": ["batch", *code.shape[1:]], "type": "float32"}


def _examples(encoder: Encoder, images: Sequence[Path], root: Path | None) -> Tensor:
    """Real images as the graph takes them, (N, C, H, W) uint8."""
    trained = encoder.trained
    if images:
        found = image_paths.find_images(images)
        if found.left_out:
            raise EnvironmentFailure(found.left_out[0])
        folder, paths = found.root, found.images
        tensors = [trained.to_tensor(image_paths.open_image(folder / path)) for path in paths[:MAX_IMAGES]]
    else:
        try:
            queries = reload_data(trained.cell, encoder.plugins, root).query.images
        except (UsageError, EnvironmentFailure) as error:
            raise UsageError(f"no images to check the export with: {error}; name some with --check") from error
        tensors = [as_tensor(queries[row]) for row in range(min(MAX_IMAGES, len(queries)))]
    return torch.stack([resize(tensor, trained.input) for tensor in tensors])


def _onnx_model(module: PackedEncoder, examples: Tensor, method: str, source: str = INPUT) -> bytes:
    """The serialized ONNX model. Raises EnvironmentFailure if torch cannot export the method."""
    examples = examples if len(examples) > 1 else torch.cat([examples, examples])  # a batch of one becomes a constant
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # about future changes of the exporter
            program = torch.onnx.export(
                module,
                (examples,),
                input_names=[source],
                output_names=list(module.names),
                opset_version=OPSET,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                dynamo=True,
                verbose=False,
            )
            if program is None:
                raise RuntimeError("torch returned no program")
            data: bytes = program.model_proto.SerializeToString()
    except ImportError as error:
        raise EnvironmentFailure(f"this needs {error.name}; pip install 'hashzoo[onnx]'") from error
    except Exception as error:  # the exporter raises many types
        cause = error.__cause__ or error
        raise EnvironmentFailure(
            f"{method} cannot be exported to ONNX, since its encode uses more than torch operators: {first_line(cause)}"
        ) from error
    finally:
        logger.setLevel(level)
    return data


def compare(
    module: PackedEncoder, images: Tensor, run: Callable[[Tensor], Sequence[np.ndarray[Any, Any]]]
) -> Comparison:
    """Compare the outputs of an ONNX graph with torch.

    Args:
        module: The exported module.
        images: Images (N, C, H, W) uint8.
        run: Runs the graph on a batch of images.

    Raises:
        EnvironmentFailure: If codes differ by more than rounding explains.
    """
    total, differing, max_margin = 0, 0, 0.0
    for batch in torch.split(images, BATCH_SIZE):
        with torch.no_grad(), MarginRecorder() as recorder:
            codes = module.codes(batch)
        for name, output in zip(module.names, run(batch), strict=True):
            expected = codes[name]
            if expected.dtype != torch.bool:
                if not np.allclose(output, expected.numpy(), rtol=1e-4, atol=1e-5):
                    raise EnvironmentFailure(f"ONNX and torch give different values of {name!r}; nothing was written")
                continue
            bits = torch.from_numpy(np.unpackbits(output, axis=1, count=expected.shape[1]).astype(bool))
            wrong = bits != expected
            total, differing = total + wrong.numel(), differing + int(wrong.sum())
            max_margin = max([max_margin, *recorder.margins(expected)[wrong].tolist()])
    if max_margin >= TOLERANCE:
        raise EnvironmentFailure(
            f"ONNX and torch differ in {differing} of {total} bits, one of them {max_margin:g} from its threshold; "
            "nothing was written"
        )
    return Comparison(len(images), total, differing, max_margin)
