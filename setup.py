"""The C extension and PID 1 inside it; everything else is in pyproject.toml.

Switches, all from the environment:

NSUTIL_SANITIZE=address|thread|undefined   build with that sanitizer (several: a,b)
NSUTIL_COVERAGE=1                          count executed lines (gcov)
NSUTIL_DEBUG=1                             -O0 -g3 and assertions
NSUTIL_ABI3=1                              one extension for 3.11 and later; needs 3.11's own headers
"""

from __future__ import annotations

import gzip
import os
import shlex
import subprocess
import sys
import sysconfig
import tarfile
from io import BytesIO
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist

# Named one by one: a stray file must not slip into a build, nor a missing one out of it.
# init_elf.c, PID 1 as bytes, is generated (see BuildExt).
SOURCES = [
    "src/_nsmodule.c",
    "src/apart.c",
    "src/await.c",
    "src/block.c",
    "src/calls.c",
    "src/child.c",
    "src/clone3.c",
    "src/clone.c",
    "src/closefds.c",
    "src/credsteps.c",
    "src/fork.c",
    "src/forked.c",
    "src/guard.c",
    "src/handles.c",
    "src/holder.c",
    "src/initfile.c",
    "src/ioctls.c",
    "src/message.c",
    "src/mirror.c",
    "src/mountsteps.c",
    "src/named.c",
    "src/nsthread.c",
    "src/plan.c",
    "src/probe.c",
    "src/process.c",
    "src/procfs.c",
    "src/pychild.c",
    "src/scan.c",
    "src/scanfd.c",
    "src/scanmnt.c",
    "src/scanrel.c",
    "src/scantab.c",
    "src/scanmod.c",
    "src/shared.c",
    "src/spawn.c",
    "src/status.c",
    "src/steps.c",
    "src/submounts.c",
    "src/targets.c",
    "src/visit.c",
]

# Only counted builds have it; see there.
COUNTING, COUNTERS = "src/counters.c", Path("build/coverage/counters")

SANITIZERS = {"address", "thread", "undefined"}

# PID 1: a program without libc, as small as it gets, and the same bytes from every build of the same compiler.
INIT = Path("src/init.c")
INIT_FLAGS = (
    "-std=gnu11 -Os -Wall -Wextra -ffreestanding -nostdlib -static -fno-pie -no-pie -fno-stack-protector"
    " -fno-asynchronous-unwind-tables -fno-unwind-tables -fomit-frame-pointer -fno-tree-loop-distribute-patterns"
    " -s -fno-ident -Wl,--build-id=none -Wl,-z,noseparate-code -Wl,-z,noexecstack -Wl,-z,norelro"
).split()
INIT_MACHINES = {"x86_64", "aarch64"}


def switch(name: str) -> bool:
    return os.environ.get(f"NSUTIL_{name}", "") not in ("", "0")


def sanitizers() -> list[str]:
    names = [name for name in os.environ.get("NSUTIL_SANITIZE", "").split(",") if name]
    if unknown := set(names) - SANITIZERS:
        sys.exit(f"NSUTIL_SANITIZE: {', '.join(sorted(unknown))} is none of {', '.join(sorted(SANITIZERS))}")
    return names


def flags() -> tuple[list[str], list[str]]:
    """What the switches add: options of the compiler and of the linker."""
    compiling, linking = ["-std=gnu11", "-D_GNU_SOURCE", "-fvisibility=hidden", "-Wall", "-Wextra"], []
    if names := sanitizers():
        option = f"-fsanitize={','.join(names)}"
        compiling += [option, "-fno-omit-frame-pointer", "-fno-sanitize-recover=undefined", "-g", "-O1"]
        linking += [option]
    if switch("COVERAGE"):
        # What counters.c needs: each function's counters apart, for counters.ld, gcov's exit in its hands, a fork()
        # that does not set the counters to zero, as gcov's own does, and processes that count at the same time.
        compiling += ["--coverage", "-O0", "-g", "-fdata-sections", "-fno-builtin-fork", "-fprofile-update=atomic"]
        compiling += [f'-DNS_COUNTERS="{COUNTERS.resolve()}"']
        linking += ["--coverage", "-Wl,--wrap=__gcov_exit", "-Wl,-T,src/counters.ld"]
    if switch("DEBUG"):
        compiling += ["-O0", "-g3", "-UNDEBUG"]
    return compiling, linking


