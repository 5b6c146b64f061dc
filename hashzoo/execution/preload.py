"""The last module that the fork server imports: freezes the garbage collector so that forked children share pages.

Without it, the collector of each cell visits every object of the fork server, which copies its pages: a third of a
second for each collection.
"""

from __future__ import annotations

import atexit
import gc

gc.collect()
gc.freeze()
atexit.register(gc.unfreeze)  # libraries that look for leaks at exit would report every frozen object
