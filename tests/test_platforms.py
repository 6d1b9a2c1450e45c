"""The C parts on another libc (musl) and another machine (aarch64, under qemu-user), and older kernels in small."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import sysconfig

import older_kernel
import pytest
from support import PACKAGE, ROOT, SRC, needs_program, needs_root, uncounted

EXECUTOR = ["steps", "credsteps", "mountsteps", "procfs", "submounts", "targets"]
SPAWN = ["spawn", "child", "closefds", "initfile", "shared", "clone3"]
FLAGS = ["-std=gnu11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror", "-static", f"-I{SRC}"]
# Debian's musl comes without the kernel's headers; the system's do.
MUSL = ["musl-gcc", "-idirafter", "/usr/include", "-idirafter", f"/usr/include/{os.uname().machine}-linux-gnu"]
AARCH64 = ["aarch64-linux-gnu-gcc"]
# The longer name is gone in newer Debian, where the shorter one is static, too.
QEMUS = ("qemu-aarch64-static", "qemu-aarch64")
QEMU = next(filter(shutil.which, QEMUS), QEMUS[0])
INIT_FLAGS = "-std=gnu11 -Os -ffreestanding -nostdlib -static -fno-pie -no-pie -fno-stack-protector".split()

pytestmark = needs_root


def build(compiler, target, parts, *flags):
    files = [ROOT / "tests" / "c" / "platform.c", *(SRC / f"{part}.c" for part in parts)]
    subprocess.run([*compiler, *FLAGS, *flags, "-o", target, *files], check=True, timeout=120)
    return target


def output(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def init_source(tmp_path, compiler):
    """PID 1 as bytes in a C file, as setup.py makes it."""
    program = tmp_path / "init"
    subprocess.run([*compiler, *INIT_FLAGS, f"-I{SRC}", "-o", program, SRC / "init.c"], check=True, timeout=60)
    data = program.read_bytes()
    source = tmp_path / "init_elf.c"
    source.write_text(
        '#include "init_elf.h"\n'
        f"const unsigned char init_elf[] = {{{', '.join(map(str, data))}}};\n"
        f"const unsigned int init_elf_size = {len(data)};\n"
    )
    return source


@needs_program("musl-gcc")
def test_executor_and_spawn_on_musl(tmp_path):
    source = init_source(tmp_path, ["gcc"])
    program = build(MUSL, tmp_path / "platform", EXECUTOR + SPAWN, str(source))
    assert output(program, "executor") == "step 6 errno 2 host platform\n"
    assert output(program, "spawn").splitlines() == [
        "status 700",
        "status 9",
        "pid 1",
        "status 300",
        "pid 2",
        "status 8900",
        "status f",
    ]


@needs_program("aarch64-linux-gnu-gcc")
@needs_program(*QEMUS)
def test_executor_on_aarch64(tmp_path):
    program = build(AARCH64, tmp_path / "platform", EXECUTOR, "-DNO_SPAWN")
    assert output(QEMU, program, "executor") == "step 6 errno 2 host platform\n"


@needs_program("aarch64-linux-gnu-gcc")
@needs_program(*QEMUS)
@pytest.mark.parametrize(("script", "status", "raw"), [("exit 7", 7, 0x700), ("kill -9 $$", -9, 9)])
def test_init_on_aarch64(tmp_path, script, status, raw):
    """As the waiter of a process that it finds itself the parent of."""
    program = tmp_path / "init"
    subprocess.run([*AARCH64, *INIT_FLAGS, f"-I{SRC}", "-o", program, SRC / "init.c"], check=True, timeout=60)
    reader, writer = os.pipe()
    shell = f"(sleep 0.2; {script}) & exec {QEMU} {program} w $! 0"
    # A subshell's $$ is its parent's: by exec of another shell it is its own.
    shell = shell.replace(f"(sleep 0.2; {script})", f"sh -c 'sleep 0.2; {script}'")
    child = subprocess.Popen(["sh", "-c", shell], stdin=writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        assert int.from_bytes(pipe.read(4), "little") == raw
    assert child.wait(30) == status


@pytest.mark.parametrize(
    "compiler",
    [
        pytest.param(MUSL, marks=needs_program("musl-gcc"), id="musl"),
        pytest.param(AARCH64, marks=needs_program("aarch64-linux-gnu-gcc"), id="aarch64"),
    ],
)
def test_all_of_the_extension_compiles(tmp_path, compiler):
    """With this machine's Python.h: both are 64-bit machines with little ends."""
    for machine in "aarch64", "x86_64":  # as Debian has pyconfig.h
        (tmp_path / f"{machine}-linux-gnu").symlink_to(f"/usr/include/{os.uname().machine}-linux-gnu")
    includes = ["-isystem", sysconfig.get_path("include"), "-idirafter", tmp_path]
    files = [path for path in sorted(SRC.glob("*.c")) if path.name != "init.c"]
    command = [*compiler, *FLAGS, "-fsyntax-only", *includes, *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr


def test_the_extension_has_these_sources():
    text = (ROOT / "setup.py").read_text()
    assert [part for part in EXECUTOR + SPAWN if f'"src/{part}.c"' not in text] == []


# pytest --older-kernel runs everything so; here is what went wrong there once.

JOIN = """
import os, nsutil
with nsutil.Popen(["sleep", "60"], new=nsutil.UTS | nsutil.NET) as target:
    name = nsutil.enter(target).run(["readlink", "/proc/self/ns/uts"], capture_output=True, text=True).stdout.strip()
    print([name == os.readlink(f"/proc/{target.pid}/ns/uts")])
    target.kill()
"""
NSENTER = """
import os, subprocess, sys, nsutil
with nsutil.Popen(["sleep", "60"], new=nsutil.UTS | nsutil.NET) as target:
    command = [sys.executable, "-m", "nsutil", "nsenter", "-t", str(target.pid), "-u", "-n"]
    done = subprocess.run([*command, "readlink", "/proc/self/ns/uts"], capture_output=True, text=True)
    print([done.stdout.strip() == os.readlink(f"/proc/{target.pid}/ns/uts"), done.stderr])
    target.kill()
"""
CLONE = """
import os, nsutil
if (pid := nsutil.clone(nsutil.PID)) == 0:
    os._exit(os.getpid() + 6)
print([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])])
"""
WAITERS = """
import os, time, nsutil
os.set_inheritable(os.dup(0), True)
def parents():
    '''What PID 1 and the waiter outside have open: their pipes and a signalfd, once they run nsutil's init.'''
    found = []
    status = "/proc/self/status"
    for _ in range(2):
        with open(status) as file:
            parent = dict(line.split(":", 1) for line in file)["PPid"].strip()
        found.append(sorted(map(int, os.listdir(f"/proc/{parent}/fd"))))
        status = f"/proc/{parent}/status"
    return found
def settled():
    deadline = time.monotonic() + 20
    while (found := parents()) != [[0, 1, 2], [0, 1]] and time.monotonic() < deadline:
        time.sleep(0.01)
    return found
print(nsutil.Namespace(nsutil.PID).call(settled))
"""


@pytest.mark.parametrize("older", ["", "5.6", "close-range"])
@pytest.mark.parametrize(
    ("code", "expected"),
    [(JOIN, [True]), (NSENTER, [True, ""]), (CLONE, [7]), (WAITERS, [[0, 1, 2], [0, 1]])],
    ids=["join", "nsenter", "clone", "waiters"],
)
def test_on_older_kernels(older, code, expected):
    launcher = [sys.executable, older_kernel.__file__, older] if older else []
    command = [*launcher, sys.executable, "-W", "ignore", "-c", code]
    env = {**os.environ, "PYTHONPATH": str(PACKAGE)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert ast.literal_eval(done.stdout) == expected


def test_unknown_features_are_refused():
    with pytest.raises(ValueError, match="'open2' is neither a Linux version nor one of"):
        older_kernel.chosen("5.6,open2")
    assert older_kernel.chosen("6.18") == older_kernel.chosen("listns")


@pytest.mark.parametrize("new", ["", "uts"])
def test_the_gil_stays_as_it_was(new):
    """Where Python runs without the GIL, importing the extension must not bring it back; nor may its use."""
    code = "import sys, sysconfig; from nsutil import _ns, Namespace; Namespace(sys.argv[1:]).run(['true'])\n"
    code += "free = bool(sysconfig.get_config_var('Py_GIL_DISABLED'))\n"
    code += "print(getattr(sys, '_is_gil_enabled', lambda: True)() == (not free))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *filter(None, [new])],
        env={**os.environ, "PYTHONPATH": str(PACKAGE)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("True\n", "")


INTERPRETERS = """
import sys
name = "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"
interpreters = __import__(name)
code = '''
import nsutil, os
from nsutil import UTS
outside = os.uname().nodename
with nsutil.Namespace(UTS, hostname="sub"):
    assert os.uname().nodename == "sub"
assert os.uname().nodename == outside
assert nsutil.run(["true"], new=UTS).returncode == 0
'''
import nsutil
for _ in range(3):
    each = interpreters.create()
    failed = interpreters.run_string(each, code)
    interpreters.destroy(each)
    assert failed is None, failed
print("done")
"""


@uncounted
def test_subinterpreters_have_blocks_and_programs():
    env = {**os.environ, "PYTHONPATH": str(PACKAGE)}
    done = subprocess.run([sys.executable, "-c", INTERPRETERS], env=env, capture_output=True, text=True, timeout=90)
    assert (done.stdout, done.stderr) == ("done\n", "")
