"""Imported last by the server that cells are forked from: its objects are nobody's garbage.

Without, the collector of each cell walks through all that the server has loaded, and a page that it looks at is a
page copied: a third of a second a collection.
"""

from __future__ import annotations

import atexit
import gc

gc.collect()
gc.freeze()
atexit.register(gc.unfreeze)  # libraries that look for what leaked when the server ends would find all of it
