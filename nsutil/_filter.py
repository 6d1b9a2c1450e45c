"""Filter expressions over namespaces: ``type == 'net' and nprocs > 1``, without eval.

The syntax is that of scols-filter(5), which ``lsns -Q`` takes, and what Python writes for the same::

    or:       and { ("or" | "||") and }
    and:      not { ("and" | "&&") not }
    not:      ("not" | "!") not | test
    test:     value [ operator value ]
    operator: == eq  != ne  < lt  <= le  > gt  >= ge  =~  !~  in  "not in"
    value:    number | string | true | false | none | name | "(" or ")" | "(" value "," ... ")"

A number may end in K, M, G, T, P or E (powers of 1024). A string has no escapes; it ends at the quote that began it.
Names are the fields of NamespaceInfo or lsns's columns, in any case. ``owner`` and ``parent`` are inode numbers,
``holders`` the kinds of the holders. What is not there (None) is unequal to all else and in no order.
"""

from __future__ import annotations

import operator
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn, TypeAlias

    from ._snapshot import NamespaceInfo

    Value: TypeAlias = Any
    Getter: TypeAlias = Callable[[NamespaceInfo], Value]

_DEPTH = 60  # nested parentheses and negations: far more than anyone writes, far less than the stack

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<number>\d+(?:\.\d+)?)(?:(?P<unit>[KMGTPE])(?:iB)?)?(?![\w.])
    | (?P<string>"[^"]*"|'[^']*')
    | (?P<name>[A-Za-z_]\w*)
    | (?P<symbol>==|!=|<=|>=|=~|!~|&&|\|\||[<>!(),])
    | (?P<end>$)
    )""",
    re.VERBOSE,
)
_WORDS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "and": "&&", "or": "||", "not": "!"}
_CONSTANTS = {"true": True, "false": False, "none": None, "null": None}
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def _inode(info: NamespaceInfo | None) -> int | None:
    return None if info is None else info.inode


_FIELDS: dict[str, Getter] = {
    "type": lambda info: str(info.type),
    "inode": lambda info: info.inode,
    "device": lambda info: info.device,
    "id": lambda info: info.id,
    "owner": lambda info: _inode(info.owner),
    "parent": lambda info: _inode(info.parent),
    "owner_uid": lambda info: info.owner_uid,
    "user": lambda info: info.user,
    "nprocs": lambda info: info.nprocs,
    "pid": lambda info: info.pid,
    "ppid": lambda info: info.ppid,
    "command": lambda info: info.command,
    "path": lambda info: info.path,
    "netnsid": lambda info: info.netnsid,
    "nsfs": lambda info: info.nsfs,
    "holders": lambda info: [holder.kind for holder in info.holders],
}
_COLUMNS = {"ns": "inode", "uid": "owner_uid", "ons": "owner", "pns": "parent"}
_NUMBERS = frozenset({"inode", "device", "id", "owner", "parent", "owner_uid", "nprocs", "pid", "ppid"})


def compile_filter(expression: str) -> Callable[[NamespaceInfo], bool]:
    """What decides whether a namespace matches; ValueError with the position of what is wrong."""
    if not isinstance(expression, str):
        raise TypeError(f"a filter must be a string, not {expression!r}")
    test = _Parser(expression).parse()
    return lambda info: bool(test(info))


class _Parser:
    """One token ahead, one method per rule."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = self.start = self.depth = 0
        self.kind = self.token = ""
        self.next()

    def fail(self, problem: str, at: int | None = None) -> NoReturn:
        at = self.start if at is None else at
        shown = self.text if len(self.text) <= 200 else self.text[:199] + "…"
        raise ValueError(f"bad filter {shown!r}: {problem} at position {at}")

    def next(self) -> None:
        match = _TOKEN.match(self.text, self.at)
        if match is None:
            rest = self.text[self.at :]
            self.start = self.at + len(rest) - len(rest.lstrip())
            rest = rest.lstrip()
            self.fail("a string that does not end" if rest[0] in "'\"" else f"cannot read {rest[:10]!r}")
        self.kind = match.lastgroup or ""
        if self.kind == "unit":
            self.kind = "number"
        self.start, self.at = match.start(self.kind), match.end()
        self.token = match[0].strip()
        if self.kind == "name" and self.token.lower() in _WORDS:
            self.kind, self.token = "symbol", _WORDS[self.token.lower()]

    def shown(self) -> str:
        return "the end" if self.kind == "end" else repr(self.token)

    def accept(self, *tokens: str) -> str:
        """The token, and on to the next, if it is one of these."""
        token = self.token.lower() if self.kind == "name" else self.token
        if self.kind not in ("symbol", "name") or token not in tokens:
            return ""
        self.next()
        return token

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > _DEPTH:
            self.fail(f"more than {_DEPTH} levels of nesting")

    def parse(self) -> Getter:
        test = self.any_of()
        if self.kind != "end":
            self.fail(f"expected an operator or the end, found {self.shown()}")
        return test

    def any_of(self) -> Getter:
        tests = [self.all_of()]
        while self.accept("||"):
            tests.append(self.all_of())
        return tests[0] if len(tests) == 1 else lambda info: any(test(info) for test in tests)

    def all_of(self) -> Getter:
        tests = [self.negation()]
        while self.accept("&&"):
            tests.append(self.negation())
        return tests[0] if len(tests) == 1 else lambda info: all(test(info) for test in tests)

    def negation(self) -> Getter:
        if not self.accept("!"):
            return self.test()
        self.deeper()
        test = self.negation()
        self.depth -= 1
        return lambda info: not test(info)

    def test(self) -> Getter:
        left = self.value()
        at = self.start
        if symbol := self.accept(*_ORDER):
            return self.comparison(left, symbol, at)
        if symbol := self.accept("=~", "!~"):
            return self.regex(left, negated=symbol == "!~")
        negated = bool(self.accept("!"))
        if self.accept("in"):
            return _membership(left, self.value(), negated)
        if negated:
            self.fail(f"expected 'in' after 'not', found {self.shown()}")
        return left.get

    def comparison(self, left: _Operand, symbol: str, at: int) -> Getter:
        right = self.value()
        for field, other in ((left, right), (right, left)):
            if field.name in _NUMBERS and isinstance(other.constant, str) and _number(other.constant) is None:
                self.fail(f"{field.name} is a number, {other.constant!r} is not", at)
        if self.kind == "symbol" and self.token in _ORDER:
            self.fail("comparisons cannot be chained: use 'and'")
        return lambda info: _compare(symbol, left.get(info), right.get(info))

    def regex(self, left: _Operand, *, negated: bool) -> Getter:
        at = self.start
        pattern = self.value().constant
        if not isinstance(pattern, str):
            self.fail("expected a string with a regular expression", at)
        try:
            search = re.compile(pattern).search
        except re.error as error:
            self.fail(f"bad regular expression {pattern!r} ({error})", at)
        return lambda info: _matches(search, left.get(info)) is not negated

    def value(self) -> _Operand:
        kind, token, at = self.kind, self.token, self.start
        if self.accept("("):
            return self.group()
        if kind not in ("number", "string", "name"):
            self.fail(f"expected a name, a number or a string, found {self.shown()}")
        self.next()
        if kind == "number":
            return _Operand(constant=_number(token))
        if kind == "string":
            return _Operand(constant=token[1:-1])
        return self.named(token, at)

    def named(self, token: str, at: int) -> _Operand:
        name = token.lower()
        if name in _CONSTANTS:
            return _Operand(constant=_CONSTANTS[name])
        name = _COLUMNS.get(name, name)
        if name not in _FIELDS:
            known = ", ".join(_FIELDS)
            self.fail(f"unknown name {token!r} (a string needs quotes; names are {known})", at)
        return _Operand(name, _FIELDS[name])

    def group(self) -> _Operand:
        """What follows "(": an expression, or constants with commas."""
        self.deeper()
        inner = self.any_of()
        items = [inner]
        single = self.token != ","
        while self.accept(",") and self.token != ")":
            items.append(self.value().get)
        if not self.accept(")"):
            self.fail(f"expected ')', found {self.shown()}")
        self.depth -= 1
        return _Operand(get=inner if single else lambda info: [item(info) for item in items])


