"""The size, fonts and lines of all figures, in one place."""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hashzoo.errors import EnvironmentFailure, UsageError, unknown_name
from hashzoo.storage.library_caches import provide_matplotlib_cache

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Colors of highlighted methods, which people with color blindness can distinguish; the page has the same.
COLOURS = ("#0067a5", "#b54708", "#067647", "#8e3a9d", "#6b5600", "#0e7490", "#b4235a", "#44403c")
GREY = "#b8c0c9"

#: Lines and markers of highlighted methods, in the order of the colors; no two have both in common.
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 2, 2, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

_DEFAULT_FONT = "DejaVu Sans"  # it comes with matplotlib
_BOXES = "Last Resort"  # fonts that have a box for every character


@dataclass(frozen=True)
class Style:
    """The size and the fonts of a figure.

    Attributes:
        size: Width and height of the whole figure in inches; by default what its panels need.
        font_size: Size of the text in points; titles and legends are smaller in proportion.
        font: Name of an installed font; by default the one that comes with matplotlib.
    """

    size: tuple[float, float] | None = None
    font_size: float = 10.0
    font: str | None = None

    def draw(self, drawing: Callable[[], Figure]) -> Figure:
        """Draw a figure in this style, with fonts that have its characters.

        Raises:
            UsageError: If the font is not installed.
            EnvironmentFailure: If matplotlib is not installed.
        """
        with self.applied():
            figure = drawing()
        if self.size is not None:
            figure.set_size_inches(*self.size)
        choose_fonts(figure, self.font or _DEFAULT_FONT)
        return figure

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Set the fonts of what is drawn meanwhile."""
        provide_matplotlib_cache()
        try:
            import matplotlib
        except ImportError:
            raise EnvironmentFailure("figures need matplotlib; pip install 'hashzoo[plots]'") from None
        if self.font is not None:
            _require_font(self.font)
        with matplotlib.rc_context(self._settings()):
            yield

    def _settings(self) -> Any:
        size = self.font_size
        return {
            **{"font.size": size, "font.family": [self.font or _DEFAULT_FONT], "axes.titlesize": 0.9 * size},
            **{"axes.labelsize": size, "legend.fontsize": 0.7 * size},
            **dict.fromkeys(("xtick.labelsize", "ytick.labelsize"), size),
        }


DEFAULT = Style()


def parse_size(text: str | None) -> tuple[float, float] | None:
    """Width and height of a text such as ``3.4x2.5``. UsageError for any other text.

    >>> parse_size("3.4x2.5"), parse_size(None)
    ((3.4, 2.5), None)
    """
    if text is None:
        return None
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*[x,]\s*(\d+(?:\.\d*)?|\.\d+)\s*", text.lower())
    size = (float(found[1]), float(found[2])) if found else (0.0, 0.0)
    if not all(0.5 <= side <= 100 for side in size):
        raise UsageError(f"--size must be width x height in inches, from 0.5 to 100, such as 3.4x2.5, not {text!r}")
    return size


def _require_font(name: str) -> None:
    from matplotlib.font_manager import get_font_names

    if name not in (known := get_font_names()):
        raise UsageError(unknown_name("installed font", name, known))


def choose_fonts(figure: Figure, first: str) -> str:
    """Set the fonts of all texts: the first one, then installed ones for the characters that it lacks.

    Returns:
        The characters that no installed font has.
    """
    from matplotlib.text import Text

    texts = [text for text in figure.findobj(Text) if text.get_text()]
    wanted = {letter for text in texts for letter in text.get_text() if _is_drawn(letter)}
    families, missing = fonts_for(wanted, first)
    if len(families) > 1:
        for text in texts:
            text.set_fontfamily(families)
    return "".join(sorted(missing))


def _is_drawn(letter: str) -> bool:
    return unicodedata.category(letter)[0] not in "CZ"


def fonts_for(letters: set[str], first: str) -> tuple[list[str], set[str]]:
    """The first font and others that have the letters that it lacks, and the letters that no installed font has."""
    from matplotlib.font_manager import FontProperties, findfont, fontManager

    families, missing = [first], letters - _letters_of(findfont(FontProperties(family=[first])))
    if not missing:
        return families, missing
    fonts = [font for font in fontManager.ttflist if not font.name.startswith(_BOXES)]
    for font in sorted(fonts, key=lambda font: (font.style != "normal", font.weight != 400, font.name)):
        if missing and font.name not in families and (found := missing & _letters_of(font.fname)):
            families.append(font.name)
            missing -= found
    return families, missing


def _letters_of(file: str) -> set[str]:
    """The characters of a font file; none if it cannot be read."""
    from matplotlib.font_manager import get_font

    try:
        return {chr(code) for code in get_font(file).get_charmap()}
    except (OSError, RuntimeError):
        return set()


def missing_letters(figure: Figure) -> str:
    """The characters of the texts of a figure that none of their fonts has."""
    from matplotlib.font_manager import FontProperties, findfont
    from matplotlib.text import Text

    found, known = set[str](), dict[tuple[str, ...], set[str]]()
    for text in figure.findobj(Text):
        families = tuple(text.get_fontfamily())
        letters = {letter for letter in text.get_text() if _is_drawn(letter)}
        if letters and families not in known:
            fonts: Sequence[str] = [findfont(FontProperties(family=[family])) for family in families]
            known[families] = set().union(*map(_letters_of, fonts))
        found |= letters - known.get(families, set())
    return "".join(sorted(found))


@contextmanager
def without_glyph_warnings() -> Iterator[None]:
    """Ignore the warnings of matplotlib about missing characters, which are reported in one line instead."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+", category=UserWarning)
        yield
