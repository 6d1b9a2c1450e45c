"""Command lines as getopt_long(3) reads them; a command's help text is its table.

A line that starts with ``-`` declares an option::

    -f, --fork                no argument
    -S, --setuid UID          an argument, also after the short form
    -m, --mount[=FILE]        the long form may have an argument
    -m[FILE], --mount[=FILE]  the short form too
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NO, MAYBE, YES = range(3)


class UsageError(Exception):
    """A command line that makes no sense; the message gets a pointer to --help."""


class CommandError(Exception):
    """A failure with its message and exit status; no message: it was told already."""

    def __init__(self, message: str | None, status: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


class Finished(Exception):
    """--help and --version: the text to print, and nothing else to do."""


_debug = False


def debug(on: bool = False) -> bool:
    """Whether failures come with a traceback; once switched on it stays so."""
    global _debug
    _debug = _debug or on or os.environ.get("NSUTIL_DEBUG", "0") not in ("", "0")
    return _debug


class Options:
    """Each spelling of a help text's options, with the option's name and kind."""

    def __init__(self, text: str) -> None:
        self.spellings: dict[str, tuple[str, int]] = {"--debug": ("debug", NO)}
        for line in text.splitlines():
            if line.lstrip().startswith("-"):
                self._declare(line.strip().split("  ")[0].split(", "))

    def _declare(self, spellings: list[str]) -> None:
        last, kind = _spelling(spellings[-1])
        for text in spellings:
            spelling, own = _spelling(text)
            self.spellings[spelling] = last.lstrip("-"), YES if kind == YES else own

    def long(self, given: str) -> tuple[str, int]:
        """The option that a long spelling or its unique beginning stands for."""
        if given in self.spellings:
            return self.spellings[given]
        found = [s for s in self.spellings if s.startswith(given) and s.startswith("--") and s != "--debug"]
        if not found:
            raise UsageError(f"unrecognized option '{given}'{_similar(given, self.spellings)}")
        if len({self.spellings[s] for s in found}) > 1:
            raise UsageError(f"option '{given}' is ambiguous; possibilities: {' '.join(map(repr, found))}")
        return self.spellings[found[0]]

    def short(self, letter: str) -> tuple[str, int]:
        """The option behind a letter."""
        try:
            return self.spellings[f"-{letter}"]
        except KeyError:
            raise UsageError(f"invalid option -- '{letter}'") from None


def _spelling(text: str) -> tuple[str, int]:
    """``--mount[=FILE]`` as ("--mount", MAYBE)."""
    name, space, _ = text.partition(" ")
    name, bracket, _ = name.partition("[")
    return name, MAYBE if bracket else YES if space else NO


def _similar(given: str, known: dict[str, tuple[str, int]]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(given, known, 1)
    return f"; did you mean '{close[0]}'?" if close else ""


class Arguments:
    """The options of a command line in order, then ``.rest``; ``.ended``: by a "--".

    ``permute``: options may follow arguments; without it the first argument
    ends them, since what follows is another program's command line.
    """

    def __init__(self, help_text: str, argv: list[str], permute: bool = False) -> None:
        self.help = help_text
        self.options = Options(help_text)
        self.argv = list(argv)
        self.rest: list[str] = []
        self.ended = False
        self.permute = permute and "POSIXLY_CORRECT" not in os.environ

    def __iter__(self) -> Iterator[tuple[str, str | None]]:
        for name, value in self._raw():
            if name == "help":
                raise Finished(self.help)
            if name == "version":
                from .. import __version__

                raise Finished(f"nsutil {__version__}\n")
            if name == "debug":
                debug(True)
            else:
                yield name, value

    def take_all(self, take: Callable[[str, str | None], None]) -> None:
        """Each option to ``take``; an argument is misuse."""
        for name, value in self:
            take(name, value)
        if self.rest:
            raise UsageError(f"unexpected argument '{self.rest[0]}'")

    def _raw(self) -> Iterator[tuple[str, str | None]]:
        while self.argv:
            word = self.argv.pop(0)
            if word == "--":
                self.ended = True
                break
            if word.startswith("--"):
                yield self._long(word)
            elif word.startswith("-") and word != "-":
                yield from self._shorts(word[1:])
            else:
                self.rest.append(word)
                if not self.permute:
                    break
        self.rest += self.argv

    def _long(self, word: str) -> tuple[str, str | None]:
        given, equals, value = word.partition("=")
        name, kind = self.options.long(given)
        if equals:
            if kind == NO:
                raise UsageError(f"option '--{name}' doesn't allow an argument")
            return name, value
        if kind != YES:
            return name, None
        if not self.argv:
            raise UsageError(f"option '--{name}' requires an argument")
        return name, self.argv.pop(0)

    def _shorts(self, letters: str) -> Iterator[tuple[str, str | None]]:
        while letters:
            letter, letters = letters[0], letters[1:]
            name, kind = self.options.short(letter)
            if kind == NO:
                yield name, None
                continue
            if not letters and kind == YES:
                if not self.argv:
                    raise UsageError(f"option requires an argument -- '{letter}'")
                letters = self.argv.pop(0)
                yield name, letters
                return
            yield name, letters or None
            return


def unsigned(text: str | None, what: str, limit: int = 2**32 - 1) -> int:
    """A decimal number between 0 and ``limit``."""
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 4000 or int(text) > limit:
        raise CommandError(f"failed to parse {what}: '{text}'")
    return int(text)


def signed(text: str | None, what: str) -> int:
    """A decimal number that may be negative."""
    digits = (text or "").removeprefix("-").removeprefix("+")
    if text is None or not digits.isascii() or not digits.isdigit() or len(digits) > 18:
        raise CommandError(f"failed to parse {what}: '{text}'")
    return int(text)


# ------------------------------------------------------------------ errors


def report(prog: str, error: BaseException) -> int:
    """Tell an error on stderr, in one line; the exit status that goes with it."""
    if isinstance(error, CommandError) and error.message is None:
        return error.status
    if debug():
        import traceback

        traceback.print_exception(error)
    text = f"{prog}: {' '.join(describe(error).split())}"
    if isinstance(error, UsageError):
        text += f"; see '{prog} --help'"
    if sys.stderr is not None:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    return error.status if isinstance(error, CommandError) else 1


def describe(error: BaseException) -> str:
    """What failed, on what, and why; for a failed step with its likely reason."""
    if isinstance(error, (CommandError, UsageError)):
        return str(error)
    if isinstance(error, OSError) and error.errno is not None:
        return _describe_os_error(error)
    if isinstance(error, (OSError, ValueError, RuntimeError)):
        return str(error)
    return f"internal error: {type(error).__name__}: {error} (--debug shows where)"


def _describe_os_error(error: OSError) -> str:
    step, hint = getattr(error, "step", None), getattr(error, "hint", None)
    name = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else error.filename
    reason = os.strerror(error.errno or 0) if step else error.strerror
    subject = [str(part) for part in (step, name) if part is not None]
    if step and name is not None and str(name) in step:
        subject.pop()
    return ": ".join([*subject, str(reason)]) + (f" ({hint})" if hint else "")
