"""Names of classes that are hard to tell apart."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad"))


def similar_names(names: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of different names that differ only by case, blanks, Unicode normalization, or as 1 and 1.0 do.

    Args:
        names: The names; repeated ones count once.

    Returns:
        Each name that is like an earlier one, after that one.

    >>> similar_names(["dog", "cat", "Dog", "1", "1.0", "hot dog", "hot  dog"])
    [('dog', 'Dog'), ('1', '1.0'), ('hot dog', 'hot  dog')]
    """
    first: dict[str, str] = {}
    pairs = []
    for name in dict.fromkeys(names):
        plain = _plain(name)
        if plain in first:
            pairs.append((first[plain], name))
        first.setdefault(plain, name)
    return pairs


def _plain(name: str) -> str:
    text = unicodedata.normalize("NFKC", name).translate(_INVISIBLE).casefold()
    text = " ".join(unicodedata.normalize("NFKC", text).split())
    try:
        number = float(text)
    except ValueError:
        return text
    return f"number {number!r}" if number == number and abs(number) < 2**53 else text
