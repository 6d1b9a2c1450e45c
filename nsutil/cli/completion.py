"""``nsutil completion``: what a shell needs to complete command lines of nsutil."""

from __future__ import annotations

import importlib

from .._types import NAMES
from ._args import Arguments, Options, UsageError

HELP = """\
Usage: nsutil completion bash

Print the completion for a shell.

Options:
  -h, --help     show this help
  -V, --version  show the version
      --debug    show a traceback with errors

Examples:
  source <(nsutil completion bash)
  nsutil completion bash > ~/.local/share/bash-completion/completions/nsutil
"""
BASH = r"""# Completion of nsutil for bash.
_nsutil() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command= first= words= i
    [ "$cur" = = ] && cur= prev==
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
            -*) ;;
            *) if [ -z "$command" ]; then command=${COMP_WORDS[i]}; else first=${COMP_WORDS[i]}; break; fi ;;
        esac
    done
    case $command in
@CASES@
    esac
    COMPREPLY=()
    [[ $cur = -* ]] || case "$command $prev" in
        *" --propagation") words="private slave shared unchanged" ;;
        *" --setgroups") words="allow deny" ;;
        *" --color") words="always never auto" ;;
        "nsenter -t" | "nsenter --target" | "lsns -p" | "lsns --task" | "doctor -t" | "doctor --target")
            words=$(cd /proc && printf '%s\n' [0-9]*) ;;
        *" -t" | *" --type") words="@TYPES@" ;;
        "box --net") words="none host $(ls /run/netns 2>/dev/null)" ;;
        *" -n" | *" --netns" | "netns "*)
            case $prev in
                exec | delete | del | pids | set | -n | --netns) words=$(ls /run/netns 2>/dev/null) ;;
                netns) words="@NETNS@" ;;
                *) return ;;
            esac ;;
        "completion "*) words=bash ;;
        *) [ -z "$command" ] || [ "$command" = help ] || words= ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
    if [ ${#COMPREPLY[@]} -eq 0 ] && [[ $cur != -* ]]; then
        case $command in
            unshare | nsenter | box) [ "$prev" = = ] || COMPREPLY=($(compgen -c -- "$cur")) ;;
        esac
    fi
}
complete -o bashdefault -o default -F _nsutil nsutil
"""


def options_of(command: str) -> list[str]:
    """All spellings of a command's options."""
    text: str = importlib.import_module(f"{__package__}.{command}").HELP
    return sorted(Options(text).spellings)


def bash() -> str:
    """The script for bash."""
    from ..__main__ import COMMANDS
    from .netns import COMMANDS as NETNS

    cases = [f'        "") words="{" ".join([*COMMANDS, "help", "--help", "--version"])}" ;;']
    cases += [f'        {command}) words="{" ".join(options_of(command))}" ;;' for command in COMMANDS]
    cases.append(f'        help) words="{" ".join(COMMANDS)}" ;;')
    script = BASH.replace("@CASES@", "\n".join(cases)).replace("@TYPES@", " ".join(NAMES))
    return script.replace("@NETNS@", " ".join(name for name in NETNS if name not in ("show", "lst")))


def main(argv: list[str]) -> int:
    """Print the script."""
    arguments = Arguments(HELP, argv, permute=True)
    for _ in arguments:
        pass
    if arguments.rest != ["bash"]:
        raise UsageError("completion is there for one shell: bash")
    print(bash(), end="")
    return 0
