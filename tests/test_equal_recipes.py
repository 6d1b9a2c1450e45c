"""What equal recipes share: their plans, never their blocks, and nothing that was looked up."""

from __future__ import annotations

import inspect
import os
import pickle
import resource
import subprocess

import pytest
from support import in_child, needs_root

from nsutil import ALL, NET, TIME, UTS, Namespace, enter, run

needs_users = pytest.mark.skipif(not os.path.exists("/etc/passwd"), reason="needs /etc/passwd")


@pytest.mark.parametrize("options", [{}, {"hostname": "box"}, {"hostname": "box", "strict": True}])
def test_plans_are_shared_and_blocks_are_not(options):
    first, second = Namespace(UTS, **options), Namespace(UTS, **options)
    assert first == second
    assert first is not second
    assert first._kept is second._kept


@pytest.mark.parametrize("copy", [lambda box: pickle.loads(pickle.dumps(box)), lambda box: box.replace()])
def test_copies_share_too(copy):
    box = Namespace(UTS, hostname="box")
    assert copy(box) == box
    assert copy(box)._kept is box._kept


def test_recipes_that_differ_share_nothing():
    boxes = [Namespace(), Namespace(UTS), Namespace(NET), Namespace(UTS, hostname="a"), Namespace(UTS, hostname="b")]
    boxes += [Namespace(UTS, strict=True), Namespace(NET, loopback=False), Namespace(ALL, init=False)]
    assert len({id(box._kept) for box in boxes}) == len(boxes)


def test_options_are_attributes_as_they_were_written():
    box = Namespace(TIME, monotonic=-1.5, boottime=3, rlimits={resource.RLIMIT_CORE: (0, 1)}, umask=0o22)
    assert (box.monotonic, box.boottime, box.umask) == (-1.5, 3, 0o22)
    assert box.rlimits == {resource.RLIMIT_CORE: (0, 1)}
    assert (Namespace().monotonic, Namespace().rlimits) == (None, None)


def test_equal_values_of_wrong_types_are_still_refused():
    Namespace(0), Namespace(umask=0), Namespace(timeout=1)
    for new in (False, 0.0):
        with pytest.raises(TypeError):
            Namespace(new)
    with pytest.raises(TypeError):
        Namespace(umask=False)
    with pytest.raises(TypeError):
        Namespace(timeout=True)
    with pytest.raises(TypeError, match="unexpected keyword argument 'hostnam'"):
        Namespace(UTS, hostnam="box")


@needs_root
def test_the_older_of_two_equal_blocks_cannot_go_first():
    def body():
        before = os.stat("/proc/thread-self/ns/uts").st_ino
        outer, inner = Namespace(UTS), Namespace(UTS)
        outer.__enter__()
        inner.__enter__()
        with pytest.raises(RuntimeError, match="out of order"):
            outer.__exit__(None, None, None)
        inner.__exit__(None, None, None)
        return os.stat("/proc/thread-self/ns/uts").st_ino == before

    assert in_child(body)


@needs_root
@needs_users
def test_names_of_users_are_looked_up_each_time():
    assert Namespace(uid="root")._kept is not Namespace(uid="root")._kept
    assert Namespace(gid="root")._kept is not Namespace(gid="root")._kept


@needs_root
def test_targets_are_pinned_each_time_and_not_for_longer(tmp_path):
    def body():
        for _ in range(2):  # the first imports
            before = sorted(os.listdir("/proc/self/fd"))
            with subprocess.Popen(["sleep", "100"]) as target:
                run(["true"], enter=target.pid)
                run(["true"], new=UTS, enter=target.pid)
                target.kill()
            # An end that a kept recipe would not see, were the pid used again.
            with pytest.raises(ProcessLookupError):
                run(["true"], enter=target.pid)
        return before, sorted(os.listdir("/proc/self/fd"))

    before, after = in_child(body)
    assert before == after


@needs_root
def test_a_closed_target_is_refused_by_a_recipe_already_used():
    def body():
        held = Namespace(NET).create()
        box = enter(held)
        with box:
            pass
        held.close()
        with pytest.raises(ValueError, match="closed"), box:
            pass

    in_child(body)


def test_the_signature_names_every_option():
    parameters = inspect.signature(Namespace).parameters
    assert list(parameters)[:3] == ["new", "enter", "uid_map"]
    assert "self" not in parameters
    assert {"hostname", "timeout", "mounts"} <= parameters.keys()


def test_subclasses_are_made_as_they_say():
    class Box(Namespace):
        def __init__(self, name: str) -> None:
            super().__init__(UTS, hostname=name)

    assert Box("a").hostname == "a"
    assert type(Box("a")) is Box
