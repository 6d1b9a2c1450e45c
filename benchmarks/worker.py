"""One row, measured in a process of its own: ``worker.py KEY SECONDS QUICK OUTPUT``.

Pinned to the last CPU and before all other processes where that is allowed, so
that they disturb less; children inherit both.  Not at real-time priority: on
Linux 6.18 a system call that waited for the kernel's own work on that CPU kept
it from being done, for ever.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import rows
from measure import Bench


def settle_down(pinned: bool) -> str:
    """Ask for one CPU and the highest priority; what was had."""
    had = []
    if pinned:
        try:
            cpu = max(os.sched_getaffinity(0))
            os.sched_setaffinity(0, {cpu})
            had.append(f"CPU {cpu}")
        except OSError:
            pass
    try:
        os.setpriority(os.PRIO_PROCESS, 0, -20)
        had.append("nice -20")
    except OSError:
        pass
    return ", ".join(had) or "nothing"


def measure(key: str, seconds: float, quick: bool) -> dict[str, Any]:
    """The figures of a row; "error" where it failed."""
    row = rows.load()[key]
    bench = Bench(key, row.title, row.unit, seconds, quick)
    how = settle_down(row.pinned)
    try:
        row.prepare(bench)
        bench.run()
        result = bench.result()
    except Exception:
        bench.stack.close()
        result = {**bench.result(), "error": traceback.format_exc()}
    return {**result, "priority": how}


if __name__ == "__main__":
    Path(sys.argv[4]).write_text(json.dumps(measure(sys.argv[1], float(sys.argv[2]), sys.argv[3] == "1")))
