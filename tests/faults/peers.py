"""The damages of test_damaged_files.py on results that joblib.Memory keeps: ``python -m tests.faults.peers``."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import joblib

from tests.faults.test_damaged_files import cut, disordered, flipped

CALLS = [0]


def measured(seed: int) -> dict[str, Any]:
    """A result like a cell's: scores, and how each query fared."""
    CALLS[0] += 1
    return {"map@all": 0.3125, "p@10": 0.1, "per_query": [number / 9 for number in range(9)], "settings": "weight=0.25"}


def main() -> None:
    """Count what comes back: the same result, another one, or an error that ends the program."""
    warnings.simplefilter("ignore")
    logging.disable()  # a traceback a case, of those that it measures anew
    with tempfile.TemporaryDirectory() as folder:
        kept = joblib.Memory(folder, verbose=0).cache(measured)
        was = kept(0)
        (file,) = Path(folder).rglob("output.pkl")
        data, ended = file.read_bytes(), Counter[str]()
        for _, made in [*cut(data, True), *flipped(data, 400), *disordered(data, 100)]:
            file.write_bytes(made)
            before = CALLS[0]
            try:
                found = kept(0)
                what = "measured anew" if CALLS[0] > before else "the same result" if found == was else "another result"
            except Exception as error:
                what = f"an error: {type(error).__name__}"
            ended[what] += 1
            file.parent.mkdir(parents=True, exist_ok=True)
        print(f"joblib {joblib.__version__}, {ended.total()} damaged results:", dict(ended))


if __name__ == "__main__":
    main()
