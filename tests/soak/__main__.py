"""All operations of nsutil from several threads, with random kills, for a while; then nothing may be left.

    python tests/soak [--seconds 3600] [--threads 8] [--seed N] [--user] [--only REGEX] [--plant WHAT,...]

A run is a row of rounds, each in a process of its own: some end by themselves, some are killed at a random moment.
Between operations each thread must be in its own namespaces; every few seconds, and at the end, the process must hold
what it held before; after each round no process, name, mount, file or namespace may be left.  ``--user`` becomes an
ordinary user first, who can do fewer operations.  ``--plant`` makes violations on purpose.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pickle
import random
import select
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent))
    sys.path.append(str(HERE.parent.parent))  # unless another build is there

import support  # noqa: E402
from soak import looks  # noqa: E402
from soak.operations import OPERATIONS  # noqa: E402
from soak.rounds import Setting, serve  # noqa: E402

from nsutil import NotANamespace, NSType, StaleReference, named  # noqa: E402

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
# For what ends with the round's process, or by itself soon after; for the round, beyond its time.
END, BEYOND = 20.0, 240.0
# A round may have this much more at its end than when it had warmed up, in kilobytes (a sanitizer keeps what was freed)
# and Python objects.
MEMORY, OBJECTS = 16 * 1024, 20_000
REFERENCES = 300


class Soak:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.plant = frozenset(options.plant.split(",")) - {""}
        self.patience = 2.0 if self.plant else END
        self.rng = random.Random(options.seed)
        self.counts: Counter[tuple[str, str]] = Counter()
        self.longest: dict[str, float] = {}
        self.violations: list[str] = []
        self.references: list[str] = []
        self.statuses: dict[int, int] = {}
        self.rest = b""
        self.memory: list[tuple[int, int]] = []
        self.rounds = self.killed = self.orphans = self.gone = 0
        self.busy = 0.0
        self.directory = ""
        self.cgroup: str | None = None

    # ---------------------------------------------------------- surroundings

    def set_up(self) -> None:
        """Mounts and names of its own, a root directory for containers, and signals that programs inherit (nohup)."""
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        support.prctl(PR_SET_CHILD_SUBREAPER, 1)
        if os.geteuid() == 0:
            support.private_run()
            self.cgroup = make_cgroup()
        self.directory = tempfile.mkdtemp(prefix="nsutil-soak-")
        os.environ["TMPDIR"] = tempfile.tempdir = self.directory
        for name in ("usr", "proc", "dev", "sys", "tmp"):
            os.mkdir(f"{self.directory}/{name}", 0o755)
        for name in ("bin", "lib", "lib64", "sbin"):
            if os.path.islink(f"/{name}"):
                os.symlink(f"usr/{name}", f"{self.directory}/{name}")
        os.chmod(self.directory, 0o777)

    def tear_down(self) -> None:
        for pid in looks.descendants():
            looks.signal_below(parent_of(pid), pid, signal.SIGKILL)
        self.wait_for_end()
        shutil.rmtree(self.directory, ignore_errors=True)
        if self.cgroup:
            os.rmdir(self.cgroup)

    # ---------------------------------------------------------------- rounds

    def run(self) -> None:
        """Rounds until the time is over; the first and the last end by themselves."""
        end = time.monotonic() + self.options.seconds
        looks.names()  # makes nothing, and imports what is needed
        before = looks.state(self.directory)
        whole = max(2.0, min(300.0, self.options.seconds / 3))
        while not self.violations and (left := end - time.monotonic()) > 0:
            self.rounds += 1
            seconds, kill_after = min(left, whole), None
            if self.rounds % 2 == 0 and left > 3:
                kill_after = self.rng.uniform(0.05, min(20.0, self.options.seconds / 8))
                seconds = 60.0
                self.killed += 1
            self.round(seconds, kill_after)
            self.look(before, killed=kill_after is not None)

    def round(self, seconds: float, kill_after: float | None) -> None:
        """One process, to its end or its kill."""
        ours, theirs = os.pipe()
        who = self.options.seed, self.rounds, seconds, self.options.threads
        setting = Setting(*who, self.directory, self.cgroup, theirs, self.plant, self.options.only)
        pid = os.fork()
        if pid == 0:
            os.close(ours)
            become_round(self.options.user, setting)
        os.close(theirs)
        pidfd = os.pidfd_open(pid)
        self.rest = b""
        begin = time.monotonic()
        try:
            if not self.listen(ours, pidfd, begin + (kill_after or seconds + BEYOND)):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            self.listen(ours, pidfd, time.monotonic() + END)
            while pid not in self.statuses:
                self.reap()
            status = os.waitstatus_to_exitcode(self.statuses[pid])
        finally:
            os.close(pidfd)
            os.close(ours)
        self.busy += time.monotonic() - begin
        if kill_after is None and status not in (0, 1):
            self.violations.append(f"the process of round {self.rounds} ended with {status}")
        self.judge_memory()

    def listen(self, channel: int, pidfd: int, until: float) -> bool:
        """Take what the round says; whether it has ended in time.

        What is left to this process must be reaped at once: PID namespaces cannot end before.
        """
        poll = select.poll()
        poll.register(channel, select.POLLIN)
        poll.register(pidfd, select.POLLIN)
        while (left := until - time.monotonic()) > 0:
            ready = dict(poll.poll(min(left * 1000, 20)))
            self.reap()
            if ready.get(channel, 0) & select.POLLIN:
                *lines, self.rest = (self.rest + os.read(channel, 1 << 16)).split(b"\n")
                for line in lines:
                    self.note(*map(json.loads, line.split(b"\t")))
            elif ready:  # it has ended, or nobody can say anything any more
                return bool(select.select([pidfd], [], [], max(0.0, left))[0])
        return False

    def note(self, kind: str, *words: object) -> None:
        if kind == "op":
            name, outcome, seconds = words
            self.counts[str(name), str(outcome)] += 1
            self.longest[str(name)] = max(self.longest.get(str(name), 0.0), float(str(seconds)))
        elif kind == "ref":
            self.references = [*self.references[-REFERENCES:], str(words[0])]
        elif kind == "memory":
            self.memory.append((int(str(words[0])), int(str(words[1]))))
        elif kind == "violation":
            self.violations.append(str(words[0]))

    # -------------------------------------------------------------- verdicts

    def judge_memory(self) -> None:
        """From where it has warmed up; a round that was killed young says nothing."""
        if len(self.memory) >= 3:
            first, last = self.memory[len(self.memory) // 3], self.memory[-1]
            if (last[0] - first[0] > MEMORY and not support.SANITIZED) or last[1] - first[1] > OBJECTS:
                self.violations.append(f"memory grew (kB, objects): {self.memory}")
        self.last_memory = self.memory or getattr(self, "last_memory", [])
        self.memory = []

    def look(self, before: dict[str, object], killed: bool) -> None:
        """Nothing may be left of a round but names, where it was killed; those must be whole or stale."""
        if killed:
            self.violations += remove_names()
            # Killed while it had a process stopped, such as one of a tree that it was about to kill.
            for pid in looks.descendants():
                looks.signal_below(parent_of(pid), pid, signal.SIGCONT)
        self.violations += [f"a process is left: {looks.describe(pid)}" for pid in self.wait_for_end()]
        for line in looks.differences(before, looks.state(self.directory)):
            self.violations.append(f"left after round {self.rounds}: {line}")
        deadline = time.monotonic() + self.patience
        for reference in self.references:
            if not is_gone(reference, deadline):
                self.violations.append(f"a namespace is left: {pickle.loads(bytes.fromhex(reference))}")
            self.gone += 1
        self.references = []

    def wait_for_end(self) -> list[int]:
        """Reap what comes to this process; what still runs."""
        deadline = time.monotonic() + self.patience
        while True:
            self.reap()
            left = looks.descendants()
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.02)

    def reap(self) -> None:
        found = looks.reap()
        self.orphans += len(found)
        self.statuses |= found

    def report(self) -> None:
        total = sum(self.counts.values())
        who = "an ordinary user" if self.options.user or os.geteuid() else "root"
        for name, operation in OPERATIONS.items():
            found = {outcome: n for (which, outcome), n in sorted(self.counts.items()) if which == name}
            if found:
                print(f"{name:24} {sum(found.values()):7}  {self.longest[name]:6.2f} s at most  {words(found)}")
            elif operation.root and who != "root":
                print(f"{name:24}          left out: it needs root")
        print(
            f"seed {self.options.seed}, {self.options.threads} threads, as {who}: {total} operations in "
            f"{self.busy:.0f} s, {total / max(self.busy, 0.01):.0f} a second; {self.rounds} rounds, {self.killed} of "
            f"them killed; {self.orphans - self.rounds} orphans reaped; {self.gone} namespaces looked for, all gone"
        )
        print(f"memory of the last round, in kB: {[kilobytes for kilobytes, _ in self.last_memory]}")
        for violation in self.violations:
            print(f"VIOLATION (seed {self.options.seed}, round {self.rounds}): {violation}")
        print(f"{len(self.violations)} violations")


def words(found: dict[str, int]) -> str:
    return ", ".join(f"{count} {outcome}" for outcome, count in found.items())


def parent_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
    return "self"


def make_cgroup() -> str | None:
    """A cgroup for some of the programs; None where this machine lets none be made."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        fields = line.split()
        if fields[2] == "cgroup2":
            with contextlib.suppress(OSError):
                path = f"{fields[1]}/nsutil-soak-{os.getpid()}"
                os.mkdir(path)
                return path
    return None


