"""The recipe: which namespaces, and what is set up in them.

A recipe is checked when it is made and never changes; it can be entered any
number of times, by any number of threads, and travels by pickle.
"""

from __future__ import annotations

from . import _blocks, _ns  # noqa: F401 - C looks for _blocks, perhaps in a chroot
from ._types import MNT, NET, NSType, each, name_of, parse_types

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from concurrent.futures import Executor, Future
    from os import PathLike
    from typing import Any, Literal, ParamSpec, TypeAlias, TypeVar

    from ._compile import ChildPlan
    from ._file import NamespaceSet
    from ._idmap import IdMap
    from ._mounts import Mount
    from ._plan import Steps
    from ._process import Popen
    from ._spawn import Launch
    from ._target import Join
    from ._types import Types

    P = ParamSpec("P")
    R = TypeVar("R")
    MapSpec: TypeAlias = str | IdMap | Sequence[IdMap]

# The defaults, in the order of the signature.
DEFAULTS: dict[str, Any] = {
    "uid_map": None,
    "gid_map": None,
    "setgroups": None,
    "uid": None,
    "gid": None,
    "groups": None,
    "keep_caps": False,
    "ambient": (),
    "bounding": None,
    "no_new_privs": False,
    "hostname": None,
    "domainname": None,
    "loopback": True,
    "monotonic": None,
    "boottime": None,
    "propagation": "private",
    "mounts": (),
    "mount_proc": None,
    "root": None,
    "cwd": None,
    "cgroup": None,
    "rlimits": None,
    "umask": None,
    "init": None,
    "kill_child": None,
    "new_session": False,
    "timeout": None,
    "strict": False,
    "allow_main_mnt": False,
    "env": None,
    "owner": None,
    "etc_netns": False,
}
RECIPE_OPTIONS = frozenset({"new", "enter", *DEFAULTS})

# What is looked up when a recipe is made, and may be another thing next time.
_LOOKED_UP = frozenset({"enter", "uid", "gid"})
# Stored in another form than they are written in: _checks.spelled().
_SPELLED = frozenset({"monotonic", "boottime", "rlimits"})
_PLAIN = frozenset({NSType, int, bool, str, float, type(None)})
_MOST_RECENT = 64
_recent: dict[object, Namespace] = {}
_NOTHING = NSType(0)


class Kept:
    """What was worked out for a recipe and serves all that are equal, too.

    ``block``: for src/block.c; ``steps``: on the way into a block; ``plans``
    and ``launches``: of children, by the ids of their maker.
    """

    __slots__ = ("block", "launches", "plans", "steps")

    def __init__(self) -> None:
        self.block: tuple[_ns.Plan, int, tuple[object, ...], bool, bool] | None = None
        self.steps: Steps | None = None
        self.plans: dict[tuple[int, int] | None, ChildPlan] = {}
        self.launches: dict[tuple[int, int] | None, Launch] = {}


def _key(new: object, options: dict[str, Any]) -> object:
    """By which a recipe is found again; None where that would not do."""
    if type(new) not in _PLAIN or not _LOOKED_UP.isdisjoint(options):
        return None
    items = [(name, type(value), value) for name, value in options.items()]
    return (type(new), new, *items) if all(kind in _PLAIN for _, kind, _ in items) else None


def known(new: Types, options: dict[str, Any]) -> Namespace:
    """A recipe that may be somebody else's, too: for those who only run it."""
    key = new if type(new) is NSType and not options else _key(new, options)
    recipe = _recent.get(key)
    if recipe is None:
        recipe = type.__call__(Namespace, new, **options)
        if key is not None:
            if len(_recent) >= _MOST_RECENT:
                _recent.clear()
            _recent[key] = recipe
    return recipe


class _Maker(type):
    """Makes recipes of those known: a block written out in a loop is then nearly as cheap as one that is kept.

    Each is an object of its own, since blocks are told apart by their recipes.
    """

    if not TYPE_CHECKING:

        def __call__(cls, new=0, **options):
            if cls is not Namespace:
                return super().__call__(new, **options)
            like = known(new, options)
            recipe = _bare(cls)
            _set_new(recipe, like._new)
            _set_joins(recipe, like._joins)
            _set_options(recipe, like._options)
            _set_types(recipe, like._types)
            _set_kept(recipe, like._kept)
            return recipe

        @property
        def __signature__(cls):
            from inspect import signature

            whole = signature(cls.__init__)
            return whole.replace(parameters=list(whole.parameters.values())[1:])


