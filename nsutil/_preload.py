"""Modules that are otherwise loaded when they are first needed, loaded before a thread or a function goes in.

Python looks for modules where it is: in somebody else's mount namespace, or
below a root directory, whatever lies on ``sys.path`` there would be loaded and
run as a part of this process.
"""

from __future__ import annotations

from ._types import MNT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._recipe import Namespace

# All that the modules of this package import anywhere (a test compares), but for concurrent.futures.process, which
# takes as long as all others: an executor whose worker has died needs it.
_OTHERS = (
    "array collections concurrent.futures.thread contextlib contextvars enum errno fcntl functools gc grp html"
    " importlib inspect itertools json linecache math operator pickle pwd re resource select shutil signal socket stat"
    " struct subprocess threading time traceback typing warnings"
).split()
_OWN = (
    "_blocks _call _case _causes _causes_mount _checks _command _compile _create _errors _executor _facts _file"
    " _filter _fork _forkserver _handle _html _idmap _mapper _mountinfo _mounts _name_makers _names _netnsid _nsset"
    " _options _outcome _pidns _plan _privilege _probe _process _recipe _reference _snapshot _spawn _status _target"
    " _thread _tree _types _value doctor ioctl named"
).split()


# A frame of a traceback, of a group too, that no line of source follows.
_FRAME = r'^(([ |]*  )File "(.+)", line ([0-9]+), in .*)$(?!\n\2  )'


def among_other_files(recipe: Namespace) -> bool:
    """Whether what is inside sees other files than this process, somebody else's perhaps."""
    return bool(recipe.joined & MNT or recipe.root is not None or recipe.mounts)


def preload(done: list[bool] = []) -> None:  # noqa: B006 - that is its memory
    """Load every module that nsutil may need inside.  Those who import more there say so themselves."""
    if done:
        return
    from importlib import import_module

    for name in _OTHERS:
        import_module(name)
    for name in _OWN:
        import_module(f"{__package__}.{name}")
    _load_what_errors_need()
    done.append(True)


def _load_what_errors_need() -> None:
    """It differs between the versions of Python."""
    import traceback

    try:
        raise OSError("\N{CJK UNIFIED IDEOGRAPH-540D}")
    except OSError as error:
        traceback.format_exception(error)


def keep_to_known_sources(done: list[bool] = []) -> None:  # noqa: B006
    """In a child inside: tracebacks show no line of a file that was not read outside.

    Of a file inside the text is somebody else's, and may name a codec that
    would be loaded, and run, from there.  See add_sources().
    """
    if done:
        return
    import linecache

    linecache.updatecache = _nothing_new
    linecache.checkcache = _nothing_dropped
    done.append(True)


def _nothing_new(*_: object, **__: object) -> list[str]:
    return []


def _nothing_dropped(*_: object, **__: object) -> None:
    pass


def add_sources(text: str) -> str:
    """A traceback with the lines of the source files as they are here, where it has none."""
    import linecache
    import re

    def with_source(frame: re.Match[str]) -> str:
        source = linecache.getline(frame[3], int(frame[4])).strip()
        return f"{frame[1]}\n{frame[2]}  {source}" if source else frame[0]

    return re.sub(_FRAME, with_source, text, flags=re.MULTILINE)
