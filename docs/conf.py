"""How the documentation is built: sphinx-build -W -b html docs docs/_build."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
os.environ["HASHZOO_PLUGINS"] = "off"  # the pages are of the built-in methods

import method_pages  # noqa: E402
import module_page  # noqa: E402

from hashzoo.registry import zoo  # noqa: E402

method_pages.write(zoo.load_plugins(), HERE / "methods", HERE.parent / "results")
module_page.write(HERE.parent / "hashzoo", HERE / "modules.md", module_page.rooms(HERE / "architecture.md"))

project = "hashzoo"
author = "the hashzoo developers"
copyright = "the hashzoo developers"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx_click"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
html_theme = "furo"
smartquotes = False  # in a formula ' is a transpose and -- no dash
autodoc_member_order = "bysource"
autodoc_typehints = "description"
napoleon_numpy_docstring = False
exclude_patterns = ["_build"]
suppress_warnings = ["ref.python"]