class _Operand:
    """A side of a comparison: a field (with its name), a constant, or a parenthesis."""

    __slots__ = ("constant", "get", "name")

    def __init__(self, name: str = "", get: Getter | None = None, constant: Value = None) -> None:
        self.name = name
        self.constant = constant
        self.get: Getter = get or (lambda _: constant)


def _number(text: str) -> int | float | None:
    """The number that a text is, with its unit; None for any other text."""
    match = re.fullmatch(r"(-?\d+)(\.\d+)?(?:([KMGTPE])(?:iB)?)?", text)
    if match is None:
        return None
    scale = 1024 ** ("KMGTPE".index(match[3]) + 1) if match[3] else 1
    return float(match[1] + match[2]) * scale if match[2] else int(match[1]) * scale


def _compare(symbol: str, left: Value, right: Value) -> bool:
    """One comparison; a list matches when one of its items does (for != when none is equal)."""
    if symbol == "!=":
        return not _compare("==", left, right)
    if isinstance(left, list):
        return any(_compare(symbol, item, right) for item in left)
    if isinstance(right, list):
        return any(_compare(symbol, left, item) for item in right)
    if left is None or right is None:
        return symbol == "==" and left is right
    if isinstance(left, str) != isinstance(right, str):
        left, right = (_number(side) if isinstance(side, str) else side for side in (left, right))
    return left is not None and right is not None and _ORDER[symbol](left, right)


def _matches(search: Callable[[str], object], value: Value) -> bool:
    values = value if isinstance(value, list) else [value]
    return any(item is not None and search(str(item)) is not None for item in values)


def _membership(left: _Operand, right: _Operand, negated: bool) -> Getter:
    """``'x' in nsfs``, ``type in ('net', 'uts')``, and part of a text: ``'ssh' in command``."""

    def test(info: NamespaceInfo) -> bool:
        item, group = left.get(info), right.get(info)
        part = isinstance(group, str) and item is not None
        found = str(item) in group if part else _compare("==", group, item)
        return found is not negated

    return test
