"""A trained method as ONNX: shaped images in, packed bits out, compared with torch before anything is kept."""

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
from hashzoo.data.transforms import as_tensor, normalised, shaped
from hashzoo.errors import EnvironmentFailure, UsageError, first_line
from hashzoo.export import manifest
from hashzoo.registry.open_dataset import reload_data
from hashzoo.registry.saved_method import TrainedMethod
from hashzoo.retrieval.encoder import Encoder
from hashzoo.storage.files import replace_bytes
from hashzoo.types import Batch, Codes

OPSET = 18
NEAR = 1e-5  # a bit whose value is nearer to 0 than this may come out either way
IMAGES = 1000  # that are compared, at most
AT_ONCE = 50


class Packing(nn.Module):
    """(B, C, H, W) uint8 images of the backbone's size in; a tuple out, of each code's packed bits or values."""

    def __init__(self, of: TrainedMethod, names: Sequence[str]) -> None:
        super().__init__()
        self.method, self.names, self.input, self.classes = of.method, names, of.input, len(of.class_names)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Bits eight to a byte, (B, ceil(K / 8)) uint8, the first the highest of byte 0."""
        codes = self.codes(images)
        return tuple(packed(codes[n]) if codes[n].dtype == torch.bool else codes[n] for n in self.names)

    def codes(self, images: Tensor) -> Codes:
        """What the method makes of the images."""
        count = images.shape[0]  # len would make a constant of it
        blank = torch.zeros(count, self.classes), torch.full((count,), -1)
        return self.method.encode(Batch((normalised(images, self.input),), *blank))


def packed(bits: Tensor) -> Tensor:
    """(B, K) bool as (B, ceil(K / 8)) uint8, as :func:`hashzoo.hamming.counting.pack` does it, in operators that ONNX
    has.

    >>> packed(torch.tensor([[True, False, False, False, False, False, False, True, True]])).tolist()
    [[129, 128]]
    """
    padded = torch.nn.functional.pad(bits.to(torch.int32), (0, -bits.shape[1] % 8))
    eights = padded.reshape(padded.shape[0], padded.shape[1] // 8, 8)
    return (eights * (2 ** torch.arange(7, -1, -1, dtype=torch.int32))).sum(2).to(torch.uint8)


class Margins(TorchFunctionMode):
    """Within it, how far from 0 the values were that became bits: ``of(bits)`` gives their sizes, by the tensor."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: list[tuple[Tensor, Tensor]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Keep both sides of every comparison with 0."""
        found = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") in ("ge", "__ge__", "gt", "__gt__") and len(args) == 2 and args[1] is not None:
            left, right = args
            if isinstance(left, Tensor) and isinstance(right, int | float) and right == 0:
                self._seen.append((found, left))
        return found

    def of(self, bits: Tensor) -> Tensor:
        """|x| where these bits are x >= 0; infinite where they are not."""
        for found, values in self._seen:
            if found is bits:
                return values.abs()
        return torch.full(bits.shape, torch.inf)


@dataclass(frozen=True)
class Checked:
    """How ONNX and torch compare: images, bits of each, bits that differ, and the largest |x| of one that does."""

    images: int
    bits: int
    differing: int
    farthest: float


