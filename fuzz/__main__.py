"""Coverage-guided fuzzing of everything that reads text: ``python fuzz [--seed N] [SECONDS] [NAME...]``.

Each parser gets its share of the time, in a process of its own. Inputs that
reach new code are kept in build/fuzz/NAME and are where the next run starts.
The first input that makes a parser raise what it does not document ends the
run of that parser, is kept in build/fuzz, and makes the exit status 1.  With a
seed the same inputs are tried in the same order each time, as many as the time
allows.

Parsers of Python run under atheris. Those of C (c-...) are compiled apart,
with sanitizers, from src/ and fuzz/c: see native.py.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import native  # noqa: E402

KEPT = HERE.parent / "build" / "fuzz"
NAMES = (
    "box doctor environment filter idmap jupyter lsns message mountinfo netns nsenter options subuid tree types unshare"
).split()


def fuzz(name: str, seconds: float, seed: int) -> None:
    """One parser, in this process, which ends with it."""
    import atheris

    with atheris.instrument_imports(include=["nsutil"]):
        sys.path.insert(0, str(HERE.parent))
        targets = importlib.import_module("targets")
    target = targets.TARGETS[name]
    first = [text.encode("utf-8", "surrogateescape") for text in target.seeds]
    atheris.Setup(["fuzz", *options(name, seconds, seed, first)], target)
    atheris.Fuzz()


def options(name: str, seconds: float, seed: int, first: list[bytes]) -> list[str]:
    """What libFuzzer is told, once there is something to start from.  It reads seed 0 as any."""
    corpus = KEPT / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(first):
        (corpus / f"seed{number}").write_bytes(data)
    words = [f"-max_total_time={max(1, round(seconds))}", f"-seed={seed}", "-max_len=400", "-timeout=10"]
    return [*words, "-verbosity=0", "-print_final_stats=1", f"-artifact_prefix={KEPT}/{name}-", str(corpus)]


def report(name: str, done: subprocess.CompletedProcess[str]) -> None:
    runs = [line.split()[-1] for line in done.stderr.splitlines() if "number_of_executed_units" in line]
    print(f"{name:13} {runs[0] if runs else '?':>9} inputs  {'FAILED' if done.returncode else 'ok'}", flush=True)
    if done.returncode:
        print(done.stdout[-3000:], done.stderr[-3000:], sep="\n", flush=True)


def missing(name: str) -> str:
    """Why this parser can't be fuzzed here; empty where it can."""
    if name in native.SEEDS:
        return "" if native.compiler() else "there is no C compiler"
    return "" if importlib.util.find_spec("atheris") else "there is no atheris for this Python and machine"


def run(name: str, seconds: float, seed: int) -> bool:
    """Fuzz one parser; whether it held."""
    environment = dict(os.environ)
    command = [sys.executable, str(HERE), "--one", "--seed", str(seed), str(seconds), name]
    if name in native.SEEDS:
        environment["NSUTIL_FUZZ_TARGET"] = name
        command = [str(native.build(KEPT)), *options(name, seconds, seed, native.SEEDS[name])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", check=False)
    report(name, done)
    return done.returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz", description="Fuzz everything that reads text.")
    parser.add_argument("--seed", type=int, default=0, help="try the same inputs each time")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("seconds", type=float, nargs="?", default=60.0, help="for all of them together (default: 60)")
    parser.add_argument("names", nargs="*", default=[*NAMES, *native.SEEDS], help="of parsers (default: all)")
    wanted = parser.parse_args()
    names = wanted.names
    if unknown := set(names) - {*NAMES, *native.SEEDS}:
        parser.error(f"no parser is called {', '.join(sorted(unknown))}: {', '.join([*NAMES, *native.SEEDS])}")
    if wanted.one:
        fuzz(names[0], wanted.seconds, wanted.seed)
    for reason in sorted({missing(name) for name in names} - {""}):
        print(f"fuzz: {', '.join(name for name in names if missing(name) == reason)} skipped, {reason}", flush=True)
    names = [name for name in names if not missing(name)]
    share = wanted.seconds / max(1, len(names))
    return sum(not run(name, share, wanted.seed) for name in names) != 0


if __name__ == "__main__":
    sys.exit(main())