def abi3() -> bool:
    if not switch("ABI3"):
        return False
    # Newer headers do not refuse what 3.11 lacks, and refer to None differently: only the floor's own are right.
    if sys.version_info[:2] != (3, 11):
        sys.exit(f"NSUTIL_ABI3 needs Python 3.11 to build, this is {sys.version.split()[0]}")
    return True


def write_if_changed(path: Path, text: str) -> None:
    """So that the time stamp says when the content changed, and nothing is rebuilt for nothing."""
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


class BuildExt(build_ext):
    """Compiles src/init.c first and embeds the program in the extension."""

    def build_extension(self, ext: Extension) -> None:
        temp = Path(self.build_temp)
        generated, used = temp / "init_elf.c", temp / "switches"
        write_if_changed(generated, self.init_source(temp / "init"))
        write_if_changed(used, repr((flags(), ext.define_macros, os.environ.get("CC"), os.environ.get("CFLAGS"))))
        ext.sources = [*SOURCES, *([COUNTING] if switch("COVERAGE") else []), str(generated)]
        ext.depends = [*ext.depends, str(used)]
        super().build_extension(ext)

    def init_source(self, program: Path) -> str:
        """C that holds PID 1 as bytes; none for a machine that src/init.c does not know."""
        compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
        machine = subprocess.check_output([*compiler, "-dumpmachine"], text=True).split("-")[0]
        data = b""
        if INIT.exists() and machine in INIT_MACHINES:
            program.parent.mkdir(parents=True, exist_ok=True)
            control = ["-fcf-protection=none"] if machine == "x86_64" else []
            subprocess.check_call([*compiler, *INIT_FLAGS, *control, "-o", str(program), str(INIT)])
            data = program.read_bytes()
        rows = [", ".join(map(str, data[i : i + 20])) for i in range(0, len(data), 20)]
        body = ",\n    ".join(rows) or "0"
        return (
            "/* Generated by setup.py from src/init.c. */\n"
            '#include "init_elf.h"\n\n'
            f"const unsigned char init_elf[] = {{\n    {body}\n}};\n\n"
            f"const unsigned int init_elf_size = {len(data)};\n"
        )


class Sdist(sdist):
    """Packs equal files into equal bytes: names in order, nobody's ownership, the times of SOURCE_DATE_EPOCH."""

    def make_archive(self, *args: object, **options: object) -> str:
        archive = str(super().make_archive(*args, **options))
        if archive.endswith(".tar.gz"):
            repack(Path(archive), os.environ.get("SOURCE_DATE_EPOCH"))
        return archive


def repack(archive: Path, epoch: str | None) -> None:
    """Write a tar.gz again, from what its files are called and hold, and whether they can be executed."""
    packed = BytesIO()
    with (
        tarfile.open(archive) as old,
        gzip.GzipFile("", "wb", fileobj=packed, mtime=int(epoch or 0)) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for was in sorted(filter(tarfile.TarInfo.isfile, old), key=lambda file: file.name):
            file = tarfile.TarInfo(was.name)
            file.size, file.mtime = was.size, int(epoch or was.mtime)
            file.mode = 0o755 if was.mode & 0o100 else 0o644
            new.addfile(file, old.extractfile(was))
    archive.write_bytes(packed.getvalue())


compiling, linking = flags()
limited = abi3()
setup(
    ext_modules=[
        Extension(
            "nsutil._ns",
            SOURCES,
            include_dirs=["src"],
            # A changed header, or a changed PID 1, rebuilds the extension.
            depends=["setup.py", *map(str, sorted(Path("src").glob("*.h"))), *([str(INIT)] if INIT.exists() else [])],
            define_macros=[("Py_LIMITED_API", "0x030b0000")] if limited else [],
            py_limited_api=limited,
            extra_compile_args=compiling,
            extra_link_args=linking,
        )
    ],
    cmdclass={"build_ext": BuildExt, "sdist": Sdist},
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if limited else {},
)
