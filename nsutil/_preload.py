"""Modules that are otherwise loaded when they are first needed, loaded before a thread or a function goes in.

Python looks for modules where it is: in somebody else's mount namespace, or
below a root directory, whatever lies on ``sys.path`` there would be loaded and
run as a part of this process.
"""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# All that the modules of this package import anywhere (a test compares), but for concurrent.futures.process, which
# takes as long as all others: an executor whose worker has died needs it.
_OTHERS = (
    "array collections concurrent.futures.thread contextlib contextvars enum errno fcntl functools gc grp html"
    " importlib inspect io itertools json linecache math operator pickle pwd re resource select shutil signal socket"
    " stat struct subprocess threading time traceback typing warnings weakref"
).split()
_OWN = (
    "_blocks _call _case _causes _causes_mount _checks _command _compile _create _errors _executor _facts _file"
    " _filter _fork _forkserver _handle _html _idmap _mapper _mountinfo _mounts _name_makers _names _netnsid _nsset"
    " _options _outcome _pidns _plan _privilege _probe _process _recipe _reference _snapshot _spawn _status _target"
    " _thread _tree _types _value doctor ioctl named"
).split()


# Of one source file, in bytes.
_MOST_SOURCE = 1 << 22
# A frame of a traceback, of a group too, that no line of source follows.
_FRAME = r'^(([ |]*  )File "(.+)", line ([0-9]+), in .*)$(?!\n\2  )'


def preload(done: list[bool] = []) -> None:  # noqa: B006 - that is its memory
    """Load every module that nsutil may need inside.  Those who import more there say so themselves."""
    if done:
        return
    from functools import partial
    from importlib import import_module

    names = *_OTHERS, *(f"{__package__}.{name}" for name in _OWN)
    loads: list[Callable[[], object]] = [partial(import_module, name) for name in names]
    for load in (*loads, _load_what_errors_need):
        try:
            load()
        except ImportError:  # who has become another user may not be able to read it any more
            pass
    done.append(True)


def _load_what_errors_need() -> None:
    """It differs between the versions of Python."""
    import traceback

    try:
        raise OSError("\u540d")
    except OSError as error:
        traceback.format_exception(error)


class _Sources:
    """Answers linecache in a child inside: source files are taken for UTF-8, whatever coding they name.

    Of a file inside the text is somebody else's, and could name a codec that
    would be loaded, and run, from there.  Only what was read outside is in
    linecache's own cache.
    """

    def __init__(self) -> None:
        self.shown = True
        self._read: dict[str, list[str]] = {}

    def lines(self, filename: str, module_globals: dict[str, Any] | None = None) -> list[str]:  # noqa: ARG002
        if not self.shown:
            return []
        if filename not in self._read:
            try:
                self._read[filename] = _text_of(filename).splitlines(keepends=True)
            except (OSError, ValueError):
                return []
        return self._read[filename]

    def keep(self, filename: str | None = None) -> None:
        """What was read outside stays, whatever the file inside looks like."""


_sources = _Sources()


def read_sources_as_text() -> None:
    """In a child inside, for the rest of its life."""
    import linecache

    linecache.updatecache = _sources.lines
    linecache.checkcache = _sources.keep


def without_sources(show: Callable[[], str]) -> str:
    """What show() returns, which in a child inside has no line of a file in there; see add_sources()."""
    _sources.shown = False
    try:
        return show()
    finally:
        _sources.shown = True


def _text_of(filename: str) -> str:
    """Of a regular file; that of anything else is empty, and opening it does not wait."""
    with open(os.open(filename, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return ""
        return file.read(_MOST_SOURCE).decode("utf-8", "replace")


def add_sources(text: str) -> str:
    """A traceback with the lines of the source files as they are here, where it has none."""
    import linecache
    import re

    def with_source(frame: re.Match[str]) -> str:
        source = linecache.getline(frame[3], int(frame[4])).strip()
        return f"{frame[1]}\n{frame[2]}  {source}" if source else frame[0]

    return re.sub(_FRAME, with_source, text, flags=re.MULTILINE)