def export(encoder: Encoder, output: Path, images: Sequence[Path] = (), root: Path | None = None) -> Checked:
    """Write the encoder as ONNX and its manifest, once onnxruntime has given torch's codes for real images.

    These are up to 1,000 of ``images``, files and folders, or the queries of the data that the method was measured
    on, whose files lie in ``root``. The graph takes (B, C, H, W) uint8, upright, resized and cropped as the manifest
    says. EnvironmentFailure where the extra ``onnx`` is missing, the method leaves torch while it encodes, or codes
    differ.
    """
    try:
        import onnxruntime
    except ImportError:
        raise EnvironmentFailure("this needs onnx and onnxruntime; pip install 'hashzoo[onnx]'") from None
    of = encoder.trained
    if of.run.device.type != "cpu":
        raise UsageError("an encoder is exported from the CPU; leave out --device")
    seen = _seen(encoder, images, root)
    names = of.method.index().reads()
    with torch.no_grad():
        first = Packing(of, ()).codes(seen[:1])
    module = Packing(of, tuple(first) if names is None else names).eval()
    data = _exported(module, seen[:2], of.cell.identity.method)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    checked = compared(module, seen, lambda some: session.run(None, {"pictures": some.numpy()}))
    replace_bytes(output, data)
    outputs = {
        name: {"bits": first[name].shape[1], "shape": ["batch", -(-first[name].shape[1] // 8)], "type": "uint8"}
        if first[name].dtype == torch.bool
        else {"shape": ["batch", *first[name].shape[1:]], "type": "float32"}
        for name in module.names
    }
    manifest.write(
        manifest.beside(output),
        "onnx",
        encoder.about(),
        {output.name: data},
        input={
            "name": "pictures",
            "type": "uint8",
            "shape": ["batch", *seen.shape[1:]],
            "what": "upright, resized and cropped as under preprocessing; scale, mean and std are in the graph",
        },
        outputs=outputs,
        opset=OPSET,
        checked=vars(checked),
    )
    return checked


def _seen(encoder: Encoder, images: Sequence[Path], root: Path | None) -> Tensor:
    """(N, C, H, W) uint8 real images as the graph takes them."""
    of = encoder.trained
    if images:
        folder, relative = image_paths.find_images(images)
        found = [of.tensor(image_paths.open_image(folder / path)) for path in relative[:IMAGES]]
    else:
        try:
            shown = reload_data(of.cell, encoder.plugins, root).query.images
        except (UsageError, EnvironmentFailure) as error:
            raise UsageError(f"no images to check the export with: {error}; name some with --check") from error
        found = [as_tensor(shown[row]) for row in range(min(IMAGES, len(shown)))]
    return torch.stack([shaped(image, of.input) for image in found])


def _exported(module: Packing, example: Tensor, method: str) -> bytes:
    """The bytes of the ONNX model. EnvironmentFailure where torch cannot make a graph of the method."""
    example = example if len(example) > 1 else example.repeat(2, 1, 1, 1)  # of one, the batch would be a constant
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of torch's exporter, on its own future
            made = torch.onnx.export(
                module,
                (example,),
                input_names=["pictures"],
                output_names=list(module.names),
                opset_version=OPSET,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                dynamo=True,
                verbose=False,
            )
            if made is None:
                raise RuntimeError("torch made no program")
            data: bytes = made.model_proto.SerializeToString()
    except ImportError as error:
        raise EnvironmentFailure(f"this needs {error.name}; pip install 'hashzoo[onnx]'") from error
    except Exception as error:  # the exporter raises many kinds
        cause = error.__cause__ or error
        raise EnvironmentFailure(
            f"{method} cannot be exported to ONNX, since it does not stay within torch's operators while it encodes: "
            f"{first_line(cause)}"
        ) from error
    finally:
        logger.setLevel(level)
    return data


def compared(module: Packing, images: Tensor, run: Callable[[Tensor], Sequence[np.ndarray[Any, Any]]]) -> Checked:
    """Compare what a run of the graph gives with torch. EnvironmentFailure where codes differ by more than rounding."""
    total, differing, farthest = 0, 0, 0.0
    for some in torch.split(images, AT_ONCE):
        with torch.no_grad(), Margins() as margins:
            codes = module.codes(some)
        for name, got in zip(module.names, run(some), strict=True):
            if codes[name].dtype != torch.bool:
                if not np.allclose(got, codes[name].numpy(), rtol=1e-4, atol=1e-5):
                    raise EnvironmentFailure(f"ONNX and torch give other values of {name!r}; nothing was written")
                continue
            count = codes[name].shape[1]
            apart = torch.from_numpy(np.unpackbits(got, axis=1, count=count).astype(bool)) != codes[name]
            total, differing = total + apart.numel(), differing + int(apart.sum())
            farthest = max([farthest, *margins.of(codes[name])[apart].tolist()])
    if farthest >= NEAR:
        raise EnvironmentFailure(
            f"ONNX and torch differ in {differing} of {total} bits, one of them {farthest:g} from its threshold; "
            "nothing was written"
        )
    return Checked(len(images), total, differing, farthest)
