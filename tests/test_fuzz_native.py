"""The fuzzer of the parsers of C: a moment of what `make fuzz` does, its findings, and that it finds anything."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import support

FUZZ = support.ROOT / "fuzz"
NAMES = "c-children c-descriptors c-mounts c-options c-paths c-process c-relations c-scan c-submounts".split()

# (parser, input): what was wrong.
FORMER = {
    ("c-mounts", b"36 35 0:4 net:[4] /a\\\1\2\3 rw - nsfs nsfs rw\n"): "a negative number was shifted to the left",
    ("c-process", b"\0"): "nothing was copied to nowhere",
    (
        "c-scan",
        b"\xff\x0faaaamntaaa\xff\x0f\x91\x91\0\0\0\0\xff@aaaaa=aeup:[ta\0\0\0\0\0ta\xfd\0e\xfd\xfd\xfd",
    ): "a namespace without an inode was looked for before the table",
    ("c-submounts", b"pos:\nmnt_id:\t33333333333333333333"): "a mount's number of many digits overflowed",
    ("c-children", b"12 4294967295 "): "whatever was in the list was killed",
    ("c-options", b"a,,=b"): "options without a name were handed on",
    ("c-paths", b"/" + b"=" * 256 + b"\0a/c\0#\0\0\xe1\0\1"): "a name that nothing can have was found to be missing",
    ("c-descriptors", b"\1\1\1\1" + b"\xff" * 9 + b"\1" * 4): "a name of many digits overflowed",
}

PLANTED = """
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerInitialize(int *argc, char ***argv) { return argc && argv ? 0 : 1; }

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 0 && data[0] == '(')
        if (size > 1 && data[1] == ':')
            if (size > 2 && data[2] == 0xfe)
                abort();
    return 0;
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FUZZ))
        import native

        assert list(native.SEEDS) == NAMES
        yield native.build(tmp_path_factory.mktemp("native"))


def run(program: Path, name: str, inputs: list[bytes], folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    for number, data in enumerate(inputs):
        (folder / str(number)).write_bytes(data)
    environment = {"NSUTIL_FUZZ_TARGET": name}
    command = [str(program), *options, f"-artifact_prefix={folder}/", str(folder)]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, errors="replace", timeout=120, check=False
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_moment_of_each(program: Path, name: str, tmp_path: Path) -> None:
    import native

    done = run(program, name, native.SEEDS[name], tmp_path, "-runs=3000", "-seed=1", "-print_final_stats=1")
    assert done.returncode == 0, done.stderr
    assert "number_of_executed_units: 3000" in done.stderr


@pytest.mark.parametrize(("name", "data"), FORMER, ids=FORMER.values())
def test_what_was_found(program: Path, name: str, data: bytes, tmp_path: Path) -> None:
    done = run(program, name, [data], tmp_path, "-runs=0")
    assert done.returncode == 0, done.stderr


def test_the_driver_finds_its_way(tmp_path: Path) -> None:
    """Three conditions, one within the other, each of them rare."""
    program, source = tmp_path / "planted", tmp_path / "planted.c"
    source.write_text(PLANTED)
    words = ["gcc", "-fsanitize=address", "-fsanitize-coverage=trace-pc", "-c", str(source), "-o", f"{program}.o"]
    subprocess.run(words, check=True)
    words = ["gcc", "-fsanitize=address", str(FUZZ / "c/driver.c"), f"{program}.o", "-o", str(program)]
    subprocess.run(words, check=True)
    folder = tmp_path / "corpus"
    folder.mkdir()
    done = run(program, "", [], folder, "-runs=2000000", "-max_len=8")
    assert done.returncode < 0, done.stderr
    (found,) = folder.glob("crash-*")
    assert found.read_bytes().startswith(b"(:\xfe")
