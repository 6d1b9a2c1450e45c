"""Commands described by their own help texts.

``{command} unshare`` shows the help text of ``nsutil unshare``, which is
also what its command line is parsed by, as sections with lists of options.
"""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sphinx.application import Sphinx

_IN_TEXT = re.compile(r"(--[a-z][\w-]*(?:=\w+)?)")
_OPTION = re.compile(r"  +(-\S.*?)(?:  +(\S.*))?$")


def help_of(command: str) -> str:
    """The help text of a command, of nsutil itself for an empty name."""
    module = "nsutil.__main__" if command == "nsutil" else f"nsutil.cli.{command}"
    text: str = importlib.import_module(module).HELP
    return text


class Command(SphinxDirective):
    """The help text of a command."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        usage, *blocks = re.split(r"\n\n+", help_of(self.arguments[0]).strip())
        found: list[nodes.Node] = [nodes.literal_block("", usage.removeprefix("Usage: "), language="text")]
        for block in blocks:
            found += self._block(block.splitlines())
        return found

    def _block(self, lines: list[str]) -> Iterator[nodes.Node]:
        """Text, or a title line with what is indented below it."""
        if len(lines) > 1 and (lines[1].startswith(" ") and not lines[0].startswith(" ")):
            yield nodes.rubric("", lines[0].rstrip(":"))
            lines = lines[1:]
        if any(_OPTION.match(line) for line in lines):
            yield _options(lines)
        elif all(line.startswith(" ") for line in lines):
            yield nodes.literal_block("", "\n".join(line[2:] for line in lines), language="text")
        else:
            yield nodes.paragraph("", "", *_words(" ".join(line.strip() for line in lines)))


def _options(lines: list[str]) -> nodes.option_list:
    result = nodes.option_list()
    for spellings, text in _pairs(lines):
        group = nodes.option_group()
        for spelling in spellings.split(", "):
            group += nodes.option("", nodes.option_string("", spelling))
        paragraph = nodes.paragraph("", "", *_words(text))
        result += nodes.option_list_item("", group, nodes.description("", paragraph))
    return result


def _pairs(lines: list[str]) -> list[tuple[str, str]]:
    """Each option's spellings and text; what follows on lines of its own belongs to the text."""
    found: list[tuple[str, str]] = []
    for line in lines:
        match = _OPTION.match(line)
        if match:
            found.append((match[1], match[2] or ""))
        elif found:
            spellings, text = found[-1]
            found[-1] = spellings, f"{text} {line.strip()}".lstrip()
    return found


def _words(text: str) -> Iterator[nodes.Node]:
    """Text, the options in it as code."""
    for number, part in enumerate(_IN_TEXT.split(text)):
        yield nodes.literal("", part) if number % 2 else nodes.Text(part)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("command", Command)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
