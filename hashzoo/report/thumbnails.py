"""Small images inside the page: each is stored once, however often it is shown."""

from __future__ import annotations

import base64
import io
from typing import Any

from markupsafe import Markup
from PIL import Image
from torchvision.transforms.v2.functional import to_pil_image

from hashzoo.data.transforms import as_tensor
from hashzoo.types import Split

SIDE = 56  # pixels of the longer side
SMALL = 16  # up to here an image is stored as it is, and shown in squares


def encoded(image: Image.Image, side: int = SIDE) -> tuple[str, int, int]:
    """An image as a data URI, and the width and height it is stored with."""
    made = image.convert("L" if image.mode in ("L", "1") else "RGB")
    if max(made.size) > side:
        share = side / max(made.size)
        size = (max(1, round(made.width * share)), max(1, round(made.height * share)))
        made = made.resize(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if max(made.size) <= SMALL:
        made.save(buffer, "PNG", optimize=True)
        kind = "png"
    else:
        made.save(buffer, "WEBP", quality=60, method=4)
        kind = "webp"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}", made.width, made.height


def image_of(split: Split, row: int) -> Image.Image:
    """An image of a split, upright and whole, as people see it."""
    found: Any = to_pil_image(as_tensor(split.images[row]))
    return found if isinstance(found, Image.Image) else Image.fromarray(found)


class Album:
    """The thumbnails of a page by where they come from, up to ``room`` bytes of text."""

    def __init__(self, room: int) -> None:
        self.room, self.bytes = room, 0
        self._names: dict[tuple[Any, ...], str] = {}
        self._symbols: list[str] = []

    def missing(self, wanted: dict[tuple[Any, ...], tuple[Split, int]]) -> bool:
        """Add images that are wanted by key; whether they did not all find room, and then none is added."""
        new = {key: encoded(image_of(*at)) for key, at in wanted.items() if key not in self._names}
        size = sum(len(data) + 120 for data, _, _ in new.values())
        if self.bytes + size > self.room:
            return True
        self.bytes += size
        for key, (data, width, height) in new.items():
            self._names[key] = f"t{len(self._symbols)}"
            kind = ' class="px"' if max(width, height) <= SMALL else ""
            self._symbols.append(
                f'<symbol id="{self._names[key]}" viewBox="0 0 {width} {height}"><image{kind} href="{data}" '
                f'width="{width}" height="{height}"/></symbol>'
            )
        return False

    def name(self, key: tuple[Any, ...]) -> str:
        """The id of an image's symbol."""
        return self._names[key]

    @property
    def symbols(self) -> Markup:
        """All of them, to be used by id."""
        return Markup("".join(self._symbols))  # nosec B704 # base64 and numbers
