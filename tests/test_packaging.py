"""What is built holds what it must, builds again from its own source, and the README tells the truth."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest
import support

ROOT = support.ROOT
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
BUILT = shutil.ignore_patterns(*".git .venv* build dist *.so *.egg-info __pycache__ .*_cache _build".split())

# One worker builds it all, where the workers keep groups together.
pytestmark = pytest.mark.xdist_group("packaging")


def checkout(target: Path) -> Path:
    """The sources as they are now, without anything that was built."""
    shutil.copytree(ROOT, target, ignore=BUILT)
    return target


def backend(where: Path, code: str, **env: str) -> str:
    """Run code with the build backend imported, in a source tree; returns what it prints last."""
    start = "import setuptools.build_meta as backend\n"
    environment = {**os.environ, "CFLAGS": "-O0 -g0", **env}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [sys.executable, "-c", start + code], cwd=where, env=environment, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = checkout(tmp_path_factory.mktemp("checkout") / "source")
    return source / "dist" / backend(source, "print(backend.build_sdist('dist'))")


@pytest.fixture(scope="module")
def unpacked(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    subprocess.run(["tar", "-xf", sdist, "-C", folder], check=True, timeout=60)
    return next(folder.iterdir())


@pytest.fixture(scope="module")
def wheel(unpacked: Path) -> Path:
    """Built from the sdist, so that nothing can be missing from it."""
    return unpacked / "dist" / backend(unpacked, "print(backend.build_wheel('dist'))")


def files_below(folder: Path, *patterns: str) -> set[str]:
    return {str(path.relative_to(ROOT)) for pattern in patterns for path in folder.rglob(pattern)}


def package_files() -> set[str]:
    return files_below(ROOT / "nsutil", "*.py", "*.pyi", "*.html", "py.typed")


def test_sdist_is_complete(unpacked: Path) -> None:
    packed = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    wanted = files_below(ROOT / "src", "*.c", "*.h") | files_below(
        ROOT / "nsutil", "*.py", "*.pyi", "*.html", "py.typed"
    )
    wanted |= files_below(ROOT / "tests", "*.py", "*.txt") | files_below(ROOT / "examples", "*.py")
    wanted |= {
        "Makefile",
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        ".ci/run",
        ".github/workflows/ci.yml",
    }
    wanted |= {"setup.py", "pyproject.toml", ".clang-format"}
    assert wanted - packed == set()


def test_sdist_is_the_same_each_time(tmp_path: Path) -> None:
    """Whatever directory, time, umask and user it is made with."""
    packed = []
    for name, umask in ("one", 0o022), ("other", 0o077):
        source = tmp_path / name
        for file in (
            "pyproject.toml",
            "setup.py",
            "README.md",
            "LICENSE",
            "src/init.c",
            "nsutil/__init__.py",
            ".ci/run",
        ):
            (source / file).parent.mkdir(parents=True, exist_ok=True)
            (source / file).write_bytes((ROOT / file).read_bytes())
            (source / file).chmod((0o777 if file == ".ci/run" else 0o666) & ~umask)
        (source / "nsutil/cli").mkdir()
        code = f"import os; os.umask({umask}); print(backend.build_sdist('dist'))"
        packed.append((source / "dist" / backend(source, code, SOURCE_DATE_EPOCH="1700000000")).read_bytes())
    assert packed[0] == packed[1]


def test_sdist_has_nothing_built(unpacked: Path) -> None:
    packed = [str(path) for path in unpacked.rglob("*")]
    assert [name for name in packed if name.endswith((".so", ".o", ".pyc")) or "/_build" in name] == []


def test_wheel_is_complete(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert package_files() - packed == set()
    extension = "nsutil/_ns" + sysconfig.get_config_var("EXT_SUFFIX")
    assert {name for name in packed if not name.startswith("nsutil/") or name.endswith(".so")} == {extension}


def test_wheel_metadata(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        read = {name.rsplit("/", 1)[1]: archive.read(name).decode() for name in names if ".dist-info/" in name}
    assert "License-Expression: MIT\n" in read["METADATA"]
    assert "Requires-Python: >=3.11\n" in read["METADATA"]
    required = re.findall(r"^Requires-Dist: (.*)$", read["METADATA"], re.M)
    assert [line for line in required if "extra ==" not in line] == []
    assert "nsutil = nsutil.__main__:main" in read["entry_points.txt"]
    assert re.search(r"^Tag: cp3\d+t?-cp3\d+t?-linux_", read["WHEEL"], re.M)
    assert "MIT License" in read["LICENSE"]


def test_wheel_works_alone(wheel: Path, tmp_path: Path) -> None:
    """Installed into an environment that has nothing else, not even pip."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def output(*command: str | Path) -> str:
        done = subprocess.run(command, cwd="/", env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    python = tmp_path / "bin/python"
    output(sys.executable, "-m", "venv", "--without-pip", tmp_path)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
    output(*pip, "install", "--no-index", "--no-deps", "--no-compile", wheel)
    output(tmp_path / "bin/nsutil", "demo", "uts", "user")
    assert output(python, "-I", "-c", "import nsutil._ns; print(nsutil._ns.__file__)").startswith(str(tmp_path))


# The extension's build


BUILD_EXT = """
import contextlib, glob, io, os, sys
sys.argv = ["setup.py", "-q", "build_ext", "--inplace"]
exec(compile(open("setup.py").read(), "setup.py", "exec"))
print(os.stat(glob.glob("nsutil/_ns*.so")[0]).st_mtime_ns)
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which the extension was built once."""
    folder = checkout(tmp_path_factory.mktemp("tree") / "source")
    backend(folder, BUILD_EXT)
    return folder


def test_extension_is_the_same_from_each_directory(wheel: Path, tree: Path) -> None:
    name = "nsutil/_ns" + sysconfig.get_config_var("EXT_SUFFIX")
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read(name) == (tree / name).read_bytes()


def test_nothing_changed_nothing_built(tree: Path) -> None:
    assert backend(tree, BUILD_EXT) == backend(tree, BUILD_EXT)


@pytest.mark.parametrize("name", ["steps.h", "init.c"])
def test_a_change_is_built(tree: Path, name: str) -> None:
    changed = tree / "src" / name
    if not changed.exists():
        pytest.skip(f"no {name}")
    before = backend(tree, BUILD_EXT)
    os.utime(changed)
    assert backend(tree, BUILD_EXT) > before


def test_a_switch_is_built(tree: Path) -> None:
    before = backend(tree, BUILD_EXT)
    assert backend(tree, BUILD_EXT, NSUTIL_DEBUG="1") > before


def test_unknown_sanitizer_is_refused(tree: Path) -> None:
    done = subprocess.run(
        [sys.executable, "setup.py", "--version"],
        cwd=tree,
        env={**os.environ, "NSUTIL_SANITIZE": "memory"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert "memory is none of address, thread, undefined" in done.stderr


def test_sources_are_all_named(tree: Path) -> None:
    """Every C file is built or embedded."""
    named = set(re.findall(r'"(src/\w+\.c)"', (ROOT / "setup.py").read_text()))
    assert {f"src/{path.name}" for path in support.SRC.glob("*.c")} == named - (
        set() if (support.SRC / "init.c").exists() else {"src/init.c"}
    )


def test_init_is_a_small_static_program(tree: Path) -> None:
    if not (support.SRC / "init.c").exists():
        pytest.skip("no init.c")
    program = next(tree.glob("build/temp*/init"))
    assert program.stat().st_size <= 8192
    headers = subprocess.run(["readelf", "-lW", program], check=True, capture_output=True, text=True, timeout=60).stdout
    assert "INTERP" not in headers
    assert "DYNAMIC" not in headers
    stack = next(line for line in headers.splitlines() if "GNU_STACK" in line)
    assert "RWE" not in stack
    assert program.read_bytes()[:4] == b"\x7fELF"


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="needs the headers of Python 3.11")
def test_limited_api_of_the_floor() -> None:
    """One extension for 3.11 and later stays possible: 3.11's headers refuse what its stable ABI lacks."""
    flags = ["-std=gnu11", "-D_GNU_SOURCE", "-DPy_LIMITED_API=0x030b0000", "-fsyntax-only", "-Werror"]
    files = [path for path in sorted(support.SRC.glob("*.c")) if path.name != "init.c"]
    done = subprocess.run(
        ["cc", *flags, "-isystem", sysconfig.get_path("include"), *files], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr


# What is written about it


def test_version_is_one() -> None:
    import nsutil

    assert PROJECT["project"]["version"] == nsutil.__version__
    assert f"## {nsutil.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_promises_name_incidents() -> None:
    rows = tomllib.loads((ROOT / "docs/explanation/incidents.toml").read_text())["incident"]
    groups = re.findall(r"\(((?:[ABCD]\d+(?:, )?)+)\)", (ROOT / "SECURITY.md").read_text())
    named = {ident for group in groups for ident in group.split(", ")}
    assert named
    assert named <= {row["id"] for row in rows}


def test_changelog_sections_are_in_order() -> None:
    order = ["New", "Changed", "Removed", "Faster", "Fixed", "Security", "Packaging", "Documentation"]
    for version in re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(), flags=re.M)[1:]:
        found = re.findall(r"^### (.*)$", version, re.M)
        assert found == [name for name in order if name in found]


def test_make_help_lists_every_target() -> None:
    text = (ROOT / "Makefile").read_text()
    targets = set(re.search(r"^\.PHONY: (.*)$", text, re.M)[1].split())  # type: ignore[index]
    done = subprocess.run(["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True, timeout=60)
    assert set(re.findall(r"^  make (\S+)", done.stdout, re.M)) == targets - {"$(LINTS)"}


WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_trust_little(path: Path) -> None:
    """Actions are pinned by commit, nothing may be written, and only what publishes gets an identity."""
    text = path.read_text()
    used = re.findall(r"uses: (.*)", text)
    assert used
    assert [line for line in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)] == []
    assert text.count("actions/checkout@") == text.count("persist-credentials: false")
    assert "\npermissions:\n  contents: read\n" in text
    writes = re.findall(r"(\w[\w-]*): write", text)
    assert writes == (["id-token"] if "gh-action-pypi-publish" in text else [])
    assert "secrets." not in text


def test_workflows_know_every_python() -> None:
    known = {line.rsplit(" ", 1)[1] for line in PROJECT["project"]["classifiers"] if re.search(r":: 3\.\d+$", line)}
    tests = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    matrix = re.search(r"python: \[(.*)\]", tests)
    assert matrix is not None
    tested = set(re.findall(r'"(3\.\d+)"', matrix[1]))
    built = {name.replace("cp3", "3.").removesuffix("-*") for name in PROJECT["tool"]["cibuildwheel"]["build"]}
    assert tested == {name for name in built if not name.endswith("t")} == known


def test_readme_commands_exist() -> None:
    text = (ROOT / "README.md").read_text()
    targets = set(re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)[1].split())  # type: ignore[index]
    named = set(re.findall(r"^    make (\w+)", text, re.M))
    assert {"demo", "test"} <= named <= targets


README_CODE = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)


@support.needs_root
@pytest.mark.serial
@pytest.mark.parametrize("code", README_CODE, ids=range(len(README_CODE)))
def test_readme_code_runs(code: str, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    if missing := re.search(r"ModuleNotFoundError: (No module named 'nsutil\..*)", done.stderr):
        pytest.skip(missing[1])
    assert done.returncode == 0, done.stderr
