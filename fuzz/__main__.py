"""Coverage-guided fuzzing of everything that reads text: ``python fuzz [SECONDS] [NAME...]``.

Each parser gets its share of the time, in a process of its own. Inputs that
reach new code are kept in build/fuzz/NAME and are where the next run starts.
The first input that makes a parser raise what it does not document ends the
run of that parser, is kept in build/fuzz, and makes the exit status 1.
"""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
KEPT = HERE.parent / "build" / "fuzz"
NAMES = (
    "box doctor environment filter idmap jupyter lsns message mountinfo netns nsenter options subuid tree types unshare"
).split()


def fuzz(name: str, seconds: str) -> None:
    """One parser, in this process, which ends with it."""
    import atheris

    with atheris.instrument_imports(include=["nsutil"]):
        sys.path.insert(0, str(HERE.parent))
        targets = importlib.import_module("targets")
    target = targets.TARGETS[name]
    corpus = KEPT / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed{number}").write_bytes(seed.encode("utf-8", "surrogateescape"))
    options = [f"-max_total_time={seconds}", "-max_len=400", "-timeout=10", "-verbosity=0", "-print_final_stats=1"]
    atheris.Setup(["fuzz", *options, f"-artifact_prefix={KEPT}/{name}-", str(corpus)], target)
    atheris.Fuzz()


def report(name: str, done: subprocess.CompletedProcess[str]) -> None:
    runs = [line.split()[-1] for line in done.stderr.splitlines() if "number_of_executed_units" in line]
    print(f"{name:10} {runs[0] if runs else '?':>9} inputs  {'FAILED' if done.returncode else 'ok'}", flush=True)
    if done.returncode:
        print(done.stdout[-3000:], done.stderr[-3000:], sep="\n", flush=True)


def main(argv: list[str]) -> int:
    if importlib.util.find_spec("atheris") is None:
        print("fuzz: skipped, there is no atheris for this Python and machine")
        return 0
    seconds = float(argv[0]) if argv else 60.0
    names = argv[1:] or NAMES
    failed = 0
    for name in names:
        command = [sys.executable, str(HERE), "--one", name, str(max(1, round(seconds / len(names))))]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        report(name, done)
        failed += done.returncode != 0
    return failed != 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        fuzz(*sys.argv[2:4])
    sys.exit(main(sys.argv[1:]))
