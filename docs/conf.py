"""The documentation site, built by ``nox -s docs``: these pages, the packages' READMEs as their guides, and their docstrings."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path
from types import BuiltinMethodType, FunctionType, GetSetDescriptorType, MethodDescriptorType

from sphinx.application import Sphinx
from sphinx.domains.python import PyObject
from sphinx.ext.napoleon import GoogleDocstring

import evloop

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("evloop", "evnet", "evhttp", "evws", "evmulti")

project = "evloop, evnet, evhttp, evws, evmulti"
author = "The evloop authors"
release = version = evloop.__version__
copyright = author
html_title = "evloop … evmulti"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_static_path = ["images", "site.css"]
html_css_files = ["site.css"]
html_show_sphinx = False
pygments_style = "friendly"
pygments_dark_style = "github-dark"
suppress_warnings = ["myst.header"]  # a README that is included begins at its second level

# The house writes references in docstrings as `name`; what is no object is shown as code.
default_role = "py:obj"
add_module_names = False
toc_object_entries_show_parents = "hide"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_class_signature = "mixed"
autodoc_default_options = {"members": True, "inherited-members": True}
napoleon_google_docstring = napoleon_numpy_docstring = False  # see google_docstring
napoleon_attr_annotations = False
napoleon_use_ivar = True
napoleon_use_rtype = False
maximum_signature_line_length = 100

myst_heading_anchors = 3
myst_enable_extensions = ["attrs_block"]


def include_readme(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put a package's README below the title of the page ``guides/<package>``, with its links turned to this site's pages."""
    package = docname.removeprefix("guides/")
    if package == docname or package not in PACKAGES:
        return
    text = (ROOT / "packages" / package / "README.md").read_text(encoding="utf-8")
    text = text.partition("\n")[2]  # the page has the title
    source[0] += re.sub(r"\]\(([^)#:]+)\)", lambda found: f"]({_link(found[1])})", text)


def _link(target: str) -> str:
    """What a README's link to something in the repository becomes; what is not on the site is named by its folder only."""
    package = target.removeprefix("../").removesuffix("/README.md")
    return f"{package}.md" if package in PACKAGES else "../contributing.md#the-repository"


FOREIGN = (BuiltinMethodType, GetSetDescriptorType, MethodDescriptorType)


def skip_foreign(app: Sphinx, what: str, name: str, item: object, skip: bool, options: object) -> bool | None:
    """Leave out what others have defined, as methods of exceptions and numbers, and fields of named tuples; keep enum members."""
    if isinstance(item, Enum):
        return False
    if isinstance(item, FOREIGN) or type(item).__name__ == "_tuplegetter":
        return True
    if isinstance(item, FunctionType) and item.__module__.partition(".")[0] not in PACKAGES:
        return True
    return None


def google_docstring(app: Sphinx, what: str, name: str, item: object, options: object, lines: list[str]) -> None:
    """Read a docstring as Google's style has it; but what stands before a colon in that of a property is not its type."""
    what = "method" if what in ("property", "attribute", "data") else what
    lines[:] = GoogleDocstring(lines, app.config, app, what, name, item, options).lines()


def setup(app: Sphinx) -> None:
    """Sphinx calls this."""
    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"  # as the docstrings have it
    app.connect("autodoc-process-docstring", google_docstring)
    app.connect("source-read", include_readme)
    app.connect("autodoc-skip-member", skip_foreign)
