"""Speed against C floors and peers: ``python benchmarks --help``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import floors  # noqa: E402
import peers  # noqa: E402
import plots  # noqa: E402
import report  # noqa: E402
import rows  # noqa: E402
from measure import Bench  # noqa: E402

FULL_SECONDS, QUICK_SECONDS = 22.0, 2.0  # for each row of weight 1


def main() -> int:
    """Run what the command line asks for."""
    options = parse()
    if options.list:
        print("\n".join(f"{row.key:<12} {row.title}" for row in rows.load().values()))
        return 0
    if options.compare:
        print(report.comparison([json.loads(Path(name).read_text()) for name in options.compare]))
        return 0
    run = json.loads(Path(options.load).read_text()) if options.load else measure(options)
    if options.json:
        Path(options.json).write_text(json.dumps(run, indent=1) + "\n")
    if options.markdown:
        Path(options.markdown).write_text(report.markdown(run))
    if options.plots:
        plots.write(run, Path(options.plots))
    return int(any(row.get("error") for row in run["rows"]))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python benchmarks", description="Speed against C floors and peers.")
    parser.add_argument("--quick", action="store_true", help="about a minute instead of ten")
    parser.add_argument("--seconds", type=float, metavar="N", help="time for each row")
    parser.add_argument(
        "--row", action="append", metavar="NAME", choices=[*rows.load()], help="only this row; may be repeated"
    )
    parser.add_argument("--list", action="store_true", help="name the rows")
    parser.add_argument("--no-install", action="store_true", help="compare only with what is installed")
    parser.add_argument("--json", metavar="FILE", help="write all figures")
    parser.add_argument("--markdown", metavar="FILE", help="write the table of the documentation")
    parser.add_argument("--plots", metavar="DIRECTORY", help="write the plots of the documentation (SVG)")
    parser.add_argument("--load", metavar="FILE", help="take the figures of an earlier run instead of measuring")
    parser.add_argument(
        "--compare", metavar="FILE", nargs="+", help="show how far the ratios of several runs lie apart"
    )
    return parser.parse_args()


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All rows, one after the other; each is printed as it comes."""
    floors.compile_all()
    if not options.no_install:
        peers.install()
    chosen = [row for row in rows.load().values() if not options.row or row.key in options.row]
    each = options.seconds or (QUICK_SECONDS if options.quick else FULL_SECONDS)
    run: dict[str, Any] = {"about": about(options.quick), "rows": []}
    print(f"{len(chosen)} rows, about {each * sum(row.weight for row in chosen) / 60 * 1.2:.0f} min", file=sys.stderr)
    for number, row in enumerate(chosen, 1):
        print(f"[{number}/{len(chosen)}] {row.key} ...", end="\r", file=sys.stderr, flush=True)
        started = time.monotonic()
        result = measure_row(row, each * row.weight, options.quick)
        result["seconds"] = time.monotonic() - started
        run["rows"].append(result)
        print(report.text(result), end="\n\n", flush=True)
    print(report.summary(run))
    return run


def measure_row(row: rows.Row, seconds: float, quick: bool) -> dict[str, Any]:
    """One row in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="nsutil-bench-") as folder:
        output = Path(folder) / "result.json"
        args = [sys.executable, str(HERE / "worker.py"), row.key, str(seconds), str(int(quick)), str(output)]
        environment = {**os.environ, "PYTHONPATH": f"{HERE.parent}:{HERE}"}
        limit = 20 * seconds + 300
        if row.private:
            from nsutil import MNT, NET, Namespace, Tmpfs

            box = Namespace(MNT | NET, mounts=[Tmpfs("/run")], timeout=limit)
            done = box.run(args, env=environment)
        else:
            done = subprocess.run(args, env=environment, timeout=limit, check=False)
        if output.exists():
            result: dict[str, Any] = json.loads(output.read_text())
            return result
    nothing = Bench(row.key, row.title, row.unit, seconds, quick).result()
    return {**nothing, "error": f"the worker ended with status {done.returncode}"}


def about(quick: bool) -> dict[str, Any]:
    """Where the figures come from."""
    import nsutil

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "quick": quick,
        "nsutil": nsutil.__version__,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpu": models[0] if models else platform.machine(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg(),
        "peers": peers.versions(),
    }


if __name__ == "__main__":
    sys.exit(main())
