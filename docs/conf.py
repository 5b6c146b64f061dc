"""How the documentation is built: sphinx-build -W -b html docs docs/_build."""

project = "hashzoo"
author = "the hashzoo developers"
copyright = "the hashzoo developers"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
html_theme = "furo"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
exclude_patterns = ["_build"]
suppress_warnings = ["ref.python"]
