"""Tables as libsmartcols prints them: columns, trees, raw and JSON."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any


class Column:
    """A column: its heading, how wide it is at least where its cells reach the
    heading's width (``hint``), and what its cells are.

    ``array``: a cell of several texts is an array in JSON, not one text.
    """

    __slots__ = ("array", "help", "hint", "name", "number", "right", "shrinks")

    def __init__(
        self,
        name: str,
        text: str,
        hint: int = 0,
        right: bool = False,
        number: bool = False,
        shrinks: bool = False,
        array: bool = False,
    ) -> None:
        self.name = name
        self.array = array
        self.help = text
        self.hint = hint
        self.right = right
        self.number = number
        self.shrinks = shrinks


class Line:
    """A row, one cell for each column, and the rows below it in a tree.

    A cell is a text, a number, None, or a list of texts for a line each.
    """

    __slots__ = ("cells", "children")

    def __init__(self, cells: Sequence[Any]) -> None:
        self.cells = cells
        self.children: list[Line] = []


class Table:
    """Rows to print.  ``tree``: the index of the column that shows the tree, or None."""

    def __init__(self, columns: Sequence[Column], roots: list[Line], tree: int | None) -> None:
        self.columns = columns
        self.roots = roots
        self.tree = tree

    def _walk(self) -> Iterator[tuple[Line, str, str]]:
        """Each row with the lines of the tree before its first and its further text lines."""
        fork, last, bar, blank = ("├─", "└─", "│ ", "  ") if utf8() else ("|-", "`-", "| ", "  ")
        waiting = [(root, "", "", "") for root in reversed(self.roots)]
        while waiting:
            line, above, first, rest = waiting.pop()
            yield line, above + first, above + rest + (bar if line.children else "")
            below = above + rest
            for index in range(len(line.children) - 1, -1, -1):
                end = index == len(line.children) - 1
                waiting.append((line.children[index], below, last if end else fork, blank if end else bar))

    def _texts(self, wrap: bool = True) -> list[list[list[str]]]:
        """For each row its cells, each as lines of text, the tree drawn."""
        rows = []
        for line, first, rest in self._walk():
            row = [_lines(cell, wrap) for cell in line.cells]
            if self.tree is not None:
                height = max(map(len, row))
                texts = row[self.tree] + [""] * (height - len(row[self.tree]))
                row[self.tree] = [(rest if number else first) + text for number, text in enumerate(texts)]
            rows.append(row)
        return rows

    # ---------------------------------------------------------------- output

    def show(self, headings: bool = True, terminal: int | None = None) -> Iterator[str]:
        """The lines for people; ``terminal``: how wide it is, where the text is to be made to fit."""
        rows = self._texts()
        widths = [self._width(index, rows) for index in range(len(self.columns))]
        if terminal is not None:
            self._shrink(widths, terminal)
        if headings:
            yield self._text_line([column.name for column in self.columns], widths)
        for cells in rows:
            for number in range(max(map(len, cells))):
                yield self._text_line([cell[number] if number < len(cell) else "" for cell in cells], widths)

    def _width(self, index: int, rows: list[list[list[str]]]) -> int:
        column = self.columns[index]
        data = max((display_width(text) for row in rows for text in row[index]), default=0)
        heading = len(column.name)
        return heading if data < heading else max(data, column.hint)

    def _shrink(self, widths: list[int], terminal: int) -> None:
        """Take what is too much from the columns that may be cut, down to their headings."""
        for index in range(len(widths) - 1, -1, -1):
            column, excess = self.columns[index], sum(widths) + len(widths) - 1 - terminal
            if column.shrinks and excess > 0:
                widths[index] = max(len(column.name), widths[index] - excess)

    def _text_line(self, cells: Sequence[str], widths: Sequence[int]) -> str:
        parts = []
        for index, (column, cell, width) in enumerate(zip(self.columns, cells, widths, strict=True)):
            text = _cut(cell, width) if column.shrinks else cell
            padding = " " * (width - display_width(text))
            if index == len(widths) - 1 and (not text or not column.right or index == self.tree):
                parts.append(text)
            else:
                parts.append(padding + text if column.right and index != self.tree else text + padding)
        return " ".join(parts)

    def raw(self, headings: bool = True) -> Iterator[str]:
        """One row a line, cells by spaces, every other blank or odd byte as \\xNN."""
        if headings:
            yield " ".join(column.name for column in self.columns)
        for row in self._texts(wrap=False):
            yield " ".join(_escape_blank(cell[0]) for cell in row)

    def json(self, name: str) -> Iterator[str]:
        """An object with the rows below ``name``, by the columns' names in small letters."""
        yield "{"
        yield f'   "{name}": ['
        if self.roots:
            yield from _json_lines(self.columns, self.roots, "      ")
        else:
            yield ""
        yield "   ]"
        yield "}"


def _json_lines(columns: Sequence[Column], lines: list[Line], indent: str) -> Iterator[str]:
    from json import dumps

    yield indent + "{"
    for number, line in enumerate(lines):
        if number:
            yield indent + "},{"
        for index, (column, cell) in enumerate(zip(columns, line.cells, strict=True)):
            text = _harmless(dumps(_plain(column, cell), ensure_ascii=False))
            comma = "," if index < len(columns) - 1 or line.children else ""
            yield f'{indent}   "{column.name.lower()}": {text}{comma}'
        if line.children:
            yield f'{indent}   "children": ['
            yield from _json_lines(columns, line.children, indent + "      ")
            yield f"{indent}   ]"
    yield indent + "}"


def _harmless(text: str) -> str:
    """JSON in which what could steer a terminal is escaped; json.dumps() does so with ASCII alone."""
    if text.isascii() or text.isprintable():
        return text
    from json import dumps

    return "".join(c if c.isprintable() or "\ud800" <= c <= "\udfff" else dumps(c)[1:-1] for c in text)


def _plain(column: Column, cell: Any) -> Any:
    """A cell as JSON has it; nothing is null."""
    if isinstance(cell, list) and not column.array:
        cell = "\n".join(cell)
    return None if cell == "" else cell


def utf8() -> bool:
    """Whether the user's locale can show line-drawing characters."""
    from ._program import environment

    env = environment()
    locale = env.get(b"LC_ALL") or env.get(b"LC_CTYPE") or env.get(b"LANG") or b""
    return b"utf-8" in locale.lower() or b"utf8" in locale.lower()


def terminal_width() -> int | None:
    """The width of the terminal that standard output is, or None."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None
    except (OSError, ValueError, AttributeError):
        return None


def display_width(text: str) -> int:
    """The columns that a text takes on a terminal."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def _cut(text: str, width: int) -> str:
    while display_width(text) > width:
        text = text[:-1]
    return text


def printable(text: str) -> str:
    """Control characters and stray bytes as \\xNN: nothing here may steer the terminal."""
    if text.isascii() and text.isprintable():
        return text
    plain = utf8()
    return "".join(c if c.isprintable() and (plain or c.isascii()) else _hexadecimal(c) for c in text)


def _lines(cell: object, wrap: bool) -> list[str]:
    """The lines of text that a cell stands for; one at least."""
    if isinstance(cell, list):
        return [printable(text) for text in cell] or [""] if wrap else [",".join(cell)]
    text = "" if cell is None else str(cell)
    return [printable(text) if wrap else text]


def _hexadecimal(text: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in text.encode(errors="surrogateescape"))


def _escape_blank(text: str) -> str:
    return "".join(c if "!" <= c <= "~" and c != "\\" else _hexadecimal(c) for c in text)
