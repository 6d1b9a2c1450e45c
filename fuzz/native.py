"""The parsers of C: compiled with sanitizers, and with system calls that the fuzzer answers (c/kernel.c).

Under clang they are linked with libFuzzer, elsewhere with c/driver.c.
"""

from __future__ import annotations

import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parent / "src"
# What is fuzzed: no input reaches anything else of src/ without a Python object around it.
PARSERS = "closefds mountsteps procfs scan scanfd scanmnt scanrel scantab submounts targets".split()
OURS = "kernel targets".split()
FLAGS = (
    "-std=gnu11 -D_GNU_SOURCE -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all"
).split()

MOUNTS = b"""36 35 0:4 net:[4026531840] /run/netns/a\\040b rw shared:1 - nsfs nsfs rw
37 35 0:4 / /x rw - ext4 /dev/x rw
"""
SEEDS = {
    "c-children": [b"12 345 ", b"4294967295 -1  7 99"],
    "c-descriptors": [b"\5\1\4\2\7\3\377x\0", b"\2\1\2\1\3"],
    "c-mounts": [MOUNTS],
    "c-options": [b"size=4096,mode=0755", b"newinstance,,=x\0\0\1\0\1"],
    "c-paths": [bytes([kind]) + b"/a/../b//c\0\0\0\1\0" + bytes(40) for kind in range(6)],
    "c-process": [b"1 (a) b) S 7 1 1\n", b"word\0word\0"],
    "c-relations": [b"\17" + b"a" * 40, b"\37" + bytes(range(128))],
    "c-scan": [b"\377\17" + b"a" * 60, b"\377\37" + bytes(range(64)) * 3],
    "c-submounts": [b"pos:\t0\nmnt_id:\t36\n", MOUNTS + b"mnt_id:\t35\n"],
}


def compiler() -> str | None:
    """clang where it comes with libFuzzer, which Debian has in a package of its own; else gcc."""
    return shutil.which("clang") if _has_fuzzer("clang") else shutil.which("gcc")


@lru_cache
def _has_fuzzer(command: str) -> bool:
    """Whether the compiler is there and comes with libFuzzer and the sanitizers."""
    program = "int LLVMFuzzerTestOneInput(const char *d, long n) { return d && n < 0; }"
    words = [command, "-fsanitize=fuzzer,address,undefined", "-x", "c", "-", "-o", "/dev/null"]
    try:
        return subprocess.run(words, input=program.encode(), capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def _compile(words: list[str], source: Path, made: Path) -> str:
    subprocess.run([*words, "-c", str(source), "-o", str(made)], check=True)
    return str(made)


@lru_cache(maxsize=1)
def build(folder: Path) -> Path:
    """Compile all of it; the program, which NSUTIL_FUZZ_TARGET tells what to fuzz."""
    command = compiler()
    assert command is not None
    objects = folder / "objects"
    objects.mkdir(parents=True, exist_ok=True)
    fuzzer = _has_fuzzer(command)
    instrument = ["-fsanitize=fuzzer-no-link"] if fuzzer else ["-fsanitize-coverage=trace-pc"]
    words = [command, *FLAGS, *instrument]
    played = [*words, "-include", str(HERE / "c/kernel.h")]
    made = [_compile(played, SOURCES / f"{name}.c", objects / f"{name}.o") for name in PARSERS]
    made.append(_compile(words, HERE / "c/children.c", objects / "children.o"))
    ours = [str(HERE / f"c/{name}.c") for name in (*OURS, *([] if fuzzer else ["driver"]))]
    program = folder / "native"
    ending = ["-fsanitize=fuzzer"] if fuzzer else []
    subprocess.run([command, *FLAGS, *ending, *ours, *made, "-o", str(program)], check=True)
    return program
