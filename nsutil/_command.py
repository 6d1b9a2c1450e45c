"""What a program is started with: subprocess's options read as subprocess reads them, the recipe's taken out."""

from __future__ import annotations

import os
import subprocess

from ._recipe import RECIPE_OPTIONS, Namespace

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
# Those of its _execute_child, which get their values by position too.
PIPE_ENDS = "p2cread p2cwrite c2pread c2pwrite errread errwrite".split()
_IDENTITY_OPTIONS = "start_new_session process_group gids gid uid".split()
EXECUTE_CHILD = (
    "args executable preexec_fn close_fds pass_fds cwd env startupinfo creationflags shell".split()
    + PIPE_ENDS
    + "restore_signals gid gids uid umask start_new_session process_group".split()
)
# Both have these: for subprocess unless they are spelt as only a recipe does.
_SHARED = {"cwd", "env", "umask", "timeout"}
_ONLY_RECIPE = RECIPE_OPTIONS - _SHARED


def name_positional(positional: Sequence[Any], options: dict[str, Any]) -> None:
    """Positional arguments after args join the keywords; TypeError for too many and for preexec_fn."""
    if len(positional) > len(_POSITIONAL):
        raise TypeError(f"at most {len(_POSITIONAL) + 1} positional arguments, as for subprocess.Popen")
    options.update(zip(_POSITIONAL, positional, strict=False))
    if options.pop("preexec_fn", None) is not None:
        raise TypeError("preexec_fn is not supported, as it is not safe: use Namespace's options or box.call()")


def take_recipe(recipe: Namespace | None, options: dict[str, Any]) -> Namespace:
    """The recipe of a call, its options taken out of the others."""
    changes = {name: options.pop(name) for name in _ONLY_RECIPE & options.keys()}
    if recipe is not None and changes:
        raise TypeError(f"{', '.join(sorted(changes))}: set it in the recipe, with .replace() for a changed copy")
    cwd, umask = options.pop("cwd", None), options.pop("umask", -1)
    if cwd is not None:
        changes["cwd"] = cwd
    if umask is not None and umask >= 0:
        changes["umask"] = umask
    if options.get("env") == "target":
        changes["env"] = options.pop("env")
    if recipe is None:
        return Namespace(**changes)
    return recipe.replace(**changes) if changes else recipe


def check_identity(recipe: Namespace, options: dict[str, Any]) -> None:
    """ValueError where subprocess and the recipe both say who the program is."""
    for ours, theirs in (("uid", "user"), ("gid", "group"), ("groups", "extra_groups")):
        if options.get(theirs) is None:
            continue
        for name in ("uid", "gid") if ours != "groups" else ("groups",):
            if getattr(recipe, name) is not None:
                raise ValueError(f"{theirs}= of the call and {name}= of the recipe contradict each other; give one")
        if ours == "uid" and (recipe.ambient or recipe.keep_caps):
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
    if isinstance(args, os.PathLike) and shell:
        raise TypeError("path-like args is not allowed when shell is true")
    result = [args] if isinstance(args, (str, bytes, os.PathLike)) else list(args)
    if shell:
        result = [executable or "/bin/sh", "-c", *result]
    if not result:
        raise ValueError("args must name a program, not be empty")
    return result, result[0] if executable is None else executable


def command(recipe: Namespace, words: list[Any], program: Any, given: dict[str, Any]) -> tuple[Any, ...]:
    """The program as _ns.spawn takes it, but for the TIME namespace to join."""
    vector, search = _environment(recipe, given["env"])
    return tuple(words), vector, _candidates(program, search), given["restore_signals"]


def files(given: dict[str, Any], old_way: bool) -> tuple[Any, ...]:
    """The descriptors of the program as _ns.spawn takes them."""
    redirected = given["p2cread"], given["c2pwrite"], given["errwrite"]
    kept = tuple(sorted({int(fd) for fd in given["pass_fds"]}))
    return *redirected, kept, given["close_fds"], old_way


def _environment(
    recipe: Namespace, env: Mapping[Any, Any] | None
) -> tuple[tuple[bytes, ...] | None, Mapping[Any, Any] | None]:
    """The environment as a vector, None for this process's own, and as where PATH is looked up."""
    if env is None and recipe.env == "target":
        env = _target_environment(recipe)
    if env is None:
        return None, None
    items = [(os.fsencode(name), os.fsencode(value)) for name, value in env.items()]
    for name, _ in items:
        if b"=" in name:
            raise ValueError("illegal environment variable name")
    return tuple(name + b"=" + value for name, value in items), env


def _target_environment(recipe: Namespace) -> dict[bytes, bytes]:
    """The environment of the process that is entered."""
    from ._compile import _process_target

    pairs = (entry.partition(b"=") for entry in _process_target(recipe).read("environ").split(b"\0"))
    return {name: value for name, separator, value in pairs if separator}


def _candidates(program: Any, env: Environment) -> tuple[bytes, ...]:
    """The paths to try, inside: the program's own, or one for each directory of PATH."""
    name = os.fsencode(program)
    if os.path.dirname(name):
        return (name,)
    return tuple(os.path.join(os.fsencode(directory), name) for directory in os.get_exec_path(env))


def identity_steps(recipe: Namespace, given: dict[str, Any]) -> Steps | None:
    """What subprocess's own options ask of the child, in its order."""
    new_session, group, groups, gid, uid = (given[name] for name in _IDENTITY_OPTIONS)
    if not new_session and group < 0 and groups is None and gid is None and uid is None:
        return None
    from ._plan import PlanBuilder

    builder = PlanBuilder()
    if new_session and not recipe.new_session:
        builder.add("setsid", label="start a new session")
    if group >= 0:
        builder.add("setpgid", 0, group, label=f"join process group {group}")
    if groups is not None:
        builder.add("setgroups", len(groups), list(groups), label=f"set supplementary groups {list(groups)}")
    if gid is not None:
        builder.add("setresgid", gid, gid, gid, label=f"set gid {gid}")
    if uid is not None:
        builder.add("setresuid", uid, uid, uid, label=f"set uid {uid}")
    return builder.build()
