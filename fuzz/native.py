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
PARSERS = "closefds scan scanfd scanmnt scanrel scantab submounts".split()
OURS = "kernel targets".split()
FLAGS = (
    "-std=gnu11 -D_GNU_SOURCE -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all"
).split()

MOUNTS = b"""36 35 0:4 net:[4026531840] /run/netns/a\\040b rw shared:1 - nsfs nsfs rw
37 35 0:4 / /x rw - ext4 /dev/x rw
"""
SEEDS = {
    "c-descriptors": [b"\5\1\4\2\7\3\377x\0", b"\2\1\2\1\3"],
    "c-mounts": [MOUNTS],
    "c-process": [b"1 (a) b) S 7 1 1\n", b"word\0word\0"],
    "c-relations": [b"\17" + b"a" * 40, b"\37" + bytes(range(128))],
    "c-scan": [b"\377\17" + b"a" * 60, b"\377\37" + bytes(range(64)) * 3],
    "c-submounts": [b"pos:\t0\nmnt_id:\t36\n", MOUNTS + b"mnt_id:\t35\n"],
}


def compiler() -> str | None:
    return shutil.which("clang") or shutil.which("gcc")


def _has_fuzzer(command: str) -> bool:
    """Whether the compiler comes with libFuzzer."""
    program = "int LLVMFuzzerTestOneInput(const char *d, long n) { return d && n < 0; }"
    words = [command, "-fsanitize=fuzzer", "-x", "c", "-", "-o", "/dev/null"]
    return subprocess.run(words, input=program.encode(), capture_output=True, check=False).returncode == 0


@lru_cache(maxsize=1)
def build(folder: Path) -> Path:
    """Compile all of it; the program, which NSUTIL_FUZZ_TARGET tells what to fuzz."""
    command = compiler()
    assert command is not None
    objects = folder / "objects"
    objects.mkdir(parents=True, exist_ok=True)
    fuzzer = _has_fuzzer(command)
    instrument = ["-fsanitize=fuzzer-no-link"] if fuzzer else ["-fsanitize-coverage=trace-pc"]
    made = []
    for name in PARSERS:
        made.append(str(objects / f"{name}.o"))
        words = [*FLAGS, *instrument, "-include", str(HERE / "c/kernel.h"), "-c", str(SOURCES / f"{name}.c")]
        subprocess.run([command, *words, "-o", made[-1]], check=True)
    ours = [str(HERE / f"c/{name}.c") for name in (*OURS, *([] if fuzzer else ["driver"]))]
    program = folder / "native"
    ending = ["-fsanitize=fuzzer"] if fuzzer else []
    subprocess.run([command, *FLAGS, *ending, *ours, *made, "-o", str(program)], check=True)
    return program
