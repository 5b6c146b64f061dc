"""How the documentation is built: sphinx-build -n -W -b html docs docs/_build."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
os.environ["HASHZOO_PLUGINS"] = "off"  # the pages are of the built-in methods

import method_pages  # noqa: E402
import module_page  # noqa: E402
from docutils import nodes  # noqa: E402
from sphinx.util.nodes import make_refnode  # noqa: E402

import hashzoo  # noqa: E402
from hashzoo.registry import zoo  # noqa: E402

method_pages.write(zoo.load_plugins(), HERE / "methods", HERE.parent / "results")
module_page.write(HERE.parent / "hashzoo", HERE / "modules.md", module_page.rooms(HERE / "architecture.md"))

project = "hashzoo"
author = "the hashzoo developers"
copyright = "the hashzoo developers"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx_click"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
html_theme = "furo"
smartquotes = False  # in a formula ' is a transpose and -- no dash
autodoc_member_order = "bysource"
autodoc_typehints = "description"
napoleon_numpy_docstring = False
exclude_patterns = ["_build"]
suppress_warnings = ["ref.python"]
nitpicky = True
#: Names of other projects. Their inventories are not fetched, so a build needs no network.
nitpick_ignore_regex = [
    ("py:.*", r"(collections|concurrent|contextlib|datetime|enum|os|pathlib|types|typing)\..*"),
    ("py:.*", r"(click|matplotlib|nn|np|numpy|pandas|PIL|pluggy|pydantic|torch)\..*"),
    ("py:.*", "Figure|Matrix|NDArray|Path|Tensor"),
    ("py:.*", r"annotated_types\..*|FieldInfo|[GL]e|[gl]e=.*|(annotation|required|metadata)=.*"),  # inside Annotated
    ("py:.*", r"hashzoo\.bench\.benchmark_file\.Benchmark|Benchmark"),  # the page on benchmark files describes it
    ("py:.*", r"hashzoo\.retrieval\.index_writer\.\w+"),  # what a writer takes and returns
    ("py:.*", r"hashzoo\.data\.stored_images\.\w+"),  # images in tables, of hashzoo encode
    ("py:.*", r"hashzoo\.api\.watch\.Screen"),  # of the command line
    ("py:.*", r"hashzoo\.results\.tuned\.\w+"),  # the content of a file that has a page
]


def resolve_short_name(app, env, node, content):
    """The target of a name as ``hashzoo`` exports it, or of one that a docstring gives without its module."""
    if node.get("refdomain") != "py":
        return None
    domain = env.get_domain("py")
    name = node["reftarget"].removeprefix("hashzoo.")
    if name in hashzoo.__all__:
        name = f"{getattr(getattr(hashzoo, name), '__module__', 'hashzoo')}.{name}"
    found = [item for item in domain.find_obj(env, None, None, name, None, 1) if not item[1].aliased]
    if len(found) != 1:
        return None
    (full, entry) = found[0]
    return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, content, full)


def unlink_names(app, doctree):
    """Leave names such as map@all as text: the parser takes them for addresses of mail."""
    for link in list(doctree.findall(nodes.reference)):
        if link.get("refuri", "").startswith("mailto:"):
            link.replace_self(nodes.Text(link.astext()))


def setup(app):
    app.connect("doctree-read", unlink_names)
    app.connect("missing-reference", resolve_short_name)
