"""What a search found, as one HTML file that holds small copies of the images and asks for nothing else."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment
from PIL import Image

from hashzoo.data.image_paths import open_image
from hashzoo.errors import EnvironmentFailure, printable
from hashzoo.retrieval.image_index import Hit

SIDE = 160  # pixels of a small image, at most

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
:root { color-scheme: light dark; }
body { font: 16px/1.4 system-ui, sans-serif; margin: 1rem auto; max-width: 75rem; padding: 0 1rem; }
section { margin: 2rem 0; }
ul { display: grid; gap: 1rem; list-style: none; padding: 0; }
ul { grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); }
ul.asked { grid-template-columns: repeat(auto-fill, 9rem); }
img { background: #8883; display: block; height: 9rem; object-fit: contain; width: 100%; }
.gone { align-items: center; background: #8883; display: flex; height: 9rem; justify-content: center; }
small { overflow-wrap: anywhere; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
{% for one in found %}
<section>
<h2>{{ one.heading }}</h2>
<ul class="asked">
{% for path, image in one.asked %}<li>
{%- if image %}<img src="{{ image }}" alt="{{ path }}">{% endif %}<small>{{ path }}</small></li>
{% endfor %}</ul>
<ul>
{% for rank, path, distance, image in one.hits %}<li>
{%- if image %}<img src="{{ image }}" alt="{{ path }}">{% else %}<span class="gone">not there</span>{% endif -%}
{{ rank }}. {{ what }} {{ distance }}<br><small>{{ path }}</small></li>
{% endfor %}</ul>
</section>
{% endfor %}
</body>
</html>
"""


@dataclass(frozen=True)
class Answer:
    """What one query, of one image or two, found."""

    heading: str
    asked: Sequence[Path]
    hits: Sequence[Hit]


def shrunk(image: Image.Image, side: int = SIDE) -> bytes:
    """A copy of an image, at most ``side`` pixels high and wide, as a JPEG."""
    copy = image.copy()
    copy.thumbnail((side, side), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    copy.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def small(path: Path) -> bytes | None:
    """The :func:`shrunk` image of a file; None where it cannot be read any more."""
    try:
        return shrunk(open_image(path))
    except EnvironmentFailure:
        return None


def address(jpeg: bytes | None) -> str:
    """The address of a JPEG's own data; empty where there is none."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode() if jpeg else ""


def page(title: str, answers: Sequence[Answer], what: str) -> str:
    """The HTML of what queries found; ``what`` is what a hit's number is called, as "distance"."""
    found = [
        {
            "heading": one.heading,
            "asked": [(printable(path), address(small(path))) for path in one.asked],
            "hits": [
                (rank, printable(hit.path), f"{hit.distance:g}", address(small(hit.path)))
                for rank, hit in enumerate(one.hits, 1)
            ],
        }
        for one in answers
    ]
    return Environment(autoescape=True).from_string(PAGE).render(title=title, found=found, what=what)