def become_round(user: bool, setting: Setting) -> None:
    try:
        if user:
            support.drop_to_user()
        support.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        support.prctl(PR_SET_CHILD_SUBREAPER, 0)
        serve(setting)
    finally:
        os._exit(3)


def remove_names() -> list[str]:
    """Those that a killed round left: each must be whole or stale, and go."""
    wrong = []
    for nstype in NSType:
        for name in named.list(nstype):
            try:
                with contextlib.suppress(NotANamespace):
                    named.open(name, nstype).close()
                named.remove(name, nstype)
            except Exception as error:
                wrong.append(f"the name {nstype} {name} of a killed process: {error!r}")
    return wrong


def is_gone(reference: str, deadline: float) -> bool:
    while True:
        try:
            pickle.loads(bytes.fromhex(reference)).open().close()
        except StaleReference:
            return True
        except PermissionError:  # not for an ordinary user to know
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--user", action="store_true")
    parser.add_argument("--plant", default="")
    parser.add_argument("--only", default="", help="a regular expression for the names of operations")
    soak = Soak(parser.parse_args())
    support.preload()
    soak.set_up()
    try:
        soak.run()
    finally:
        soak.tear_down()
        soak.report()
    return 1 if soak.violations else 0


if __name__ == "__main__":
    sys.exit(main())