class Namespace(_ns.Block, metaclass=_Maker):
    """Namespaces to make (``new``) and to join (``enter``), with their set-up.

    ``new``: a flag, a name, or an iterable of either.  ``enter``: what ``enter()`` takes as a target,
    or a recipe of it.  Options are described in the reference ("Options").  A recipe never changes,
    compares and hashes by value, pickles, and each option is an attribute of the same name.

    ``with recipe:`` enters on the calling thread and restores at the end; ``@recipe`` does so around
    each call of a function.  Entering raises ValueError for types and options that a block can't undo,
    the OSError of the step that failed, and RestoreError on a thread that could not be restored
    before; leaving raises RestoreError, and RuntimeError out of order, on another thread or after a fork.

    Raises TypeError for values of a wrong type; ValueError for values out of range, unknown names,
    options that need a type which is not new, and contradictions.  Linux 5.4.  Source: namespaces(7).
    """

    __slots__ = ("_joins", "_kept", "_new", "_options", "_types")

    _joins: tuple[Join, ...]
    _kept: Kept
    _new: NSType
    _options: dict[str, Any]
    _types: int

    def __init__(
        self,
        new: Types = 0,
        *,
        enter: object = None,
        uid_map: MapSpec | None = None,
        gid_map: MapSpec | None = None,
        setgroups: Literal["allow", "deny"] | None = None,
        uid: int | str | None = None,
        gid: int | str | None = None,
        groups: Sequence[int | str] | None = None,
        keep_caps: bool = False,
        ambient: Iterable[int | str] | int | str = (),
        bounding: Iterable[int | str] | int | str | None = None,
        no_new_privs: bool = False,
        hostname: str | None = None,
        domainname: str | None = None,
        loopback: bool = True,
        monotonic: float | None = None,
        boottime: float | None = None,
        propagation: Literal["private", "slave", "shared", "unchanged"] = "private",
        mounts: Sequence[Mount] = (),
        mount_proc: bool | str | PathLike[str] | None = None,
        root: str | PathLike[str] | int | bool | None = None,
        cwd: str | PathLike[str] | int | bool | None = None,
        cgroup: str | PathLike[str] | int | None = None,
        rlimits: Mapping[int, tuple[int, int]] | None = None,
        umask: int | None = None,
        init: bool | None = None,
        kill_child: bool | int | str | None = None,
        new_session: bool | int = False,
        timeout: float | None = None,
        strict: bool = False,
        allow_main_mnt: bool = False,
        env: Literal["target"] | None = None,
        owner: tuple[int, int] | None = None,
        etc_netns: bool = False,
    ) -> None:
        given = locals()
        from ._checks import check_options

        # As ip-netns(8): files laid over /etc take a mount namespace of its own.
        _set_new(self, parse_types(new) | (MNT if etc_netns is True else 0))
        _set_joins(self, _joins_of(enter))
        options = {name: given[name] for name, default in DEFAULTS.items() if given[name] is not default}
        _set_options(self, check_options(options, self._new, self._joins))
        _set_types(self, int(self._new | self.joined))
        _set_kept(self, Kept())

    # ------------------------------------------------------------ the value

    @property
    def new(self) -> NSType:
        """The types to make."""
        return self._new

    @property
    def enter(self) -> tuple[Join, ...]:
        """The targets to join, pinned: processes by pidfd, files by descriptor."""
        return self._joins

    @property
    def joined(self) -> NSType:
        """The types to join."""
        bits = 0
        for join in self._joins:
            bits |= int(join.types)
        return NSType(bits)

    @property
    def types(self) -> NSType:
        """All types in which this recipe differs from its caller."""
        return NSType(self._types)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...
    else:

        def __getattr__(self, name):
            if name in _SPELLED and name in self._options:
                return self._keywords()[name]
            if name in DEFAULTS:
                return self._options.get(name, DEFAULTS[name])
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a recipe cannot be changed; use .replace({name}=...)")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a recipe cannot be changed")

    def replace(self, **changes: Any) -> Namespace:
        """A copy with some options changed, ``new`` and ``enter`` among them; errors as Namespace."""
        return Namespace(**{**self._keywords(), **changes})

    def _keywords(self) -> dict[str, Any]:
        from ._checks import spelled

        options = {name: spelled(name, value) for name, value in self._options.items()}
        joins = {"enter": self._joins} if self._joins else {}
        return {"new": self._new, **joins, **options}

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, Namespace) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[object, ...]:
        joined = tuple(sorted(identity for join in self._joins for identity in join.identity))
        return self._new, joined, tuple(sorted(self._options.items(), key=lambda item: item[0]))

    def __reduce__(self) -> tuple[Callable[..., Namespace], tuple[dict[str, Any]]]:
        return _from_keywords, (self._keywords(),)

    def __repr__(self) -> str:
        keywords = self._keywords()
        parts = []
        if keywords.pop("new"):
            parts.append("|".join(name_of(t).upper() for t in each(self._new)))
        if keywords.pop("enter", None):
            shown = [repr(join) for join in self._joins]
            parts.append(f"enter={shown[0] if len(shown) == 1 else '[' + ', '.join(shown) + ']'}")
        parts += [f"{name}={value!r}" for name, value in keywords.items()]
        return f"Namespace({', '.join(parts)})"

    # ------------------------------------------------- with, and decorators

    def _block_steps(self) -> Steps:
        """What a block runs on its way in."""
        kept = self._kept
        if kept.steps is None:
            from ._compile import thread_steps

            kept.steps = thread_steps(self)
        return kept.steps

    def _prepare_block(self) -> tuple[_ns.Plan, int, tuple[object, ...], bool, bool]:
        """For src/block.c: struct prepared, field by field."""
        kept = self._kept
        if kept.block is None:
            from ._checks import check_block

            check_block(self)
            steps = self._block_steps()
            presets = tuple(steps.slots.presets)
            kept.block = steps.plan, self._types, presets, self.strict, self.allow_main_mnt
        return kept.block

    def __call__(self, func: Callable[P, R]) -> Callable[P, R]:
        """Decorate a function: each call of it is a block of this recipe."""
        import functools
        import inspect

        if not callable(func):
            raise TypeError(f"a recipe decorates functions, not {func!r}; to run one now use .call() or .thread()")
        if inspect.iscoroutinefunction(func) or inspect.isgeneratorfunction(func) or inspect.isasyncgenfunction(func):
            raise TypeError(f"{func!r} can be suspended inside a block, which would leak it into other code")

        @functools.wraps(func)
        def in_block(*args: P.args, **kwargs: P.kwargs) -> R:
            with self:
                return func(*args, **kwargs)

        return in_block

    # ------------------------------------------------------- other places

    def run(self, args: Any, **options: Any) -> subprocess.CompletedProcess[Any]:
        """Run a program in these namespaces and wait; options and result as subprocess.run.

        ``timeout`` (seconds, by default the recipe's) ends the whole tree.  Raises
        subprocess.TimeoutExpired, subprocess.CalledProcessError with ``check=True``, FileNotFoundError for
        a missing program, the OSError of a step that failed, and TypeError for recipe options, which belong
        into the recipe.
        """
        from ._process import run_recipe

        return run_recipe(self, args, **options)

    def popen(self, args: Any, **options: Any) -> Popen[Any]:
        """Start a program in these namespaces; options as subprocess.Popen, errors as ``run()``.

        The result is a nsutil.Popen, which is a subprocess.Popen.
        """
        from ._process import spawn_recipe

        return spawn_recipe(self, args, **options)

    def call(self, func: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call ``func(*args, **kwargs)`` in a forked child in these namespaces; its value comes back.

        func and its arguments need no pickling, the value does (protocol 5); it may have any size.
        An exception of func is raised here, the child's traceback as its ``__cause__``; one that
        cannot be pickled is a RuntimeError that names it.  PID 1 of a new PID namespace is nsutil's
        init, unless ``init=False``.  Nothing but func runs in the child: no atexit handlers, and
        threads that it leaves running end with it.

        Raises OSError (with ``step``) for a step of the set-up that failed; ChildDied where func
        ended its process, by a signal, os._exit or SystemExit; TimeoutError after the recipe's
        ``timeout``, when the whole tree has been killed; RuntimeError in a subinterpreter.  From
        Python 3.12 on it warns as os.fork does in a process with several threads.
        """
        from ._call import call_recipe

        return call_recipe(self, func, args, kwargs)

    def thread(self, func: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Call a function on a fresh thread in these namespaces; the result is a Future.

        The thread ends with the function, so new PID and TIME and, in any process, MNT are possible too.
        The context variables are the caller's.  A step that fails is the OSError of the Future.

        Raises ValueError for USER, joined TIME, and options that concern a whole process; TypeError for
        what is no function.
        """
        from ._thread import thread_recipe

        return thread_recipe(self, func, args, kwargs)

    def executor(self, max_workers: int = 1, kind: Literal["process", "thread"] = "process") -> Executor:
        """An executor (concurrent.futures) whose workers live in one set of these namespaces.

        ``kind="process"``: jobs, values and exceptions are pickled.  The first ``submit()`` makes
        the namespaces, and raises OSError where that fails; when a worker dies, its job and all
        later ones get BrokenProcessPool.  No process outlives ``shutdown()`` or this process.
        ``kind="thread"``: threads of this process, for the types of ``thread()``; what fails on the
        way in is the exception of the job.  The recipe's ``timeout`` is not looked at.

        Raises ValueError or TypeError for arguments out of range and recipes that threads cannot do.
        """
        from ._executor import executor_recipe

        return executor_recipe(self, max_workers, kind)

    def create(self) -> NamespaceSet:
        """Make the namespaces and hold them by descriptors, with nobody inside.

        The NamespaceSet that is returned closes them; a new PID namespace has nsutil's init in it until
        then, and ends with it.  Works for all eight types.

        Raises ValueError for options that only a program has, the OSError of a step that failed.
        """
        from ._create import create_recipe

        return create_recipe(self)


# Past Namespace.__setattr__, which refuses.
_bare = _ns.Block.__new__
_set_joins = Namespace._joins.__set__  # type: ignore[attr-defined]
_set_kept = Namespace._kept.__set__  # type: ignore[attr-defined]
_set_new = Namespace._new.__set__  # type: ignore[attr-defined]
_set_options = Namespace._options.__set__  # type: ignore[attr-defined]
_set_types = Namespace._types.__set__  # type: ignore[attr-defined]


def _from_keywords(keywords: dict[str, Any]) -> Namespace:
    return Namespace(**keywords)


def _joins_of(target: object) -> tuple[Join, ...]:
    """What the ``enter`` option stands for: a target, or a recipe of enter()."""
    if target is None:
        return ()
    if isinstance(target, Namespace):
        if target.new:
            raise ValueError(f"enter= takes what exists, and {target!r} makes new namespaces")
        return target.enter
    from ._target import resolve

    if isinstance(target, (list, tuple)):
        return tuple(join for item in target for join in _joins_of(item))
    return tuple(resolve(target))


def enter(
    target: object = None,
    types: Types | None = None,
    *,
    pid: int | None = None,
    pidfd: int | None = None,
    path: str | PathLike[str] | None = None,
    name: str | None = None,
    fd: int | None = None,
    **options: Any,
) -> Namespace:
    """A recipe that joins existing namespaces.

    Exactly one of ``target`` (NamespaceFile, NamespaceSet, Popen, a reference, a pid, a path, or a list
    of these), ``pid``, ``pidfd``, ``path``, ``name`` (of a named namespace, NET unless ``types`` says
    else) and ``fd`` is given.  ``types=None`` takes every type in which the target differs from the
    caller.  Other options are those of Namespace.  Targets are pinned at once: when a process has
    ended, using the recipe is an error, whoever has its number by then.

    Raises ProcessLookupError for a pid that does not exist, PermissionError where the target may not
    be looked at (ptrace(2), PTRACE_MODE_READ), FileNotFoundError, NotANamespace, WrongNamespaceType,
    StaleReference, ValueError for bad input and for the own user namespace, TypeError.
    Source: setns(2); several types at once by pidfd, Linux 5.8.
    """
    from ._target import Process, join_process, resolve, resolve_fd

    given = {"target": target, "pid": pid, "pidfd": pidfd, "path": path, "name": name, "fd": fd}
    chosen = [key for key, value in given.items() if value is not None]
    if len(chosen) != 1:
        raise ValueError(f"exactly one of {', '.join(given)} is needed, got {', '.join(chosen) or 'none'}")
    wanted = None if types is None else parse_types(types)
    if pid is not None:
        joins = join_process(Process.of_pid(pid), wanted)
    elif pidfd is not None:
        joins = join_process(Process.of_pidfd(pidfd), wanted)
    elif fd is not None:
        joins = resolve_fd(fd, wanted)
    elif name is not None:
        joins = _resolve_name(name, wanted or NET)
    elif isinstance(target, Namespace):
        joins = list(_joins_of(target))
    else:
        joins = resolve(target if target is not None else path, wanted)
    return Namespace(enter=joins, **options) if options else _entering(tuple(joins))


def _entering(joins: tuple[Join, ...]) -> Namespace:
    """Namespace(enter=joins) with nothing to check but the joins: for those who name a target in a loop."""
    from ._checks import check_options

    recipe = _bare(Namespace)
    _set_new(recipe, _NOTHING)
    _set_joins(recipe, joins)
    _set_options(recipe, check_options({}, _NOTHING, joins))
    _set_types(recipe, int(recipe.joined))
    _set_kept(recipe, Kept())
    return recipe


def _resolve_name(name: str, types: NSType) -> list[Join]:
    from ._target import resolve
    from .named import open as open_name

    return [join for nstype in each(types) for join in resolve(open_name(name, nstype))]
