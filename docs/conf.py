"""Sphinx settings: ``make docs`` builds the pages, the notebooks executed, with warnings as errors."""

from __future__ import annotations

import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path.insert(0, str(DOCS / "_ext"))
# `python -m sphinx` puts the checkout first, where a package that was not compiled would hide the installed one.
if not list((ROOT / "nsutil").glob("_ns.*.so")):
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != ROOT]

from commands import manual_pages  # noqa: E402

import nsutil  # noqa: E402
import nsutil._ns  # noqa: E402 - without it there is nothing to document
from nsutil._probe import Facts  # noqa: E402

project = "nsutil"
author = "The nsutil authors"
copyright = author
version = release = nsutil.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx_copybutton",
    "sphinx_design",
    "commands",
    "incidents",
    "links",
    "options",
    "signatures",
]
exclude_patterns = ["_build", "**.ipynb_checkpoints", "explanation/performance_table.md"]
suppress_warnings = ["config.cache"]
nitpicky = True
smartquotes = False  # -- is two hyphens here
# Names of type checkers and of private modules; their words in the text say what is meant.
nitpick_ignore_regex = [("py:.*", r"(nsutil\.)?_\w+(\..*)?"), ("py:class", r"[A-Z]\w*(\.(args|kwargs))?|optional|func")]

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist", "substitution", "attrs_inline"]
myst_heading_anchors = 3
myst_links_external_new_tab = False

# The notebooks make namespaces, mounts and networks.
nb_execution_mode = "off" if Facts().lacks("CAP_SYS_ADMIN") else "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_use_type_comments = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
add_module_names = False

html_theme = "furo"
html_title = "nsutil"
html_static_path = ["_static"]
html_css_files = ["nsutil.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {
    "navigation_with_keys": True,
    "light_css_variables": {"color-brand-primary": "#0b5c8a", "color-brand-content": "#0b5c8a"},
    "dark_css_variables": {"color-brand-primary": "#6cb8e6", "color-brand-content": "#6cb8e6"},
}
pygments_style = "default"
pygments_dark_style = "github-dark"
copybutton_prompt_text = r"\$ |# |>>> |\.\.\. "
copybutton_prompt_is_regexp = True
copybutton_exclude = ".linenos, .gp, .go"

man_pages = manual_pages(author)
man_show_urls = False
