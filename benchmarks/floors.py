"""The C floors: compiled here, called through ctypes in the process that measures."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

SOURCES = Path(__file__).resolve().parent / "floors"
BUILD = SOURCES.parent.parent / "build" / "bench"
_LIBRARY = ("block.c", "spawn.c", "scan.c", "names.c")
_FLAGS = ["-std=gnu11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra"]
_STATIC = [
    "-static",
    "-nostdlib",
    "-ffreestanding",
    "-fno-stack-protector",
    "-s",
    "-Wl,-z,noseparate-code,--build-id=none",
]

# enum of floors.h
MAPPED, SETUP, PROC, INIT = 1, 2, 4, 8


def compile_all() -> None:
    """Compile what is older than its source; CalledProcessError with the compiler's words."""
    BUILD.mkdir(parents=True, exist_ok=True)
    compiler = os.environ.get("CC") or shutil.which("gcc") or "cc"
    _compile(compiler, [*_FLAGS, "-shared", "-fPIC", "-pthread"], _LIBRARY, "floors.so")
    _compile(compiler, _FLAGS, ("sleepers.c",), "sleepers")
    for name in ("true", "init"):
        _compile(compiler, [*_FLAGS, *_STATIC], (f"{name}.c",), name)


def _compile(compiler: str, flags: list[str], sources: tuple[str, ...], target: str) -> None:
    output = BUILD / target
    newest = max(path.stat().st_mtime for path in SOURCES.iterdir())
    if output.exists() and output.stat().st_mtime >= newest:
        return
    paths = [str(SOURCES / source) for source in sources]
    partial = f"{output}.{os.getpid()}"  # others may be running what is there
    subprocess.run([compiler, *flags, "-o", partial, *paths], check=True)
    os.replace(partial, output)


def program(name: str) -> str:
    """The path of one of the compiled programs."""
    return str(BUILD / name)


class Floors:
    """The library's functions, checked; each returns nanoseconds."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(str(BUILD / "floors.so"))

    def _call(self, name: str, *args: object) -> int:
        function = getattr(self._library, name)
        function.restype = ctypes.c_int64
        result: int = function(*args)
        if result < 0:
            raise OSError(-result, f"{name}: {os.strerror(-result)}")
        return result

    def block(self, types: int, target: int, setup: int, rounds: int) -> int:
        """Blocks of these types; target -1: new ones."""
        return self._call("floor_block", types, target, setup, ctypes.c_int64(rounds))

    def spawn(self, path: str, types: int, options: int, target: int, rounds: int) -> int:
        """Programs started and waited for."""
        init = os.fsencode(program("init"))
        wide = ctypes.c_uint64(types)
        return self._call("floor_spawn", os.fsencode(path), init, wide, options, target, ctypes.c_int64(rounds))

    def throughput(self, path: str, types: int, threads: int, nanoseconds: int) -> int:
        """How many programs that many threads start and wait for in that time."""
        wide = ctypes.c_uint64(types)
        return self._call("floor_throughput", os.fsencode(path), wide, threads, ctypes.c_int64(nanoseconds))

    def scan(self, rounds: int) -> int:
        """Passes over all processes."""
        return self._call("floor_scan", ctypes.c_int64(rounds))

    def names_create(self, directory: str, loopback: bool, count: int) -> int:
        """Named NET namespaces DIRECTORY/0 and so on."""
        return self._call("floor_names_create", os.fsencode(directory), int(loopback), ctypes.c_int64(count))

    def names_delete(self, directory: str, count: int) -> int:
        """The same deleted."""
        return self._call("floor_names_delete", os.fsencode(directory), ctypes.c_int64(count))
