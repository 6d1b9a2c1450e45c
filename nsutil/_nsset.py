"""Several namespaces of different types under one name."""

from __future__ import annotations

from . import _ns
from ._types import NAMES, NSType, parse_type

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any, Self

    from ._handle import NamespaceFile


class _Ending:
    """Something to call once: at the latest when nobody can ask for it any more."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[[], object]) -> None:
        self._call: Callable[[], object] | None = call

    # The modules may be gone when the interpreter ends.
    def end(self, swap: Callable[[object, str, Any], Any] = _ns.swap) -> None:
        call = swap(self, "_call", None)
        if call is not None:
            call()

    __del__ = end


class NamespaceSet:
    """Namespaces by type: ``inside.net``, ``inside[NET]``, ``inside["net"]``, iteration by type name.

    Each is opened when it is first asked for and is valid from then on, until it or the set is
    closed.  A context manager that closes the set.  AttributeError or KeyError for a type that is not
    in it; ValueError when it is closed, or when the block is over and the type was not opened in it.
    """

    def __init__(
        self,
        files: Mapping[NSType, NamespaceFile | Callable[[], NamespaceFile]],
        on_close: Callable[[], object] | None = None,
    ) -> None:
        """files: what is open already, or opens it.  on_close: called once, when the set is closed or dropped."""
        self._files = dict(files)
        # Not a __del__ of this class: every block makes such an object, and would pay for one.
        self._ending = _Ending(on_close) if on_close is not None else None
        self._closed = False

    @property
    def types(self) -> NSType:
        """The types in this set."""
        result = NSType(0)
        for nstype in self._files:
            result |= nstype
        return result

    @property
    def closed(self) -> bool:
        """Whether ``close()`` was called."""
        return self._closed

    def __getitem__(self, type: NSType | int | str) -> NamespaceFile:
        """The namespace of that type; KeyError when there is none, ValueError when the set is closed."""
        nstype = parse_type(type)
        if nstype not in self._files:
            raise KeyError(f"there is no {nstype} namespace here, only {self.types}")
        if self._closed:
            raise ValueError("this set of namespaces is closed")
        file = self._files[nstype]
        return self._opened(nstype, file) if callable(file) else file

    def _opened(self, nstype: NSType, opener: Callable[[], NamespaceFile]) -> NamespaceFile:
        file = opener()
        self._files[nstype] = file
        return file

    def __getattr__(self, name: str) -> NamespaceFile:
        nstype = NAMES.get(name)
        if nstype is None or nstype not in self.__dict__.get("_files", ()):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return self[nstype]

    def __iter__(self) -> Iterator[NamespaceFile]:
        return (self[nstype] for nstype in NAMES.values() if nstype in self._files)

    def __len__(self) -> int:
        return len(self._files)

    def __contains__(self, item: object) -> bool:
        """Whether a type, or that very namespace, is in the set."""
        if isinstance(item, (int, str)):
            return parse_type(item) in self._files
        return any(item == file for file in self)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *(name for name, nstype in NAMES.items() if nstype in self._files)]

    def __repr__(self) -> str:
        return f"<NamespaceSet {self.types}{' closed' if self._closed else ''}>"

    def close(self) -> None:
        """Close the files, once; namespaces that nothing else holds end, nsutil's init included."""
        self._closed = True
        for file in self._files.values():
            if not callable(file):
                file.close()
        if self._ending is not None:
            self._ending.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
