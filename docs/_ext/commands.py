"""Commands described by their own help texts, as pages and as manual pages.

``{command} unshare`` shows the help text of ``nsutil unshare``, which is also
what its command line is parsed by, as the sections of a manual page.  Its
first paragraph is the description in one line.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

import nsutil.cli

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sphinx.application import Sphinx

PAGES = Path(__file__).parents[1] / "reference/commands"
# An entry of a list: what is to be typed, and behind two blanks or on the next lines what it does.
_ENTRY = re.compile(r" {2,6}(\S+(?: \S+)*)(?: {2,}(\S.*))?$")
_CONTINUED = re.compile(r" {8,}\S")
_IN_TEXT = re.compile(r"(--[a-z][\w-]*(?:=\w+)?)")
_FOLLOWED = ("Exit status", "Examples")


def commands() -> list[str]:
    """The commands there are; a module of nsutil.cli each."""
    folder = Path(nsutil.cli.__file__).parent
    return sorted(path.stem for path in folder.glob("[a-z]*.py"))


def help_of(command: str) -> str:
    """The help text of a command, of nsutil itself for its own name."""
    module = "nsutil.__main__" if command == "nsutil" else f"nsutil.cli.{command}"
    text: str = importlib.import_module(module).HELP
    return text


def manual_pages(author: str) -> list[tuple[str, str, str, str, int]]:
    """For ``man_pages`` of conf.py: a page for each command that is described."""
    named = [("nsutil", "nsutil"), *((name, f"nsutil-{name}") for name in commands())]
    return [
        (f"reference/commands/{command}", page, _summary(command), author, 1)
        for command, page in named
        if (PAGES / f"{command}.md").exists()
    ]


def _summary(command: str) -> str:
    if command == "nsutil":
        return "make, enter and list Linux namespaces"
    text = re.sub(r"\([^)]*\) ?", "", re.split(r"\n\n+", help_of(command))[1])
    text = " ".join(re.split(r"\.\s|\.$|,|:", text)[0].split())
    return text[:1].lower() + text[1:]


class Command(SphinxDirective):
    """The help text of a command."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        usage, *blocks = re.split(r"\n\n+", help_of(self.arguments[0]).strip())
        synopsis = nodes.literal_block("", usage.removeprefix("Usage: "), language="text")
        found: dict[str, list[nodes.Node]] = {"Synopsis": [synopsis], "Description": [], "Commands": [], "Options": []}
        for block in blocks:
            title, lines = _titled(block.splitlines())
            if title in _FOLLOWED:
                found[title] = [_text(lines) if title == "Exit status" else _literal(lines)]
            elif not title:
                found["Options" if _is_list(lines) else "Description"].append(_body(lines))
            elif title in found:
                found[title].append(_body(lines))
            else:
                found["Options"] += [nodes.rubric("", title), _body(lines)]
        return [self._section(title, body) for title, body in found.items() if body]

    def _section(self, title: str, body: list[nodes.Node]) -> nodes.section:
        ident = nodes.make_id(f"{self.arguments[0]}-{title}")
        section = nodes.section("", nodes.title("", title), *body, ids=[ident], names=[ident])
        self.state.document.note_explicit_target(section)
        return section


def _titled(lines: list[str]) -> tuple[str, list[str]]:
    """The title of a block, which a colon ends or something indented follows, and the rest."""
    for title in _FOLLOWED:
        if lines[0].startswith(f"{title}:"):
            rest = lines[0].removeprefix(f"{title}:")
            return title, [line for line in (rest, *lines[1:]) if line.strip()]
    if len(lines) > 1 and lines[1].startswith(" ") and not lines[0].startswith(" "):
        return lines[0].rstrip(":"), lines[1:]
    return "", lines


def _is_list(lines: list[str]) -> bool:
    return lines[0].startswith("  ")


def _body(lines: list[str]) -> nodes.Node:
    return _list(lines) if _is_list(lines) else _text(lines)


def _text(lines: list[str]) -> nodes.paragraph:
    return nodes.paragraph("", "", *_words(" ".join(line.strip() for line in lines)))


def _literal(lines: list[str]) -> nodes.literal_block:
    return nodes.literal_block("", "\n".join(f"$ {line.strip()}" for line in lines), language="console")


def _list(lines: list[str]) -> nodes.option_list:
    result = nodes.option_list()
    for spellings, text in _entries(lines):
        group = nodes.option_group()
        for spelling in spellings.split(", "):
            group += nodes.option("", nodes.option_string("", spelling))
        result += nodes.option_list_item("", group, nodes.description("", _text([text])))
    return result


def _entries(lines: list[str]) -> list[tuple[str, str]]:
    """Each entry and its text; what follows on lines of its own belongs to the text."""
    found: list[tuple[str, str]] = []
    for line in lines:
        match = None if _CONTINUED.match(line) else _ENTRY.match(line)
        if match:
            found.append((match[1], match[2] or ""))
        elif found:
            entry, text = found[-1]
            found[-1] = entry, f"{text} {line.strip()}".lstrip()
    return found


def _words(text: str) -> Iterator[nodes.Node]:
    """Text, the options in it as code."""
    for number, part in enumerate(_IN_TEXT.split(text)):
        yield nodes.literal("", part) if number % 2 else nodes.Text(part)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("command", Command)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
