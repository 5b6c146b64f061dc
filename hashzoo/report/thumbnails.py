"""Thumbnails inside the page. Each image is stored once, however often it is shown."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup
from PIL import Image
from torchvision.transforms.v2.functional import to_pil_image

from hashzoo.data.transforms import as_tensor
from hashzoo.types import Split

SIDE = 56  # longest side in pixels
SMALL_SIDE = 16  # images up to this size are stored losslessly and shown without smoothing
SYMBOL_BYTES = 120  # of the element around an image's data


def encode_image(image: Image.Image, side: int = SIDE) -> tuple[str, int, int]:
    """An image, reduced to ``side`` pixels if it is larger, as a data URI, with its width and height."""
    reduced = image.convert("L" if image.mode in ("L", "1") else "RGB")
    if max(reduced.size) > side:
        scale = side / max(reduced.size)
        size = (max(1, round(reduced.width * scale)), max(1, round(reduced.height * scale)))
        reduced = reduced.resize(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if max(reduced.size) <= SMALL_SIDE:
        reduced.save(buffer, "PNG", optimize=True)
        kind = "png"
    else:
        reduced.save(buffer, "WEBP", quality=60, method=4)
        kind = "webp"
    data = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/{kind};base64,{data}", reduced.width, reduced.height


def split_image(split: Split, row: int) -> Image.Image:
    """An image of a split, before it is resized for a backbone."""
    image: Any = to_pil_image(as_tensor(split.images[row]))
    return image if isinstance(image, Image.Image) else Image.fromarray(image)


class Album:
    """The thumbnails of a page by key.

    Args:
        limit: Largest total size in bytes of text.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.bytes = limit, 0
        self._names: dict[tuple[Any, ...], str] = {}
        self._symbols: list[str] = []

    def add(self, images: Mapping[tuple[Any, ...], tuple[Split, int]]) -> bool:
        """Add images, given as split and row, by key: all of them, or none and return False if they exceed the limit.

        Keys that the album already has are skipped.
        """
        new = {key: encode_image(split_image(*at)) for key, at in images.items() if key not in self._names}
        size = sum(len(data) + SYMBOL_BYTES for data, _, _ in new.values())
        if self.bytes + size > self.limit:
            return False
        self.bytes += size
        for key, (data, width, height) in new.items():
            self._names[key] = f"t{len(self._symbols)}"
            kind = ' class="px"' if max(width, height) <= SMALL_SIDE else ""
            self._symbols.append(
                f'<symbol id="{self._names[key]}" viewBox="0 0 {width} {height}"><image{kind} href="{data}" '
                f'width="{width}" height="{height}"/></symbol>'
            )
        return True

    def symbol_id(self, key: tuple[Any, ...]) -> str:
        """The id of the SVG symbol of an image."""
        return self._names[key]

    @property
    def symbols(self) -> Markup:
        """All images as SVG symbols."""
        return Markup("".join(self._symbols))  # nosec B704 # base64 and numbers
