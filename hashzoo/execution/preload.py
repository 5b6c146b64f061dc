"""The last module that the fork server imports: what each cell would do again, done once before it is forked.

A function is compiled, for which numba reads its tables for half a second. The garbage collector is frozen so that
forked children share pages: otherwise the collector of each cell visits every object of the fork server, which copies
its pages, for a third of a second for each collection.
"""

from __future__ import annotations

import atexit
import gc
from contextlib import suppress


def _one() -> int:
    return 1


with suppress(ImportError):
    import numba

    numba.njit(_one)()  # not a parallel function: its threads would not survive the fork

gc.collect()
gc.freeze()
atexit.register(gc.unfreeze)  # libraries that look for leaks at exit would report every frozen object
