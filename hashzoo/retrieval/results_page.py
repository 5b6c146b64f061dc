"""Search results as a self-contained HTML file with thumbnails."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from hashzoo.data.image_paths import open_image
from hashzoo.errors import EnvironmentFailure, printable
from hashzoo.retrieval.hit import SearchResult

SIDE = 160  # longest side of a thumbnail in pixels

STYLE = """:root { color-scheme: light dark; }
body { font: 16px/1.4 system-ui, sans-serif; margin: 1rem auto; max-width: 75rem; padding: 0 1rem; }
ul { display: grid; gap: 1rem; list-style: none; padding: 0; }
ul { grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); }
img { background: #8883; display: block; height: 9rem; object-fit: contain; width: 100%; }
small { overflow-wrap: anywhere; }"""


def page_template(style: str, body: str) -> str:
    """The template of a self-contained page of images with a ``title``, from rules of its own and its body."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{{{ title }}}}</title>
<style>
{STYLE}
{style.strip()}
</style>
</head>
<body>
<h1>{{{{ title }}}}</h1>
{body.strip()}
</body>
</html>
"""


PAGE = page_template(
    """
section { margin: 2rem 0; }
ul.queries { grid-template-columns: repeat(auto-fill, 9rem); }
.missing { align-items: center; background: #8883; display: flex; height: 9rem; justify-content: center; }
""",
    """
{% for result in results %}
<section>
<h2>{{ result.heading }}</h2>
<ul class="queries">
{% for path, image in result.queries %}<li>
{%- if image %}<img src="{{ image }}" alt="{{ path }}">{% endif %}<small>{{ path }}</small></li>
{% endfor %}</ul>
<ul>
{% for rank, path, distance, image in result.hits %}<li>
{%- if image %}<img src="{{ image }}" alt="{{ path }}">{% else %}<span class="missing">no image</span>{% endif -%}
{{ rank }}. {{ measure }} {{ distance }}<br><small>{{ path }}</small></li>
{% endfor %}</ul>
</section>
{% endfor %}
""",
)


def thumbnail(image: Image.Image, side: int = SIDE) -> bytes:
    """A JPEG of an image, its longest side at most ``side`` pixels."""
    copy = image.copy()
    copy.thumbnail((side, side), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    copy.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def data_uri(jpeg: bytes) -> str:
    """A data URI of a JPEG."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def render_page(title: str, results: Sequence[SearchResult], measure: str) -> str:
    """The HTML of search results.

    Args:
        title: Title of the page.
        results: The results of each query.
        measure: Name of the number that orders hits, such as ``"distance"``.
    """
    from jinja2 import Environment  # not needed to print results

    content = [
        {
            "heading": result.heading,
            "queries": [(printable(path), file_uri(path)) for path in result.queries],
            "hits": [
                (rank, printable(hit.path), f"{hit.distance:g}", file_uri(hit.path))
                for rank, hit in enumerate(result.hits, 1)
            ],
        }
        for result in results
    ]
    return Environment(autoescape=True).from_string(PAGE).render(title=title, results=content, measure=measure)


def file_uri(path: Path) -> str:
    """A data URI of the thumbnail of an image file; empty if the file cannot be read."""
    try:
        return data_uri(thumbnail(open_image(path)))
    except EnvironmentFailure:
        return ""
