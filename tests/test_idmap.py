"""Id maps: what a recipe may say, what it means, who writes it, seen from inside and from outside."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import support

import nsutil
from nsutil import MNT, USER, IdMap
from nsutil import _idmap as idmap
from nsutil._mapper import Mapper
from nsutil._plan import PlanBuilder, Slots

IDS = 2**32 - 1
EINVAL = errno.EINVAL


# What is said


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ("root", "root"),
        ("current", "current"),
        ("auto", "auto"),
        ("subids", "subids"),
        ("all", "all"),
        ("none", "none"),
        (["root"], "root"),
        ("0:1000:1", (IdMap(0, 1000, 1),)),
        ("1000,0,1", (IdMap(0, 1000, 1),)),  # the old spelling: outer,inner,count
        ("0:1000:1,1:100000:65536", (IdMap(0, 1000), IdMap(1, 100000, 65536))),
        ("0:1000:1 1:100000:65536", (IdMap(0, 1000), IdMap(1, 100000, 65536))),
        ("root,1:100000:65536", ("root", IdMap(1, 100000, 65536))),
        (["current", "auto"], ("current", "auto")),
        (IdMap(5, 6, 7), (IdMap(5, 6, 7),)),
        ((5, 6, 7), (IdMap(5, 6, 7),)),
        ([(5, 6)], (IdMap(5, 6, 1),)),
        ([IdMap(0, 1), (1, 5, 3), "9:9:9"], (IdMap(0, 1), IdMap(1, 5, 3), IdMap(9, 9, 9))),
        ("0:0:4294967295", (IdMap(0, 0, IDS),)),
    ],
)
def test_spellings(value: object, stored: object) -> None:
    result = idmap.parse_map(value, "uid")
    assert result == stored
    assert idmap.parse_map(result, "gid") == stored
    assert hash(result) == hash(stored)
    assert pickle.loads(pickle.dumps(result)) == stored
    assert eval(repr(result)) == stored


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("", "''"),
        ("boot", "'boot'"),
        ("0:1:2:3", "'0:1:2:3'"),
        ("-1:0:1", "'-1:0:1'"),
        ("0:0x10:1", "'0:0x10:1'"),
        ("0:1:0", "count"),
        ("0:0:4294967296", "inside"),
        ("4294967295:0:1", "4294967295"),
        ([], "none"),
        (["none", "root"], '"none"'),
        ([IdMap(0, 10, 5), IdMap(4, 100, 1)], "IdMap(inside=4, outside=100, count=1) overlap inside"),
        ([IdMap(0, 10, 5), IdMap(100, 14, 1)], "IdMap(inside=100, outside=14, count=1) overlap outside"),
        ([IdMap(i, i) for i in range(341)], "IdMap(inside=340, outside=340, count=1)"),
        ([IdMap(10**9 + i, 10**9 + i) for i in range(200)], "4095 bytes"),
        ((1, 2, 3, 4), "(1, 2, 3, 4)"),
    ],
)
@pytest.mark.incident("A14")
def test_contradictions(value: object, named: str) -> None:
    with pytest.raises(ValueError, match=r"uid_map|IdMap") as caught:
        idmap.parse_map(value, "uid")
    assert named in str(caught.value)


@pytest.mark.parametrize("value", [None, 7, 1.5, True, b"root", {0: 1}, [0, 1000, 1], [None], (True, 0, 1), object()])
def test_wrong_types(value: object) -> None:
    with pytest.raises(TypeError):
        idmap.parse_map(value, "gid")


@pytest.mark.parametrize("args", [(-1, 0, 1), (0, -1, 1), (0, 0, 0), (0, 0, -1), (IDS, 0, 1), (0, IDS, 1), (1, 0, IDS)])
def test_ranges_are_checked(args: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"IdMap\("):
        IdMap(*args)


@pytest.mark.parametrize("args", [("0", 0, 1), (0, None, 1), (0, 0, 1.0), (True, 0, 1), (0, False)])
def test_range_types_are_checked(args: Any) -> None:
    with pytest.raises(TypeError):
        IdMap(*args)


def test_id_map_is_a_value() -> None:
    one = IdMap(0, 1000, 5)
    assert (one.inside, one.outside, one.count) == (0, 1000, 5)
    assert one == IdMap(inside=0, outside=1000, count=5) != IdMap(0, 1000, 6)
    assert one != (0, 1000, 5)
    assert {one, IdMap(0, 1000, 5)} == {one}
    assert eval(repr(one)) == one == pickle.loads(pickle.dumps(one))
    for change in (lambda: setattr(one, "count", 6), lambda: delattr(one, "count")):
        with pytest.raises(AttributeError, match="can't be changed"):
            change()
    assert IdMap(3, 4) == IdMap(3, 4, 1)


def test_the_limits_are_the_kernel_s() -> None:
    """340 entries and 4095 bytes pass both checks, ours and the kernel's; one more fails both."""
    most = [IdMap(i, i) for i in range(340)]
    idmap.check_entries("uid_map", most)
    long = [IdMap(10**9 + 2 * i, 10**9 + 2 * i) for i in range(170)]
    idmap.check_entries("uid_map", long[: 4095 // 24])
    if os.geteuid() == 0:
        assert write_from_parent(idmap.text_of(most)) == 0
        assert write_from_parent(idmap.text_of([*most, IdMap(340, 340)])) == EINVAL
        assert write_from_parent(idmap.text_of(long[: 4095 // 24])) == 0


def write_from_parent(text: str) -> int:
    """The errno of writing this map for a child."""
    return support.in_child(
        with_new_user_namespace, lambda pid: errno_of(lambda: plain_write(f"/proc/{pid}/uid_map", text))
    )


def plain_write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def errno_of(func: Callable[[], object]) -> int:
    try:
        func()
    except OSError as error:
        return error.errno or -1
    return 0


# What it means


def test_fill_goes_around_what_is_taken() -> None:
    assert idmap.fill([(100, 10)], []) == [IdMap(0, 100, 10)]
    assert idmap.fill([(100, 10)], [IdMap(0, 1000)]) == [IdMap(1, 100, 10)]
    assert idmap.fill([(100, 10)], [IdMap(3, 3)]) == [IdMap(0, 100, 3), IdMap(4, 103, 7)]
    assert idmap.fill([(100, 4), (200, 4)], [IdMap(2, 9, 2)]) == [IdMap(0, 100, 2), IdMap(4, 102, 2), IdMap(6, 200, 4)]
    assert idmap.fill([(100, 4)], [IdMap(0, 9), IdMap(1, 8)]) == [IdMap(2, 100, 4)]
    assert idmap.fill([(5, IDS - 5)], [IdMap(0, 0, IDS - 2)]) == [IdMap(IDS - 2, 5, 2)]


def test_words_mean_the_own_ids() -> None:
    assert idmap.resolve("root", "uid") == (IdMap(0, os.geteuid()),)
    assert idmap.resolve("root", "gid") == (IdMap(0, os.getegid()),)
    assert idmap.resolve("current", "uid") == (IdMap(os.geteuid(), os.geteuid()),)
    assert idmap.resolve("none", "uid") == ()
    assert idmap.resolve((IdMap(7, 8), "root"), "uid", own=9) == (IdMap(0, 9), IdMap(7, 8))
    with pytest.raises(ValueError, match="overlap inside"):
        idmap.resolve((IdMap(0, 8), "root"), "uid", own=9)


def test_all_is_what_this_namespace_has() -> None:
    def unmapped() -> tuple[IdMap, ...]:
        nsutil.unshare(USER)
        return idmap.resolve("all", "uid")

    lines = [line.split() for line in Path("/proc/self/uid_map").read_text().splitlines()]
    expected = sorted((int(inside), int(inside), int(count)) for inside, _, count in lines)
    assert [entry._values() for entry in idmap.resolve("all", "uid")] == expected
    assert support.in_child(unmapped) == ()


SUBIDS = """\
# comments and nonsense are passed over
nobody:200000:1000
somebody:1:100000

nobody:200500:10
nobody
nobody:5:0
nobody:-5:10
nobody:4294967290:100
nobody:abc:10
65534:300000:10
nobody:9999999999:1
"""
RANGES = [(200000, 1000), (300000, 10)]


def private_subids(text: str = SUBIDS) -> None:
    """This text as /etc/subuid and /etc/subgid, seen by this process alone."""
    nsutil.unshare(MNT)
    PRIVATE = 1 << 18 | 0x4000
    builder = PlanBuilder()
    builder.add("mount", None, b"/", None, PRIVATE, None, label="private")
    builder.add("mount", b"tmpfs", b"/mnt", b"tmpfs", 0, b"mode=755", label="tmpfs")
    builder.build().run()
    Path("/mnt/subids").write_text(text)
    Path("/mnt/subids").chmod(0o644)
    builder = PlanBuilder()
    for name in ("/etc/subuid", "/etc/subgid"):
        if not os.path.exists(name):
            pytest.skip(f"no {name} to mount on")
        builder.add("mount", b"/mnt/subids", name.encode(), None, 0x1000, None, label=f"bind {name}")
    builder.build().run()


def with_subids(func: Callable[..., Any], *args: Any, user: bool, text: str = SUBIDS, **options: Any) -> Any:
    """func's result in a child that sees SUBIDS, as root or as the ordinary user 65534."""

    def child() -> Any:
        private_subids(text)
        if user:
            support.drop_to_user(65534)
        return func(*args, **options)

    return support.in_child(child)


@support.needs_root
def test_subordinate_ids_by_name_and_by_number() -> None:
    for which in ("uid", "gid"):
        assert with_subids(idmap.subordinate, which, user=True) == RANGES
        assert with_subids(idmap.subordinate, which, 65534, user=False) == RANGES
    assert with_subids(idmap.subordinate, "uid", 4242, user=False, text="4242:7:7\nnobody:1:1\n") == [(7, 7)]


@support.needs_root
@pytest.mark.parametrize("which", ["uid", "gid"])
def test_no_subordinate_ids_is_an_error_that_says_so(which: str) -> None:
    with pytest.raises(PermissionError) as caught:
        with_subids(idmap.resolve, "auto", which, user=True, text="root:5:5\n")
    assert caught.value.filename == f"/etc/sub{which}"
    assert "nobody" in caught.value.step  # type: ignore[attr-defined]
    with pytest.raises(PermissionError, match="find the subordinate ids of 4242"):
        with_subids(idmap.subordinate, which, 4242, user=True)


@support.needs_root
def test_auto_and_subids() -> None:
    def both(spec: idmap.Spec) -> tuple[IdMap, ...]:
        result: tuple[IdMap, ...] = with_subids(idmap.resolve, spec, "uid", user=True)
        return result

    assert both("auto") == (IdMap(0, 65534), IdMap(1, 200000, 1000), IdMap(1001, 300000, 10))
    assert both("subids") == (IdMap(65534, 65534), IdMap(200000, 200000, 1000), IdMap(300000, 300000, 10))
    assert both(("root", "auto")) == both("auto")
    assert both(("current", "auto")) == (IdMap(0, 200000, 1000), IdMap(1000, 300000, 10), IdMap(65534, 65534))
    assert both(("root", "subids")) == (IdMap(0, 65534), IdMap(200000, 200000, 1000), IdMap(300000, 300000, 10))
    assert both((IdMap(5, 65534), "auto"))[:2] == (IdMap(0, 200000, 5), IdMap(5, 65534))


def test_defaults_and_deny() -> None:
    assert idmap.chosen(None, None) == ("current", "current")
    assert idmap.chosen("root", None) == ("root", "root")
    assert idmap.chosen(("current", "auto"), None) == (("current", "auto"), ("current", "auto"))
    assert idmap.chosen((IdMap(0, 5),), None) == ((IdMap(0, 5),), "current")
    assert idmap.chosen(None, "root") == ("current", "root")
    assert idmap.needs_deny(None, None)
    assert idmap.needs_deny("root", "current")
    assert not idmap.needs_deny("auto", None)
    assert not idmap.needs_deny("root", (IdMap(0, 0, 10),))
    with pytest.raises(ValueError, match=r"setgroups.*gid_map"):
        nsutil.Namespace("user", setgroups="allow")


@pytest.mark.incident("A34")
def test_maps_need_a_new_namespace() -> None:
    """A namespace that is joined has its map, and without one there is nothing to map."""

    def child() -> list[str]:
        said = []

        def attempt(pid: int) -> None:
            for make in (
                lambda: nsutil.enter(pid=pid, types="user", uid_map="root"),
                lambda: nsutil.enter(pid=pid, types="user", gid_map="root"),
                lambda: nsutil.Namespace("net", enter=nsutil.enter(pid=pid, types="user"), setgroups="deny"),
            ):
                with pytest.raises(ValueError, match="USER") as caught:
                    make()
                said.append(str(caught.value))

        with_new_user_namespace(attempt)
        return said

    assert [text.split("=")[0] for text in support.in_child(child)] == ["uid_map", "gid_map", "setgroups"]
    with pytest.raises(ValueError, match=r"uid_map='root' needs USER"):
        nsutil.Namespace("net", uid_map="root")


# Who writes it


def maps_inside() -> dict[str, Any]:
    """What a process in the new namespace sees."""
    files = {name: Path("/proc/self", name).read_text() for name in ("uid_map", "gid_map", "setgroups")}
    maps = {
        name: [IdMap(*map(int, line.split())) for line in text.splitlines()]
        for name, text in files.items()
        if name != "setgroups"
    }
    return {**maps, "setgroups": files["setgroups"].strip(), "uid": os.geteuid(), "gid": os.getegid()}


def write_self(uid_map: Any, gid_map: Any = None, setgroups: str | None = None) -> dict[str, Any]:
    """A child that writes its own map; what it sees then."""
    writer = idmap.map_writer(uid_map, gid_map, setgroups, Slots())
    assert writer is not None
    assert writer.self_write is not None
    nsutil.unshare(USER)
    writer.self_write.run()
    return maps_inside()


def with_new_user_namespace(func: Callable[[int], Any], after: Callable[[], Any] | None = None) -> Any:
    """func(pid) while the child pid waits in a new user namespace; its result, or that of after in the child."""
    ready, go = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            nsutil.unshare(USER)
            os.write(ready[1], b"r")
            os.close(go[1])
            os.read(go[0], 1)
            os.write(ready[1], pickle.dumps(after() if after else None))
        finally:
            os._exit(0)
    os.close(ready[1])
    os.close(go[0])
    try:
        os.read(ready[0], 1)
        result = func(pid)
        os.close(go[1])
        answer = pickle.loads(os.read(ready[0], 65536))
        return answer if after else result
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def write_outside(uid_map: Any, gid_map: Any = None, setgroups: str | None = None) -> dict[str, Any]:
    """A child whose map is written from outside; what it sees then."""
    uid_map = None if uid_map is None else idmap.parse_map(uid_map, "uid")
    gid_map = None if gid_map is None else idmap.parse_map(gid_map, "gid")
    writer = idmap.map_writer(uid_map, gid_map, setgroups, Slots())
    assert writer is not None
    assert writer.self_write is None
    result: dict[str, Any] = with_new_user_namespace(writer.writer, maps_inside)
    return result


@pytest.mark.parametrize("run", [support.in_child, support.as_user], ids=["root", "user"])
@pytest.mark.parametrize("word", ["root", "current"])
def test_a_single_id_is_written_by_the_child(run: Callable[..., Any], word: str) -> None:
    def child() -> tuple[int, int, dict[str, Any]]:
        return os.geteuid(), os.getegid(), write_self(word)

    uid, gid, seen = run(child)
    inside = (0, 0) if word == "root" else (uid, gid)
    assert seen == {
        "uid_map": [IdMap(inside[0], uid)],
        "gid_map": [IdMap(inside[1], gid)],
        "setgroups": "deny",
        "uid": inside[0],
        "gid": inside[1],
    }


def test_nothing_to_write() -> None:
    assert idmap.map_writer("none", None, None, Slots()) is None
    seen = support.in_child(write_self, "none", None, "deny")
    assert (seen["uid_map"], seen["gid_map"], seen["setgroups"]) == ([], [], "deny")


@support.needs_root
def test_root_writes_ranges_directly() -> None:
    ranges = [IdMap(0, 100000, 1000), IdMap(5000, 0)]
    seen = support.in_child(write_outside, ranges, ranges)
    assert seen["uid_map"] == seen["gid_map"] == ranges
    assert (seen["uid"], seen["gid"], seen["setgroups"]) == (5000, 5000, "allow")
    assert support.in_child(write_outside, ranges, ranges, "deny")["setgroups"] == "deny"
    assert support.in_child(write_outside, ranges, "current", "allow")["setgroups"] == "allow"
    seen = support.in_child(write_outside, "all")
    assert seen["uid_map"] == seen["gid_map"] == [IdMap(0, 0, IDS)]


@support.needs_root
@support.needs_program("newuidmap")
def test_a_user_s_ranges_are_written_by_newuidmap() -> None:
    seen = with_subids(write_outside, "auto", user=True)
    assert seen["uid_map"] == seen["gid_map"] == [IdMap(0, 65534), IdMap(1, 200000, 1000), IdMap(1001, 300000, 10)]
    assert (seen["uid"], seen["gid"], seen["setgroups"]) == (0, 0, "allow")
    assert with_subids(write_outside, "auto", None, "deny", user=True)["setgroups"] == "deny"
    seen = with_subids(write_outside, "subids", user=True)
    assert (seen["uid"], seen["gid"]) == (65534, 65534)
    seen = with_subids(write_outside, [IdMap(0, 200000, 5), IdMap(5, 65534)], user=True)
    assert seen["uid_map"] == [IdMap(0, 200000, 5), IdMap(5, 65534)]
    assert seen["gid_map"] == [IdMap(65534, 65534)]


@support.needs_root
@support.needs_program("newuidmap")
def test_what_newuidmap_says_is_quoted() -> None:
    with pytest.raises(PermissionError, match=r"newuidmap 0 5 10: .*not allowed") as caught:
        with_subids(write_outside, [IdMap(0, 5, 10)], user=True)
    assert str(caught.value.filename).endswith("/uid_map")
    with pytest.raises(PermissionError, match=r"newgidmap 0 5 10: "):
        with_subids(write_outside, "current", [IdMap(0, 5, 10)], user=True)


@support.needs_root
def test_a_missing_newuidmap_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(FileNotFoundError) as caught:
        with_subids(write_outside, "auto", user=True)
    assert caught.value.filename == "newuidmap"
    assert "newuidmap" in caught.value.step  # type: ignore[attr-defined]


@support.needs_root
@support.needs_program("newuidmap")
def test_a_lost_exit_status_does_not_hide_a_failure() -> None:
    """With SIGCHLD ignored nobody can know how newuidmap ended."""

    def child(value: Any) -> str:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        writer = idmap.map_writer(idmap.parse_map(value, "uid"), "current", None, Slots())
        assert writer is not None
        said = []

        def write(pid: int) -> None:
            try:
                writer.writer(pid)
            except PermissionError as error:
                said.append(str(error))

        with contextlib.suppress(ChildProcessError, ProcessLookupError):  # reaped by the kernel
            with_new_user_namespace(write)
        return "".join(said)

    assert with_subids(child, [IdMap(0, 200000, 5)], user=True) == ""
    assert "newuidmap 0 5 10" in with_subids(child, [IdMap(0, 5, 10)], user=True)


@support.needs_root
@pytest.mark.incident("A8")
def test_a_file_over_uid_map_is_noticed(tmp_path: Path) -> None:
    """A map that goes into a file laid over uid_map must not count as written (CVE-2025-52881 and its kin)."""
    trap = tmp_path / "trap"

    def child(cover: str, source: str) -> tuple[int, str]:
        trap.write_text("")
        nsutil.unshare(MNT)
        builder = PlanBuilder()
        builder.add("mount", None, b"/", None, 1 << 18 | 0x4000, None, label="private")
        builder.add("mount", source.encode(), cover.encode(), None, 0x1000, None, label="cover")
        builder.build().run()
        writer = idmap.map_writer("root", None, None, Slots())
        assert writer is not None
        assert writer.self_write is not None
        nsutil.unshare(USER)
        return errno_of(writer.self_write.run), Path("/proc/self/gid_map").read_text()

    assert support.in_child(child, "/proc/self/uid_map", str(trap)) == (errno.EXDEV, "")
    assert trap.read_text() == ""
    # Another file of procfs is no better.
    assert support.in_child(child, "/proc/self/uid_map", "/proc/self/loginuid") == (errno.EXDEV, "")


@support.needs_root
def test_owner_writes_from_outside() -> None:
    """A namespace that belongs to another user maps that user's ids."""
    writer = idmap.map_writer("root", None, None, Slots(), owner=(4242, 4243))
    assert writer is not None
    assert writer.self_write is None
    assert (writer.uid, writer.gid) == ((IdMap(0, 4242),), (IdMap(0, 4243),))


# In whole


def in_recipe(uid_map: Any, gid_map: Any = None, **options: Any) -> dict[str, Any]:
    """What a function in a child of this recipe sees; a program must see the same."""
    recipe = nsutil.Namespace("user", uid_map=uid_map, gid_map=gid_map, **options)
    seen: dict[str, Any] = recipe.call(maps_inside)
    command = "cat /proc/self/uid_map; id -u; id -g"
    *lines, uid, gid = recipe.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout.splitlines()
    assert [IdMap(*map(int, line.split())) for line in lines] == seen["uid_map"]
    assert (int(uid), int(gid)) == (seen["uid"], seen["gid"])
    return seen


@pytest.mark.parametrize("run", [support.in_child, support.as_user], ids=["root", "user"])
def test_a_recipe_maps_the_own_ids(run: Callable[..., Any]) -> None:
    for word in ("current", None):
        seen = run(in_recipe, word)
        assert seen["uid_map"] == [IdMap(seen["uid"], seen["uid"])]
        assert seen["setgroups"] == "deny"
    seen = run(in_recipe, "root")
    assert (seen["uid"], seen["gid"]) == (0, 0)
    assert seen["uid_map"][0].inside == 0
    seen = run(in_recipe, "none")
    assert (seen["uid_map"], seen["gid_map"], seen["uid"], seen["setgroups"]) == ([], [], 65534, "allow")
    assert run(in_recipe, "none", setgroups="deny")["setgroups"] == "deny"


@support.needs_root
def test_a_recipe_maps_ranges() -> None:
    ranges = [IdMap(0, 100000, 1000)]
    seen = support.in_child(in_recipe, ranges, ranges)
    assert (seen["uid_map"], seen["gid_map"], seen["setgroups"]) == (ranges, ranges, "allow")
    # The maker has no id in there: the child becomes root, who has.
    assert (seen["uid"], seen["gid"]) == (0, 0)
    seen = support.in_child(in_recipe, ranges, "current")
    assert (seen["uid"], seen["gid"]) == (0, 0)
    seen = support.in_child(in_recipe, ranges, ranges, uid=7, gid=8, groups=[9])
    assert (seen["uid"], seen["gid"]) == (7, 8)
    # Neither here nor there: nobody.
    assert support.in_child(in_recipe, IdMap(5, 100000, 10), IdMap(5, 100000, 10))["uid"] == 65534
    assert support.in_child(in_recipe, "all")["uid_map"] == [IdMap(0, 0, IDS)]


@support.needs_root
@support.needs_program("newuidmap")
def test_a_recipe_of_a_user_maps_subordinate_ids() -> None:
    seen = with_subids(in_recipe, "auto", user=True)
    assert seen["uid_map"] == seen["gid_map"] == [IdMap(0, 65534), IdMap(1, 200000, 1000), IdMap(1001, 300000, 10)]
    assert (seen["uid"], seen["gid"], seen["setgroups"]) == (0, 0, "allow")
    seen = with_subids(in_recipe, "auto", None, uid=7, gid=8, groups=[9], user=True)
    assert (seen["uid"], seen["gid"]) == (7, 8)


@support.needs_root
@support.needs_program("newuidmap")
def test_a_failed_map_fails_the_start_and_leaves_nothing() -> None:
    def child(method: str) -> None:
        recipe = nsutil.Namespace("user", uid_map=IdMap(0, 5, 10))
        attempt = (lambda: recipe.run(["true"])) if method == "run" else (lambda: recipe.call(os.getpid))
        with contextlib.suppress(OSError):
            attempt()  # whatever is imported late
        with support.no_leaks(), pytest.raises(PermissionError, match="newuidmap 0 5 10"):
            attempt()

    for method in ("run", "call"):
        with_subids(child, method, user=True)


def test_nothing_leaks() -> None:
    def child() -> bool:
        before = support.process_state()
        errno_of(lambda: idmap._write(1, "uid_map", "0 0 1"))
        errno_of(lambda: idmap.subordinate("uid", 4242))
        return before == support.process_state()

    assert support.in_child(child)


def test_what_is_to_write_maps_and_cannot_be_made_leaves_nothing() -> None:
    def body() -> tuple[int | None, int]:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        filling = []
        with contextlib.suppress(OSError):
            while True:
                filling.append(os.dup(0))
        for fd in filling[-3:]:
            os.close(fd)  # one pipe, and half of the next one
        with pytest.raises(OSError) as info, Mapper(lambda pid: None):
            pass
        free = 0
        with contextlib.suppress(OSError):
            while True:
                os.dup(0)
                free += 1
        return info.value.errno, free

    assert support.in_child(body) == (errno.EMFILE, 3)
