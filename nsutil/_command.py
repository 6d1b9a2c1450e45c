"""What a program is started with: subprocess's options read as subprocess reads them, the recipe's taken out."""

from __future__ import annotations

import os
import subprocess

from ._options import MAX_ID, integer
from ._recipe import RECIPE_OPTIONS, Namespace, known
from ._spawn import NEW_GROUP, NEW_SESSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, TypeAlias

    from ._plan import Steps

    Environment: TypeAlias = Mapping[Any, Any] | None

# The parameters of subprocess.Popen that may be given by position, after args.
_POSITIONAL = (
    "bufsize executable stdin stdout stderr preexec_fn close_fds shell cwd env universal_newlines"
    " startupinfo creationflags restore_signals start_new_session pass_fds"
).split()
# Who the program is: subprocess's options, and the recipe's that say it too.
_IDENTITIES = {"user": ("uid", "gid"), "group": ("uid", "gid"), "extra_groups": ("groups",)}
_NOBODY_ELSE = (False, -1, None, None, None)
# Both have these: for subprocess unless they are spelt as only a recipe does.
_SHARED = {"cwd", "env", "umask", "timeout"}
_ONLY_RECIPE = RECIPE_OPTIONS - _SHARED
# What a call's options need a look for.
_ATTENDED = RECIPE_OPTIONS | _IDENTITIES.keys() | {"preexec_fn"}


def settle(recipe: Namespace | None, positional: Sequence[Any], options: dict[str, Any]) -> Namespace:
    """The recipe of a call; options are left as keywords that subprocess takes.

    Raises TypeError for arguments of the wrong kind, ValueError where recipe
    and call contradict each other.
    """
    if recipe is not None and not positional and _ATTENDED.isdisjoint(options):
        return recipe
    name_positional(positional, options)
    recipe = take_recipe(recipe, options)
    check_identity(recipe, options)
    return recipe


def name_positional(positional: Sequence[Any], options: dict[str, Any]) -> None:
    """Positional arguments after args join the keywords; TypeError for too many and for preexec_fn."""
    if len(positional) > len(_POSITIONAL):
        raise TypeError(f"at most {len(_POSITIONAL) + 1} positional arguments, as for subprocess.Popen")
    if positional:
        options.update(zip(_POSITIONAL, positional, strict=False))
    if options.pop("preexec_fn", None) is not None:
        raise TypeError("preexec_fn is not supported, as it is not safe: use Namespace's options or box.call()")


def take_recipe(recipe: Namespace | None, options: dict[str, Any]) -> Namespace:
    """The recipe of a call, its options taken out of the others."""
    changes = {name: options.pop(name) for name in tuple(options) if name in _ONLY_RECIPE}
    if recipe is not None and changes:
        raise TypeError(f"{', '.join(sorted(changes))}: set it in the recipe, with .replace() for a changed copy")
    if options:
        _take_shared(options, changes)
    if recipe is None:
        return known(changes.pop("new", 0), changes)
    return recipe.replace(**changes) if changes else recipe


def _take_shared(options: dict[str, Any], changes: dict[str, Any]) -> None:
    """What subprocess would do outside: the recipe does it inside."""
    cwd, umask = options.pop("cwd", None), options.pop("umask", -1)
    if cwd is not None:
        changes["cwd"] = cwd
    if umask is not None and umask >= 0:
        changes["umask"] = umask
    if options.get("env") == "target":
        changes["env"] = options.pop("env")


def check_identity(recipe: Namespace, options: dict[str, Any]) -> None:
    """ValueError where subprocess and the recipe both say who the program is."""
    for theirs, ours in _IDENTITIES.items():
        if options.get(theirs) is None:
            continue
        for name in ours:
            if getattr(recipe, name) is not None:
                raise ValueError(f"{theirs}= of the call and {name}= of the recipe contradict each other; give one")
        if theirs == "user" and (recipe.ambient or recipe.keep_caps):
            raise ValueError("user= would drop the capabilities of ambient= and keep_caps=; use uid= instead")


def take_pipes(options: dict[str, Any], data: Any, capture: bool) -> None:
    """The pipes that input= and capture_output= stand for."""
    if data is not None:
        if options.get("stdin") is not None:
            raise ValueError("stdin and input may not both be used")
        options["stdin"] = subprocess.PIPE
    if capture:
        if options.get("stdout") is not None or options.get("stderr") is not None:
            raise ValueError("stdout and stderr may not be used with capture_output")
        options["stdout"] = options["stderr"] = subprocess.PIPE


def words(args: Any, executable: Any, shell: bool) -> tuple[list[Any], Any]:
    """The argument vector and the program."""
    if type(args) is list and args and not shell:
        return args, args[0] if executable is None else executable
    if isinstance(args, os.PathLike) and shell:
        raise TypeError("path-like args is not allowed when shell is true")
    result = [args] if isinstance(args, (str, bytes, os.PathLike)) else list(args)
    if shell:
        result = [executable or "/bin/sh", "-c", *result]
    if not result:
        raise ValueError("args must name a program, not be empty")
    return result, result[0] if executable is None else executable


def environment(env: Mapping[Any, Any]) -> tuple[bytes, ...]:
    """The environment as name=value."""
    items = [(os.fsencode(name), os.fsencode(value)) for name, value in env.items()]
    for name, _ in items:
        if b"=" in name:
            raise ValueError("illegal environment variable name")
    return tuple(name + b"=" + value for name, value in items)


def target_environment(recipe: Namespace) -> dict[bytes, bytes]:
    """The environment of the process that is entered."""
    from ._compile import _process_target

    pairs = (entry.partition(b"=") for entry in _process_target(recipe).environment().split(b"\0"))
    return {name: value for name, separator, value in pairs if separator}


def candidates(program: Any, env: Environment) -> tuple[Any, ...]:
    """The paths to try, inside: the program's own, or one for each directory of PATH."""
    if type(program) is str and "/" in program:
        return (program,)
    name = os.fspath(program)
    if ("/" if isinstance(name, str) else b"/") in name:
        return (name,)
    path = os.environ.get("PATH", os.defpath).split(os.pathsep) if env is None else os.get_exec_path(env)
    return tuple(os.path.join(os.fsencode(directory), os.fsencode(name)) for directory in path)


def identity(
    leader: bool, new_session: bool, group: int, groups: Sequence[int] | None, gid: int | None, uid: int | None
) -> tuple[int, Steps | None]:
    """What subprocess's own options ask of the child, in its order, and what that means for nsutil's init.

    ``leader``: the recipe makes a new session by itself.
    """
    if not leader and (new_session, group, groups, gid, uid) == _NOBODY_ELSE:
        return 0, None
    leading = NEW_SESSION if new_session or leader else NEW_GROUP if group >= 0 else 0
    if group < 0 and groups is None and gid is None and uid is None and not (new_session and not leader):
        return leading, None
    from ._plan import PlanBuilder

    builder = PlanBuilder()
    if new_session and not leader:
        builder.add("setsid", label="start a new session")
    if group >= 0:
        builder.add("setpgid", 0, group, label=f"join process group {group}")
    for name, ids in ("user", (uid,)), ("group", (gid,)), ("extra_groups", groups or ()):
        for number in ids:
            if number is not None:
                integer(name, 0, MAX_ID, number)
    if groups is not None:
        builder.add("setgroups", len(groups), list(groups), label=f"set supplementary groups {list(groups)}")
    if gid is not None:
        builder.add("setresgid", gid, gid, gid, label=f"set gid {gid}")
    if uid is not None:
        builder.add("setresuid", uid, uid, uid, label=f"set uid {uid}")
    return leading, builder.build()
