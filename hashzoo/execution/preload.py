"""The last module that the fork server imports: loads what every cell uses, and freezes the garbage collector.

It loads the built-in plugins, and what numba reads before its first call. Forked children share frozen pages. Without
it, the collector of each cell visits every object of the fork server, which copies its pages: a third of a
second for each collection.
"""

from __future__ import annotations

import atexit
import gc
from contextlib import suppress

from hashzoo.execution.processes import keep_freed_memory
from hashzoo.hamming import kernels
from hashzoo.registry.zoo import installed_plugins

for plugin in installed_plugins():
    if not plugin.foreign:  # the code of others runs in the cells only
        with suppress(Exception):  # reported by the process that plans the cells
            plugin.load()
with suppress(Exception):  # each cell tries again
    kernels.prepare()
keep_freed_memory()
gc.collect()
gc.freeze()
atexit.register(gc.unfreeze)  # libraries that look for leaks at exit would report every frozen object
