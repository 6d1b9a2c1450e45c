"""One round: a process whose threads do operations while some of their children are killed, stopped and signalled."""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import gc
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple, NoReturn

import support
from soak import looks
from soak.operations import OPERATIONS, Worker, World, Wrong

from nsutil import PID, USER, UTS, ChildDied, Namespace, RestoreError

# How long what is ending anyway may take, and an operation of a thread that is wanted elsewhere, in seconds.
SETTLE, STUCK = 20.0, 150.0
# What an operation may end with when one of its processes was killed.
EXCUSED = (Wrong, ChildDied, BrokenProcessPool, ProcessLookupError, ConnectionError)
# A process cannot be made in a PID namespace whose first one was killed, nor looked at.  One that is
# joined while it ends gives EPERM; ECANCELED: a joiner was killed.
EXCUSED_ERRNOS = {errno.ENOMEM, errno.ESRCH, errno.ENOENT, errno.EPIPE, errno.EPERM, errno.ECANCELED}
HARMS_A_SECOND = 40.0


class Setting(NamedTuple):
    """What makes a round; ``plant``: violations that are made on purpose."""

    seed: int
    number: int
    seconds: float
    threads: int
    directory: str
    cgroup: str | None
    channel: int
    plant: frozenset[str]
    only: str


class Round:
    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.pid = os.getpid()
        seed = f"{setting.seed} {setting.number}"
        self.world = World(setting.directory, setting.cgroup)
        self.workers = [Worker(index, seed, self.world) for index in range(setting.threads)]
        self.rng = random.Random(seed)
        self.wakeups = threading.Condition()
        self.waiting = 0
        self.go = self.over = False
        self.sending = threading.Lock()
        self.failed = False
        self.kept: list[object] = []

    # ------------------------------------------------------------ the report

    def send(self, *words: object) -> None:
        """A line to the supervisor."""
        data = "\t".join(json.dumps(word) for word in words).encode() + b"\n"
        with self.sending:
            while data:
                data = data[os.write(self.setting.channel, data) :]

    def violation(self, what: str) -> None:
        self.failed = True
        self.send("violation", what)

    # ----------------------------------------------------------- the workers

    def work(self, worker: Worker) -> None:
        """The life of a thread."""
        worker.thread_id, worker.ident = threading.get_native_id(), threading.get_ident()
        table = {name: op for name, op in OPERATIONS.items() if worker.root or not op.root}
        table = {name: op for name, op in table.items() if re.search(self.setting.only, name)}
        choices, weights = list(table), [op.weight for op in table.values()]
        own = looks.of_thread()
        while self.may_go():
            worker.current = worker.rng.choices(choices, weights)[0]
            self.do(worker, worker.current)
            if changed := looks.differences(own, looks.of_thread()):
                # A child that ran on in place of its caller would be another process.
                who = f"process {os.getpid()} of {self.pid}, thread {threading.get_native_id()} of {worker.thread_id}"
                self.violation(f"after {worker.current} by thread {worker.index} ({who}): {changed}")
                return
            worker.current = ""

    def may_go(self) -> bool:
        """Wait while the others look; False at the end."""
        if not self.go:
            with self.wakeups:
                self.waiting += 1
                self.wakeups.notify_all()
                self.wakeups.wait_for(lambda: self.go or self.over)
                self.waiting -= 1
        return not self.over

    def do(self, worker: Worker, name: str) -> None:
        worker.hurt = False
        begin = time.monotonic()
        try:
            OPERATIONS[name].body(worker)
            outcome = "ok"
        except BaseException as error:
            outcome = self.judge(worker, name, error)
            del error
        self.send("op", name, outcome, time.monotonic() - begin)
        while worker.notes:
            self.send("ref", worker.notes.pop())

    def judge(self, worker: Worker, name: str, error: BaseException) -> str:
        """What an exception is counted as."""
        kind = type(error).__name__
        if isinstance(error, OPERATIONS[name].expected) and not isinstance(error, RestoreError):
            return kind
        excused = isinstance(error, EXCUSED) or getattr(error, "errno", None) in EXCUSED_ERRNOS
        if worker.hurt and excused and not isinstance(error, RestoreError):
            return f"{kind} after a kill"
        text = "".join(traceback.format_exception(error))
        killed = " (one of its processes was killed)" if worker.hurt else ""
        self.violation(f"{name} by thread {worker.index}{killed}:\n{text}")
        return f"FAILED: {kind}"

    # --------------------------------------------------- kills and interrupts

    def harm(self) -> None:
        """Something bad for somebody."""
        if self.rng.random() < 0.5:
            worker = self.rng.choice(self.workers)
            signal.pthread_kill(worker.ident, signal.SIGUSR1)  # EINTR
            return
        children = list(looks.children_by_thread())
        if not children:
            return
        thread, pid = self.rng.choice(children)
        parent: int | str = "self"
        while self.rng.random() < 0.5 and (below := list(looks.children_by_thread(pid))):
            parent, pid = pid, self.rng.choice(below)[1]
        number = self.rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP])
        again = (signal.SIGSTOP, signal.SIGCONT) if number == signal.SIGSTOP else (number,)
        looks.signal_below(parent, pid, *again, before=lambda: self.excuse(thread))

    def excuse(self, thread: int) -> None:
        """Whoever may have to do with that thread's child; it is the main thread's when its own has ended."""
        owners = [worker for worker in self.workers[1:] if worker.thread_id == thread]
        for worker in owners or self.workers:
            worker.hurt = True

    # ------------------------------------------------------------- the course

    def conduct(self) -> None:
        """Let the others work, and look in between at what must be as it was."""
        self.settle_in()
        before = looks.state(self.setting.directory)
        end = time.monotonic() + self.setting.seconds
        stretch = max(1.0, min(20.0, self.setting.seconds / 6))
        try:
            while (now := time.monotonic()) < end and not self.failed:
                self.let_work(min(end, now + stretch))
                self.settle_in()
                self.look(before)
        finally:
            with self.wakeups:
                self.over = True
                self.wakeups.notify_all()

    def let_work(self, until: float) -> None:
        with self.wakeups:
            self.go = True
            self.wakeups.notify_all()
        while time.monotonic() < until and not self.failed:
            time.sleep(self.rng.expovariate(HARMS_A_SECOND))
            self.harm()
        self.go = False

    def settle_in(self) -> None:
        """Until each worker is between two operations."""
        with self.wakeups:
            if self.wakeups.wait_for(lambda: self.waiting == len(self.workers), STUCK):
                return
        stuck = ", ".join(f"{w.index} in {w.current}" for w in self.workers if w.current)
        faulthandler.dump_traceback(sys.__stderr__)
        self.violation(f"stuck: {stuck}; below: {[looks.describe(pid) for pid in looks.descendants()]}")
        os._exit(4)

    def look(self, before: dict[str, object]) -> None:
        self.plant()
        self.world.shared.clear()
        deadline = time.monotonic() + (1 if self.setting.plant else SETTLE)
        while True:
            subprocess._cleanup()  # type: ignore[attr-defined]  # reaps what nobody waited for
            changed = looks.differences(before, looks.state(self.setting.directory))
            if not changed or time.monotonic() > deadline:
                break
            time.sleep(0.02)
        for line in changed:
            self.violation(f"left behind: {line}")
        self.send("memory", looks.memory(), len(gc.get_objects()))

    def plant(self) -> None:
        """What must be found, to show that it would be."""
        plant = self.setting.plant
        if "fd" in plant:
            self.kept.append(os.open("/dev/null", os.O_RDONLY))
        if "thread" in plant:
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        if "child" in plant:
            self.kept.append(Namespace(PID | USER).popen(["sleep", "60"]))
        if "orphan" in plant:
            subprocess.run(["sh", "-c", "sleep 40 &"], check=True, stdout=subprocess.DEVNULL)
        if "file" in plant:
            open(f"{self.setting.directory}/left", "w").close()
        if "memory" in plant:
            self.kept.append(os.urandom(32 << 20))


