"""examples/container.py, from roots that need no download: a busybox, and the host's own system."""

from __future__ import annotations

import importlib.util
import os
import struct
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import support

import nsutil

EXAMPLE = support.ROOT / "examples/container.py"
FACTS = """
echo "uid=$(id -u) host=$(hostname) pid=$$ links=$(ls /sys/class/net | tr '\\n' ' ')"
grep -E '^(CapEff|CapPrm|CapInh|CapAmb|NoNewPrivs):' /proc/self/status | tr '\\t\\n' '  '
echo
for place in /x /etc/x /tmp/x /dev/x; do (echo > $place) 2>/dev/null && echo "wrote $place"; done
echo "pids $(ls -d /proc/[0-9]* | wc -l) shown $(wc -l < /proc/mounts)"
"""


@pytest.fixture
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("container", EXAMPLE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def is_static(program: Path) -> bool:
    """An ELF file that names no interpreter."""
    data = program.read_bytes()
    offset, size, count = struct.unpack_from("<Q", data, 32)[0], *struct.unpack_from("<HH", data, 54)
    return all(struct.unpack_from("<I", data, offset + i * size)[0] != 3 for i in range(count))


@pytest.fixture
def busybox(example: ModuleType, tmp_path: Path) -> Path:
    try:
        root: Path = example.busybox_root(tmp_path / "root")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    if not is_static(root / "bin/busybox"):
        pytest.skip("needs a statically linked busybox")
    root.chmod(0o755)
    return root


def facts(example: ModuleType, root: Path) -> tuple[int, dict[str, Any]]:
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    box = example.container(root, hostname="inside")
    done = box.run(["sh", "-c", FACTS], env=environment, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    found = dict(word.split("=") for word in lines[0].split() if "=" in word)
    status = lines[1].split()
    found["status"] = {status[i]: int(status[i + 1], 16) for i in range(0, len(status), 2)}
    found["wrote"] = [line.split()[1] for line in lines if line.startswith("wrote")]
    found["pids"] = int(lines[-1].split()[1])
    return done.returncode, found


@support.needs_root
@support.needs_kernel("time")
@pytest.mark.parametrize("user", [False, True], ids=["root", "user"])
def test_a_container_from_busybox(example: ModuleType, busybox: Path, user: bool) -> None:
    before = sorted(str(path) for path in busybox.rglob("*")), support.mounts()
    run = support.as_user if user else support.in_child
    code, found = run(facts, example, busybox)
    assert code == 0
    assert found["uid"] == ("65534" if user else "1000")
    assert found["host"] == "inside"
    assert found["links"] == "lo"
    assert found["pids"] <= 8
    assert found["status"] == {"CapEff:": 0, "CapPrm:": 0, "CapInh:": 0, "CapAmb:": 0, "NoNewPrivs:": 1}
    # /dev belongs to who made it, as in every container.
    assert found["wrote"] == (["/tmp/x", "/dev/x"] if user else ["/tmp/x"])
    assert (sorted(str(path) for path in busybox.rglob("*")), support.mounts()) == before


@support.needs_root
@support.needs_kernel("time")
def test_all_eight_namespaces_are_new(example: ModuleType, busybox: Path) -> None:
    outside = support.ns_inodes()
    with example.container(busybox).popen(["sleep", "60"]) as child:
        inside = support.ns_inodes(str(child.program_pid))
        child.kill()
    types = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
    assert {name for name in types if inside[name] == outside[name]} == set()


@support.needs_root
@support.needs_kernel("time")
def test_the_example_as_a_program(busybox: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(nsutil.__file__).parent.parent)}
    command = [sys.executable, str(EXAMPLE), str(busybox)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert "CapEff:\t0000000000000000" in done.stdout
    assert "container" in done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    done = subprocess.run([*command, "sh", "-c", "exit 7"], env=environment, timeout=60, check=False)
    assert done.returncode == 7


@support.needs_root
def test_limits(example: ModuleType, busybox: Path) -> None:
    """Only where cgroup v2 has the controllers."""
    group = example.limited("nsutil-test-limits", pids_max="30")
    if group is None:
        pytest.skip("no cgroup v2 hierarchy")
    try:
        if not os.path.exists(f"{group}/pids.max"):
            pytest.skip("no pids controller in cgroup v2")
        done = example.container(busybox, cgroup=group).run(["sh", "-c", "for i in $(seq 50); do sleep 5 & done"])
        assert done.returncode != 0
    finally:
        os.rmdir(group)


@support.needs_root
@support.needs_kernel("time")
def test_a_system_with_a_package_manager(example: ModuleType, tmp_path: Path) -> None:
    """The host's own system as the root: what debootstrap makes is no different."""
    root = tmp_path / "system"
    root.mkdir()

    def prepared() -> tuple[int, dict[str, Any]]:
        from nsutil import Bind, Namespace

        private = Namespace("mnt", mounts=[Bind("/", root, recursive=False)])
        result: tuple[int, dict[str, Any]] = private.call(lambda: facts(example, root))
        return result

    code, found = support.in_child(prepared)
    assert code == 0
    assert found["wrote"] == ["/tmp/x"]
    assert found["uid"] == "1000"
