"""Links without a network: manual pages by their usual spelling, Python's own names by the layout of its docs."""

from __future__ import annotations

import builtins
import re
import sys
from typing import TYPE_CHECKING

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

if TYPE_CHECKING:
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

MANUAL = "https://man7.org/linux/man-pages/man{section}/{page}.{section}.html"
PYTHON = "https://docs.python.org/3/library/{page}.html#{name}"
# unshare(2), proc_pid_ns(5), ip-netns(8)
_PAGE = re.compile(r"(?<![\w.-])([a-z][a-z0-9_.+-]*)\(([1-8])\)")
# Own pages, and pages that are not at that address.
_NOT_THERE = re.compile(r"nsutil.*|os\..*|range|conmon")
_KEEP = (nodes.reference, nodes.literal, nodes.literal_block, nodes.title, nodes.raw)


class ManualPages(SphinxPostTransform):
    """Each unshare(2) in running text becomes a link."""

    default_priority = 300
    formats = ("html", "dirhtml", "singlehtml", "epub")

    def run(self, **kwargs: object) -> None:
        for text in list(self.document.findall(nodes.Text)):
            if _PAGE.search(text) and not any(isinstance(above, _KEEP) for above in _above(text)):
                text.parent.replace(text, list(_split(text.astext())))


class OwnPages(SphinxPostTransform):
    """A manual page has no address of a page beside it: what is linked stays as text."""

    default_priority = 300
    formats = ("man",)

    def run(self, **kwargs: object) -> None:
        for reference in list(self.document.findall(nodes.reference)):
            if not reference.get("refuri"):
                reference.replace_self(reference.children)


def _above(node: nodes.Node) -> list[nodes.Node]:
    found = []
    while node.parent is not None:
        node = node.parent
        found.append(node)
    return found


def _split(text: str) -> list[nodes.Node]:
    parts: list[nodes.Node] = []
    at = 0
    for match in _PAGE.finditer(text):
        page, section = match.groups()
        if _NOT_THERE.fullmatch(page):
            continue
        parts.append(nodes.Text(text[at : match.start()]))
        uri = MANUAL.format(page=page, section=section)
        parts.append(nodes.reference("", match[0], internal=False, refuri=uri))
        at = match.end()
    return [*parts, nodes.Text(text[at:])]


def find_in_python(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.reference | None:
    """The page of the standard library that describes a name."""
    if node.get("refdomain") != "py":
        return None
    name = node["reftarget"]
    page = _page_of(name)
    if page is None:
        return None
    return nodes.reference("", "", content, internal=False, refuri=PYTHON.format(page=page, name=name))


def _page_of(name: str) -> str | None:
    first, _, rest = name.partition(".")
    value = getattr(builtins, first, None)
    if value is not None and not rest:
        if isinstance(value, type) and issubclass(value, BaseException):
            return "exceptions"
        return "stdtypes" if name in ("int", "str", "bytes", "list", "dict", "tuple", "set") else "functions"
    if name in ("None", "True", "False"):
        return "constants"
    parts = name.split(".")
    for end in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:end])
        if module in sys.stdlib_module_names or module in ("concurrent.futures", "collections.abc"):
            return {"asyncio": "asyncio-subprocess"}.get(module, module)
    return None


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_post_transform(ManualPages)
    app.add_post_transform(OwnPages)
    app.connect("missing-reference", find_in_python)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