def warm_up() -> None:
    """What is opened once for all, such as the file of nsutil's init."""
    Namespace(PID | USER | UTS, uid_map="root").call(int)
    Namespace(PID | USER).create().close()


def serve(setting: Setting) -> NoReturn:
    """The process of a round; this is its main thread."""
    status = 2
    try:
        # The stream stays: of others Python does not free the lock in a forked child, where a thread printed.
        os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), 1)
        signal.signal(signal.SIGUSR1, lambda *_: None)
        warm_up()
        status = _serve(Round(setting))
    finally:
        with contextlib.suppress(BaseException):
            sys.stderr.flush()
        os._exit(status)


def _serve(this: Round) -> int:
    if "wrong" in this.setting.plant:
        OPERATIONS["chatter"] = OPERATIONS["call_that_raises"]._replace(expected=(), weight=9)
    threads = [threading.Thread(target=this.work, args=(worker,)) for worker in this.workers[1:]]
    threads.append(threading.Thread(target=this.conduct, name="conductor"))
    for thread in threads:
        thread.start()
    this.work(this.workers[0])
    for thread in threads:
        thread.join(STUCK)
    deadline = time.monotonic() + SETTLE
    while len(support.threads()) > 1 and not this.failed and time.monotonic() < deadline:
        time.sleep(0.01)
    if len(support.threads()) > 1 and not this.failed:
        this.violation(f"threads are left: {threading.enumerate()}")
    this.send("end")
    return 1 if this.failed else 0
