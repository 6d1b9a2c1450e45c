"""The mounts of a recipe, seen from inside and from outside, also with a root directory that means harm."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import pickle
import platform
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import support

import nsutil
from nsutil import Bind, Dev, File, Mqueue, Overlay, Proc, Remount, Symlink, Sysfs, Tmpfs
from nsutil._compile import compile_child
from nsutil._plan import PlanBuilder

T = TypeVar("T")

MS_BIND, MS_REC, MS_PRIVATE, MS_SHARED = 0x1000, 0x4000, 1 << 18, 1 << 20
READ_ONLY, NOSUID, NODEV, NOEXEC = os.ST_RDONLY, os.ST_NOSUID, os.ST_NODEV, os.ST_NOEXEC


# Helpers


def mount(source: str | None, target: str, kind: str | None = None, flags: int = 0, data: str | None = None) -> None:
    """mount(2)."""
    texts = [None if text is None else os.fsencode(text) for text in (source, target, kind, data)]
    builder = PlanBuilder()
    builder.add("mount", *texts[:3], flags, texts[3], label="mount", filename=target)
    builder.build().run()


def own_mounts() -> None:
    """A mount namespace of its own for this child, in which a test may mount at will."""
    nsutil.unshare(nsutil.MNT)
    mount(None, "/", flags=MS_REC | MS_PRIVATE)


def inside(func: Callable[[], T], new: str = "mnt", **options: Any) -> T:
    """func's result in a child that is where a recipe puts it."""
    return nsutil.Namespace(new.split(), **options).call(func)


def inside_as_user(func: Callable[[], T], new: str = "mnt", uid_map: str = "root", **options: Any) -> T:
    """The same for an ordinary user, with a user namespace."""
    return support.as_user(inside, func, "user " + new, uid_map=uid_map, **options)


def failure(func: Callable[..., object], *args: Any, **options: Any) -> OSError:
    """The OSError that func raises."""
    with pytest.raises(OSError) as caught:
        func(*args, **options)
    return caught.value


def nothing() -> None:
    """Only the set-up counts."""


def mountinfo() -> dict[str, dict[str, Any]]:
    """The mounts of this process by mount point; the topmost where there are several."""
    found = {}
    for line in Path("/proc/thread-self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        _, _, _, root, point, flags, *tags = fields.split()
        kind, source, options = rest.split(" ", 2)
        entry = {
            "root": root,
            "flags": flags.split(","),
            "tags": tags,
            "type": kind,
            "source": source,
            "options": options,
        }
        found[point.encode().decode("unicode_escape")] = entry
    return found


def flags_of(path: str) -> int:
    return os.statvfs(path).f_flag


def mode_of(path: str) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root directory with the usual places, open to all."""
    path = tmp_path / "root"
    for name in ("proc", "sys", "dev", "tmp", "etc", "usr", "mnt"):
        (path / name).mkdir(parents=True)
    (path / "etc/hostname").write_text("inside\n")
    return path


def tree(path: Path) -> dict[str, tuple[int, int, bytes]]:
    """Everything below a directory, to be compared: mode, size, content."""
    found = {}
    for parent, folders, files in os.walk(path):
        for name in folders + files:
            full = os.path.join(parent, name)
            status = os.lstat(full)
            content = Path(full).read_bytes() if stat.S_ISREG(status.st_mode) else b""
            found[full] = (status.st_mode, status.st_size, content)
    return found


@contextlib.contextmanager
def unchanged(*paths: Path) -> Iterator[None]:
    """Nothing of these directories and no mount of this process changes."""
    before = [tree(path) for path in paths], support.mounts()
    yield
    assert ([tree(path) for path in paths], support.mounts()) == before


def forbid(*calls: str) -> None:
    """Answer ENOSYS to system calls that older kernels lack, by a seccomp filter on this thread."""
    numbers = {"open_tree": 428, "move_mount": 429, "fsopen": 430, "openat2": 437, "mount_setattr": 442}
    code = [(0x20, 0, 0, 0)]
    for call in calls:
        code += [(0x15, 0, 1, numbers[call]), (0x06, 0, 0, 0x50000 | errno.ENOSYS)]
    code += [(0x06, 0, 0, 0x7FFF0000)]
    program = b"".join(struct.pack("HBBI", *line) for line in code)
    buffer = ctypes.create_string_buffer(program)
    fprog = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(code), ctypes.addressof(buffer)))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.prctl(22, 2, fprog, 0, 0) == 0


# Values


EXAMPLES = [
    Bind("/a", "/b"),
    Bind("a", "/b", readonly=True, recursive=False),
    Tmpfs("/tmp"),
    Tmpfs("/tmp", size="64m", mode=0o700),
    Tmpfs("/tmp", size=1 << 20),
    Proc(),
    Proc("/p"),
    Sysfs(),
    Dev(),
    Mqueue(),
    Overlay("/l", "/u", "/w", "/d"),
    Overlay(["/l:1", "/l,2"], None, None, "/d"),
    File("/etc/motd", b"x\0y"),
    File("/etc/motd", "text"),
    Symlink("usr/bin", "/bin"),
    Remount("/"),
    Remount("/tmp", readonly=False),
]


@pytest.mark.parametrize("value", EXAMPLES, ids=repr)
def test_mounts_are_values(value: Any) -> None:
    copy = pickle.loads(pickle.dumps(value))
    assert copy == value == eval(repr(value))
    assert copy is not value
    assert {copy, value} == {value}
    assert value != Tmpfs("/elsewhere")
    with pytest.raises(AttributeError, match="can't be changed"):
        value.dst = "/x"
    with pytest.raises(AttributeError):
        value.other = 1


def test_all_examples_differ() -> None:
    assert len(set(EXAMPLES)) == len(EXAMPLES)
    assert Tmpfs("/tmp") == Tmpfs("//tmp/./") == Tmpfs(b"/tmp") == Tmpfs(Path("/tmp"))
    assert Tmpfs("/tmp") != Tmpfs("/tmp/../tmp")
    assert File("/f", "\u00e9") == File("/f", bytearray(b"\xc3\xa9"))


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Bind("/a", "b"), "'b'"),
        (lambda: Bind("", "/b"), "src"),
        (lambda: Bind("/a", ""), "dst"),
        (lambda: Bind("/a\0", "/b"), "NUL"),
        (lambda: Bind("/a", "/b\0"), "NUL"),
        (lambda: Bind("/a", "/" + "b" * 5000), "4095"),
        (lambda: Tmpfs("tmp"), "'tmp'"),
        (lambda: Tmpfs("/tmp", size="64q"), "'64q'"),
        (lambda: Tmpfs("/tmp", size=""), "''"),
        (lambda: Tmpfs("/tmp", size="64m,mode=777"), "mode=777"),
        (lambda: Tmpfs("/tmp", size=0), "0"),
        (lambda: Tmpfs("/tmp", size="0"), "'0'"),
        (lambda: Tmpfs("/tmp", size=-1), "-1"),
        (lambda: Tmpfs("/tmp", mode=-1), "mode"),
        (lambda: Tmpfs("/tmp", mode=0o10000), "mode"),
        (lambda: Proc("proc"), "'proc'"),
        (lambda: Dev("/"), "root"),
        (lambda: Overlay("/l", "/u", None, "/d"), "work"),
        (lambda: Overlay("/l", None, "/w", "/d"), "work"),
        (lambda: Overlay("/l", None, None, "/d"), "two lower"),
        (lambda: Overlay([], "/u", "/w", "/d"), "lower"),
        (lambda: Overlay(["/l", ""], "/u", "/w", "/d"), "lower"),
        (lambda: Overlay([f"/{i:0300}" for i in range(20)], "/u", "/w", "/d"), "4095"),
        (lambda: File("/", b""), "root"),
        (lambda: File("f", b""), "'f'"),
        (lambda: Symlink("", "/l"), "target"),
        (lambda: Symlink("t", "l"), "'l'"),
        (lambda: Symlink("t", "/"), "root"),
        (lambda: Remount("x"), "'x'"),
        (lambda: nsutil.Namespace("mnt", mounts=[Tmpfs(f"/{i}") for i in range(65)]), "64"),
        (lambda: nsutil.Namespace("net", mounts=[Tmpfs("/tmp")]), "MNT"),
        (lambda: nsutil.Namespace("net", propagation="slave"), "MNT"),
        (lambda: nsutil.Namespace("mnt", propagation="rprivate"), "rprivate"),
    ],
)
def test_bad_values(make: Callable[[], object], named: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        make()
    assert named in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Bind(1, "/b"),  # type: ignore[arg-type]
        lambda: Bind("/a", None),  # type: ignore[arg-type]
        lambda: Bind("/a", "/b", readonly=1),  # type: ignore[arg-type]
        lambda: Bind("/a", "/b", recursive="yes"),  # type: ignore[arg-type]
        lambda: Tmpfs("/tmp", size=1.5),  # type: ignore[arg-type]
        lambda: Tmpfs("/tmp", size=True),
        lambda: Tmpfs("/tmp", mode="755"),  # type: ignore[arg-type]
        lambda: Tmpfs("/tmp", mode=True),
        lambda: Overlay(7, "/u", "/w", "/d"),  # type: ignore[arg-type]
        lambda: Overlay({"/l"}, "/u", "/w", "/d"),  # type: ignore[arg-type]
        lambda: File("/f", 7),  # type: ignore[arg-type]
        lambda: File("/f", None),  # type: ignore[arg-type]
        lambda: Remount("/", readonly=None),  # type: ignore[arg-type]
        lambda: nsutil.Namespace("mnt", mounts="/tmp"),
        lambda: nsutil.Namespace("mnt", mounts=["/tmp"]),
        lambda: nsutil.Namespace("mnt", mounts=7),
    ],
)
def test_wrong_types(make: Callable[[], object]) -> None:
    with pytest.raises(TypeError):
        make()


# Propagation


def shared_place() -> None:
    """A shared tmpfs on /mnt, and a mount on it that a careless unmount would take away."""
    own_mounts()
    mount("tmpfs", "/mnt", "tmpfs")
    mount(None, "/mnt", flags=MS_SHARED)
    os.mkdir("/mnt/a")
    os.mkdir("/mnt/b")
    mount("tmpfs", "/mnt/a", "tmpfs")
    Path("/mnt/a/file").write_text("here")


@support.needs_root
@pytest.mark.parametrize(
    ("propagation", "tag", "outward", "inward"),
    [
        ("private", None, False, False),
        ("slave", "master", False, True),
        ("shared", "shared", True, True),
        ("unchanged", "shared", True, True),
    ],
)
@pytest.mark.incident("B9")
def test_propagation(propagation: str, tag: str | None, outward: bool, inward: bool) -> None:
    def host() -> tuple[list[str], bool, bool]:
        shared_place()
        up, down = os.pipe(), os.pipe()

        def guest() -> tuple[list[str], bool]:
            mount("tmpfs", "/mnt/b", "tmpfs")
            os.write(up[1], b"x")
            os.read(down[0], 1)
            return mountinfo()["/mnt"]["tags"], "/mnt/a/c" in mountinfo()

        seen = []

        def watch() -> None:
            os.read(up[0], 1)
            seen.append("/mnt/b" in mountinfo())
            os.mkdir("/mnt/a/c")
            mount("tmpfs", "/mnt/a/c", "tmpfs")
            os.write(down[1], b"x")

        thread = threading.Thread(target=watch)
        thread.start()
        tags, got = inside(guest, propagation=propagation)
        thread.join()
        return tags, seen[0], got

    tags, out, back = support.in_child(host)
    assert [text.split(":")[0] for text in tags] == ([tag] if tag else [])
    assert (out, back) == (outward, inward)


@support.needs_root
@pytest.mark.parametrize("propagation", ["private", "slave", "shared", "unchanged"])
@pytest.mark.parametrize("everything", [False, True], ids=["part", "all"])
def test_a_new_root_neither_shows_outside_nor_unmounts_there(root: Path, propagation: str, everything: bool) -> None:
    """Also where the whole of the outside is shared, as systemd makes it."""

    def host() -> tuple[bool, dict[str, Any]]:
        shared_place()
        if everything:
            mount(None, "/", flags=MS_REC | MS_SHARED)
        before = support.mounts()
        got = inside(
            mountinfo, "mnt pid", root=str(root), mounts=[Tmpfs("/tmp")], propagation=propagation, mount_proc=True
        )
        assert Path("/mnt/a/file").read_text() == "here"
        return support.mounts() == before, got

    same, got = support.in_child(host)
    assert same
    assert set(got) == {"/", "/tmp", "/proc"}
    expected = {"shared": ["shared"], "slave": ["master"] if everything else []}.get(propagation, [])
    assert [tag.split(":")[0] for tag in got["/"]["tags"]] == expected


# Bind


@support.needs_root
def test_bind_a_directory_and_a_file(root: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/file").write_text("from outside")
    (root / "mnt/file").write_text("")

    def look() -> tuple[str, str, str]:
        Path("/usr/new").write_text("from inside")
        return Path("/usr/file").read_text(), Path("/mnt/file").read_text(), os.getcwd()

    mounts = [Bind(tmp_path / "data", "/usr"), Bind(tmp_path / "data/file", "/mnt/file")]
    assert inside(look, root=root, mounts=mounts) == ("from outside", "from outside", "/")
    assert (tmp_path / "data/new").read_text() == "from inside"
    assert os.listdir(root / "usr") == []


@support.needs_root
@support.needs_kernel("mount-setattr")
def test_bind_is_read_only_with_all_below(root: Path) -> None:
    def host() -> Any:
        own_mounts()
        mount("tmpfs", "/mnt", "tmpfs", NOSUID)
        os.mkdir("/mnt/sub")
        mount("tmpfs", "/mnt/sub", "tmpfs", NODEV | NOEXEC)

        def look() -> Any:
            return [(flags_of(path), errno_of_write(path)) for path in ("/usr", "/usr/sub")]

        recursive = inside(look, root=root, mounts=[Bind("/mnt", "/usr", readonly=True)])
        single = inside(look, root=root, mounts=[Bind("/mnt", "/usr", readonly=True, recursive=False)])
        writable = inside(look, root=root, mounts=[Bind("/mnt", "/usr")])
        return recursive, single, writable

    recursive, single, writable = support.in_child(host)
    for flags, error in recursive:
        assert flags & READ_ONLY
        assert error == errno.EROFS
    assert recursive[0][0] & (NOSUID | NODEV) == NOSUID
    assert recursive[1][0] & (NODEV | NOEXEC | NOSUID) == NODEV | NOEXEC
    # Without the mounts below, /usr/sub is the directory that lay under one.
    assert [flags & READ_ONLY for flags, _ in single] == [READ_ONLY, READ_ONLY]
    assert single[1][0] == single[0][0]
    assert [error for _, error in writable] == [0, 0]


def errno_of_write(folder: str) -> int:
    try:
        (Path(folder) / "written").write_text("x")
    except OSError as error:
        return error.errno or -1
    return 0


@support.needs_root
@pytest.mark.incident("A36")
def test_a_user_s_read_only_bind_keeps_locked_flags(root: Path) -> None:
    """nosuid, nodev, noexec and atime flags of the outside can't be given up in a user namespace (EPERM)."""

    def host() -> Any:
        own_mounts()
        mount("tmpfs", "/mnt", "tmpfs", NOSUID | NODEV | NOEXEC | 1024)
        os.chmod("/mnt", 0o777)
        return inside_as_user(lambda: flags_of("/usr"), root=root, mounts=[Bind("/mnt", "/usr", readonly=True)])

    flags = support.in_child(host)
    locked = READ_ONLY | NOSUID | NODEV | NOEXEC | os.ST_NOATIME
    assert flags & locked == locked


@support.needs_root
@pytest.mark.incident("A7")
def test_bind_sources_are_those_of_the_outside(root: Path, tmp_path: Path) -> None:
    """Looked up before any mount of the recipe, with symlinks followed, from the working directory on."""
    (tmp_path / "real").write_text("real")
    (tmp_path / "link").symlink_to("real")

    def child(source: str, **options: Any) -> str:
        os.chdir(tmp_path)
        mounts = [Tmpfs(str(tmp_path)), Tmpfs("/mnt"), Bind(source, "/mnt/file")]
        return inside(lambda: Path("/mnt/file").read_text(), mounts=mounts, **options)

    assert support.in_child(child, str(tmp_path / "real")) == "real"
    assert support.in_child(child, str(tmp_path / "link")) == "real"
    assert support.in_child(child, "real") == "real"


@support.needs_root
def test_bind_a_namespace_file(root: Path) -> None:
    def look() -> bool:
        return os.stat("/mnt/ns").st_ino == os.stat("/proc/self/ns/net").st_ino

    mounts = [Tmpfs("/mnt"), Bind("/proc/self/ns/net", "/mnt/ns")]
    assert inside(look, mounts=mounts)
    assert inside(look, root=root, mounts=[Bind("/proc", "/proc"), *mounts])


@support.needs_root
def test_bind_failures(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cases = [
        (Bind("/no/such", "/mnt"), FileNotFoundError, "/no/such", "open /no/such"),
        (Bind("/usr", "/mnt/missing"), FileNotFoundError, "/mnt/missing", "bind /usr on /mnt/missing"),
        (Bind(tmp_path / "file", "/mnt"), IsADirectoryError, "/mnt", "bind"),
        (Tmpfs("/etc/hostname"), NotADirectoryError, "/etc/hostname", "mount tmpfs"),
        (Bind("/usr", "/etc/hostname"), NotADirectoryError, "/etc/hostname", "bind"),
        (Bind("/usr", "/etc/hostname/x"), NotADirectoryError, "/etc/hostname/x", "bind"),
    ]
    with unchanged(root):
        for value, kind, filename, step in cases:
            error = failure(inside, nothing, root=root, mounts=[value])
            assert type(error) is kind
            assert error.filename == filename
            assert step in error.step  # type: ignore[attr-defined]


# What is made, and where


@support.needs_root
def test_targets_are_made_on_own_file_systems_only(root: Path) -> None:
    def look() -> Any:
        names = ("/tmp/a", "/tmp/a/b", "/tmp/a/file", "/tmp/data", "/tmp/d/e", "/tmp/link")
        return {name: (mode_of(name), stat.S_IFMT(os.lstat(name).st_mode)) for name in names}

    mounts = [
        Tmpfs("/tmp", mode=0o711),
        Bind("/usr", "/tmp/a/b"),
        Bind("/etc/passwd", "/tmp/a/file"),
        File("/tmp/data", b"x"),
        Tmpfs("/tmp/d/e"),
        Symlink("a", "/tmp/link"),
    ]

    def narrow() -> Any:
        os.umask(0o077)
        return inside(look, root=root, mounts=mounts)

    got = support.in_child(narrow)
    assert got["/tmp/a"] == (0o755, stat.S_IFDIR)
    assert got["/tmp/data"] == (0o444, stat.S_IFREG)
    assert got["/tmp/link"][1] == stat.S_IFLNK
    assert got["/tmp/a/file"][1] == stat.S_IFREG
    with unchanged(root):
        for value in (
            Tmpfs("/new"),
            Bind("/usr", "/new/a"),
            Bind("/etc/passwd", "/etc/new"),
            File("/etc/new", b""),
            Symlink("a", "/new"),
        ):
            error = failure(inside, nothing, root=root, mounts=[Tmpfs("/tmp"), value])
            assert isinstance(error, FileNotFoundError)
            assert error.filename == value.dst


@support.needs_root
def test_nothing_is_made_on_what_is_only_bound(root: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for value in (Tmpfs("/usr/new"), File("/usr/new", b"")):
        with unchanged(tmp_path):
            error = failure(inside, nothing, root=root, mounts=[Tmpfs("/tmp"), Bind(tmp_path / "data", "/usr"), value])
        assert isinstance(error, FileNotFoundError)


@support.needs_root
def test_created_bind_targets_have_the_promised_modes() -> None:
    """Seen after the bind is undone."""

    def look() -> Any:
        for name in ("/mnt/dir/sub", "/mnt/file"):
            builder = PlanBuilder()
            builder.add("umount2", name.encode(), 0, label="umount")
            builder.build().run()
        return mode_of("/mnt/dir"), mode_of("/mnt/dir/sub"), mode_of("/mnt/file"), os.path.getsize("/mnt/file")

    mounts = [Tmpfs("/mnt"), Bind("/usr", "/mnt/dir/sub"), Bind("/etc/passwd", "/mnt/file")]
    assert inside(look, mounts=mounts) == (0o755, 0o755, 0o444, 0)


@support.needs_root
def test_files_and_symlinks_never_replace(root: Path) -> None:
    (root / "etc/link").symlink_to("target")

    def run(*values: Any) -> Any:
        return inside(lambda: Path("/tmp/file").read_bytes(), root=root, mounts=[Tmpfs("/tmp"), *values])

    big = os.urandom(300_000)
    with unchanged(root):
        assert run(File("/tmp/file", big)) == big
        assert run(File("/tmp/file", "t\u00e9xt"), Symlink("target", "/etc/link")) == "t\u00e9xt".encode()
        assert run(File("/tmp/file", b""), Symlink("x", "/tmp/l"), Symlink("x", "/tmp/l")) == b""
        for values in (
            [File("/tmp/file", b"1"), File("/tmp/file", b"1")],
            [File("/etc/hostname", b"1")],
            [File("/etc", b"1")],
            [File("/etc/link", b"1")],
            [Symlink("other", "/etc/link")],
            [Symlink("target-longer", "/etc/link")],
            [Symlink("targe", "/etc/link")],
            [Symlink("target", "/etc/hostname")],
            [Symlink("target", "/etc")],
            [Symlink("x", "/tmp/l"), File("/tmp/l", b"")],
        ):
            error = failure(run, *values)
            assert isinstance(error, FileExistsError)
            assert error.filename == values[-1].dst


@support.needs_root
def test_tmpfs_options(root: Path) -> None:
    def look() -> Any:
        status = os.statvfs("/tmp")
        return status.f_blocks * status.f_frsize, mode_of("/tmp"), flags_of("/tmp") & (NOSUID | NODEV | READ_ONLY)

    expected = NOSUID | NODEV
    assert inside(look, root=root, mounts=[Tmpfs("/tmp", size="3m", mode=0o750)]) == (3 << 20, 0o750, expected)
    assert inside(look, root=root, mounts=[Tmpfs("/tmp", size=1 << 20)]) == (1 << 20, 0o1777, expected)
    assert inside(look, root=root, mounts=[Tmpfs("/tmp", size="1%")])[0] > 0
    assert inside_as_user(look, root=root, mounts=[Tmpfs("/tmp", size="3m")])[0] == 3 << 20


# The file systems of the kernel


@support.needs_root
@pytest.mark.parametrize("run", [inside, inside_as_user], ids=["root", "user"])
@pytest.mark.incident("B15")
def test_proc_sysfs_and_mqueue_show_the_new_namespaces(run: Callable[..., Any], root: Path) -> None:
    every = NOSUID | NODEV | NOEXEC

    def look() -> Any:
        pids = [name for name in os.listdir("/proc") if name.isdigit()]
        info = mountinfo()
        points = {path: (info[path]["type"], flags_of(path) & every) for path in ("/proc", "/sys", "/mnt/queue")}
        return os.getpid(), pids, os.listdir("/sys/class/net"), points

    for where in ({}, {"root": root}):
        mounts = [Sysfs(), Tmpfs("/mnt"), Mqueue("/mnt/queue")]
        pid, pids, links, points = run(look, "mnt pid net ipc", mounts=mounts, init=False, **where)
        assert pid == 1
        assert pids == ["1"]
        assert links == ["lo"]
        assert points["/proc"] == ("proc", every)
        assert points["/sys"] == ("sysfs", every)
        assert points["/mnt/queue"] == ("mqueue", every)


def look_at_dev() -> Any:
    with open("/dev/full", "wb", buffering=0) as full, open("/dev/zero", "rb") as zero, open("/dev/null", "wb") as null:
        null.write(b"x")
        try:
            full.write(b"x")
            error = 0
        except OSError as failed:
            error = failed.errno or -1
        zeros = zero.read(4)
    links = {name: os.readlink(f"/dev/{name}") for name in os.listdir("/dev") if os.path.islink(f"/dev/{name}")}
    devices = {
        name: (os.major(os.stat(f"/dev/{name}").st_rdev), os.minor(os.stat(f"/dev/{name}").st_rdev))
        for name in ("null", "zero", "full", "random", "urandom", "tty")
    }
    return sorted(os.listdir("/dev")), error, zeros, links, devices, mode_of("/dev/shm"), mode_of("/dev")


@support.needs_root
@pytest.mark.parametrize("word", [None, "root", "current"])
def test_dev(word: str | None, root: Path) -> None:
    run = inside if word is None else inside_as_user
    options: dict[str, Any] = {"uid_map": word} if word else {}
    for where in ({}, {"root": root}):
        names, error, zeros, links, devices, shm, mode = run(look_at_dev, "mnt", mounts=[Dev()], **options, **where)
        expected = "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero"
        assert " ".join(names) == expected
        assert (error, zeros) == (errno.ENOSPC, bytes(4))
        assert links["fd"] == "/proc/self/fd"
        assert devices == {
            "null": (1, 3),
            "zero": (1, 5),
            "full": (1, 7),
            "random": (1, 8),
            "urandom": (1, 9),
            "tty": (5, 0),
        }
        assert (shm, mode) == (0o1777, 0o755)


@support.needs_root
@pytest.mark.parametrize("run", [inside, inside_as_user], ids=["root", "user"])
def test_dev_has_terminals_of_its_own(run: Callable[..., Any]) -> None:
    def look() -> Any:
        before = os.listdir("/dev/pts")
        master, slave = os.openpty()
        return before, os.ttyname(slave), os.isatty(master)

    assert run(look, "mnt", mounts=[Dev()]) == (["ptmx"], "/dev/pts/0", True)


@support.needs_root
def test_dev_elsewhere_and_twice(root: Path) -> None:
    def look() -> Any:
        return os.stat("/mnt/null").st_rdev, os.stat("/dev/null").st_rdev

    assert inside(look, root=root, mounts=[Dev(), Dev("/mnt")]) == (os.makedev(1, 3), os.makedev(1, 3))


@support.needs_root
@pytest.mark.parametrize(("make", "code"), [("link", errno.ELOOP), ("file", errno.ENODEV), ("wrong", errno.ENODEV)])
@pytest.mark.incident("A7")
def test_dev_takes_devices_only(root: Path, make: str, code: int) -> None:
    """A /dev/null that was swapped for something else is not bound (CVE-2025-31133, CVE-2025-52565)."""

    def host() -> OSError:
        own_mounts()
        mount("/dev", "/mnt", flags=MS_BIND)
        mount("tmpfs", "/dev", "tmpfs")
        for name in ("zero", "full", "random", "urandom", "tty"):
            Path("/dev", name).touch()
            mount(f"/mnt/{name}", f"/dev/{name}", flags=MS_BIND)
        if make == "link":
            os.symlink("/mnt/null", "/dev/null")
        elif make == "file":
            Path("/dev/null").touch()
        else:
            Path("/dev/null").touch()
            mount("/mnt/zero", "/dev/null", flags=MS_BIND)
        return failure(inside, nothing, root=root, mounts=[Dev()])

    error = support.in_child(host)
    assert error.errno == code
    assert error.filename == "/dev/null"


# Overlay


@pytest.fixture
def layers(upper_path: Path) -> dict[str, Path]:
    """Directories with names that overlayfs reads options in."""
    names = {
        "lower": "lo:wer,a\\b",
        "below": "be,low:",
        "upper": "up:p,e\\r",
        "work": "wo,rk\\:x",
    }
    found = {key: upper_path / name for key, name in names.items()}
    for path in found.values():
        path.mkdir()
        path.chmod(0o777)
    (found["lower"] / "file").write_text("lower")
    (found["below"] / "file").write_text("below")
    (found["below"] / "deep").write_text("below")
    return found


@support.needs_root
@pytest.mark.parametrize("run", [inside, inside_as_user], ids=["root", "user"])
def test_overlay(run: Callable[..., Any], root: Path, layers: dict[str, Path]) -> None:
    def look() -> Any:
        Path("/usr/new").write_text("new")
        os.makedirs("/usr/made")
        return Path("/usr/file").read_text(), Path("/usr/deep").read_text(), sorted(os.listdir("/usr"))

    overlay = Overlay([layers["lower"], layers["below"]], layers["upper"], layers["work"], "/usr")
    got = run(look, root=root, mounts=[overlay, Tmpfs("/usr/on/it")])
    assert got == ("lower", "below", ["deep", "file", "made", "new", "on"])
    assert (layers["upper"] / "new").read_text() == "new"
    assert sorted(os.listdir(layers["lower"])) == ["file"]


@support.needs_root
def test_overlay_without_upper_is_read_only(root: Path, layers: dict[str, Path]) -> None:
    def look() -> Any:
        return Path("/usr/file").read_text(), errno_of_write("/usr")

    overlay = Overlay((layers["below"], layers["lower"]), None, None, "/usr")
    assert inside(look, root=root, mounts=[overlay]) == ("below", errno.EROFS)


@support.needs_root
def test_an_overlay_can_be_the_root(layers: dict[str, Path], root: Path) -> None:
    def look() -> Any:
        Path("/etc/new").write_text("x")
        return sorted(os.listdir("/")), Path("/etc/hostname").read_text(), mountinfo()["/"]["type"]

    overlay = Overlay(root, layers["upper"], layers["work"], "/")
    with unchanged(root):
        names, hostname, kind = inside(look, "mnt pid", mounts=[overlay])
    assert names == ["dev", "etc", "mnt", "proc", "sys", "tmp", "usr"]
    assert (hostname, kind) == ("inside\n", "overlay")
    assert (layers["upper"] / "etc/new").exists()


@support.needs_root
def test_overlay_failures(root: Path, layers: dict[str, Path], tmp_path: Path) -> None:
    error = failure(inside, nothing, root=root, mounts=[Overlay("/no/such", layers["upper"], layers["work"], "/usr")])
    assert isinstance(error, FileNotFoundError)
    assert error.step == "mount overlay on /usr"  # type: ignore[attr-defined]


# Remount


@support.needs_root
@pytest.mark.parametrize("run", [inside, inside_as_user], ids=["root", "user"])
def test_a_read_only_root_with_a_writable_place(run: Callable[..., Any], root: Path) -> None:
    def look() -> Any:
        return errno_of_write("/etc"), errno_of_write("/tmp")

    root.joinpath("etc").chmod(0o777)
    with unchanged(root):
        assert run(look, root=root, mounts=[Tmpfs("/tmp"), Remount("/")]) == (errno.EROFS, 0)
        assert run(lambda: errno_of_write("/tmp"), root=root, mounts=[Tmpfs("/tmp"), Remount("/tmp")]) == errno.EROFS


@support.needs_root
def test_remount_back_and_its_limits(root: Path) -> None:
    def look() -> int:
        return errno_of_write("/usr")

    again = [Bind("/mnt", "/usr", readonly=True), Remount("/usr", readonly=False)]

    def host(run: Callable[..., Any]) -> Any:
        own_mounts()
        mount("tmpfs", "/mnt", "tmpfs", READ_ONLY)
        mount(None, "/mnt", flags=0x20 | MS_BIND | READ_ONLY)
        return run(look, root=root, mounts=again)

    assert support.in_child(host, inside) == errno.EROFS  # the file system itself
    error = failure(support.in_child, host, inside_as_user)
    assert isinstance(error, PermissionError)
    assert error.step == "remount /usr writable"  # type: ignore[attr-defined]
    error = failure(inside, nothing, root=root, mounts=[Remount("/usr")])
    assert (error.errno, error.filename) == (errno.EINVAL, "/usr")
    error = failure(inside, nothing, root=root, mounts=[Remount("/none")])
    assert isinstance(error, FileNotFoundError)


# The root


@support.needs_root
@pytest.mark.parametrize("run", [inside, inside_as_user], ids=["root", "user"])
def test_nothing_of_the_old_root_is_left(run: Callable[..., Any], root: Path) -> None:
    def look() -> Any:
        fd = os.open("/", os.O_PATH)
        up = os.stat("..", dir_fd=fd)
        return (
            sorted(os.listdir("/")),
            os.path.samestat(up, os.stat("/")),
            os.getcwd(),
            {path: entry["type"] for path, entry in mountinfo().items()},
            sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in (0, 1, 2)),
            len(support.open_fds()),
        )

    def outside() -> int:
        return len(support.open_fds())

    with unchanged(root):
        names, same, cwd, mounts, _, fds = run(look, "mnt pid", root=root)
    assert names == ["dev", "etc", "mnt", "proc", "sys", "tmp", "usr"]
    assert same
    assert cwd == "/"
    assert mounts == {"/": "ext4", "/proc": "proc"} | {"/": mounts["/"]}
    assert fds == run(outside, "mnt pid") + 1


STACKS: dict[str, dict[str, Any]] = {
    "root": {},
    "root and a mount": {"mounts": [Tmpfs("/", size=4096)]},
    "root and itself": {"mounts": [Bind("/", "/", readonly=True)]},
    "two mounts": {"root": None, "mounts": [Tmpfs("/", size=8192), Tmpfs("/", size=4096)]},
    "root and three": {"mounts": [Tmpfs("/", size=8192), Tmpfs("/mnt"), Bind("/", "/")]},
}


@support.needs_root
@pytest.mark.parametrize("calls", [[], ["open_tree", "fsopen", "mount_setattr"]], ids=["new", "old"])
@pytest.mark.parametrize("propagation", ["private", "slave", "shared", "unchanged"])
@pytest.mark.parametrize("run", [inside, inside_as_user], ids=["root", "user"])
@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.incident("B9")
def test_the_old_root_is_gone_whatever_lay_on_it(
    root: Path, stack: str, run: Callable[..., Any], propagation: str, calls: list[str]
) -> None:
    """Joining the own namespace leads to what lies on top of its root; nothing else may be there."""
    if stack == "root and itself" and support.lacks("mount-setattr"):
        pytest.skip("this kernel has no mount-setattr")
    options = {"root": root, "propagation": propagation} | STACKS[stack]
    if propagation == "unchanged" and run is inside_as_user:
        options["propagation"] = "slave"  # a user namespace can't make what it inherits shared

    def look() -> Any:
        with open("/proc/self/mountinfo") as file:
            roots = [line for line in file if line.split()[4] == "/"]
        up = os.stat("/..")
        handle = os.open("/proc/self/ns/mnt", os.O_RDONLY)
        nsutil.setns(handle, nsutil.MNT)
        os.close(handle)
        return len(roots), os.path.samestat(up, os.stat("/")), sorted(os.listdir("/"))

    def host() -> Any:
        own_mounts()
        mount(None, "/", flags=MS_REC | MS_SHARED)
        forbid(*calls)
        before = support.mounts()
        try:
            return run(look, "mnt pid", mount_proc=True, **options)
        finally:
            assert support.mounts() == before

    if (calls or support.lacks("mount-calls")) and isinstance(options.get("mounts", [None])[-1], Bind):
        # What was laid over "/" by then would be bound along: refused, not done wrong.
        assert failure(support.in_child, host).errno == errno.ENOSYS
        return
    if not any(mount.dst == "/" and isinstance(mount, Tmpfs) for mount in STACKS[stack].get("mounts", ())[-1:]):
        expected = os.listdir(root if stack == "root" else "/")
    else:
        expected = ["proc"]
    count, same, names = support.in_child(host)
    assert (count, same) == (1, True)
    assert names == sorted(expected)


@support.needs_root
@pytest.mark.parametrize("mounts", [[], [Proc()], [Tmpfs("/mnt/b")]], ids=["alone", "spelt out", "with others"])
@pytest.mark.parametrize("propagation", ["shared", "unchanged"])
@pytest.mark.incident("B9")
def test_a_new_proc_is_not_laid_on_that_of_the_outside(propagation: str, mounts: list[Any]) -> None:
    """Where all of the outside is shared, as systemd makes it, every process there would lose its /proc."""

    def host() -> Any:
        shared_place()
        mount(None, "/", flags=MS_REC | MS_SHARED)
        inner = inside(lambda: os.listdir("/proc/self/ns"), "mnt pid", propagation=propagation, mounts=mounts)
        return os.path.exists("/proc/self"), sorted(inner) == sorted(os.listdir("/proc/self/ns"))

    assert support.in_child(host) == (True, True)


@support.needs_root
def test_the_root_may_be_anything_that_is_a_directory(root: Path, tmp_path: Path) -> None:
    def look() -> list[str]:
        return sorted(os.listdir("/"))

    names = sorted(os.listdir(root))
    (tmp_path / "link").symlink_to(root)
    fd = os.open(root, os.O_PATH)
    assert inside(look, root=tmp_path / "link") == names
    assert inside(look, root=bytes(root)) == names
    assert inside(look, root=fd) == names
    os.close(fd)
    assert inside(look, root="/") == sorted(os.listdir("/"))

    def mounted() -> list[str]:
        own_mounts()
        mount(str(root), "/mnt", flags=MS_BIND)
        return inside(look, root="/mnt")

    assert support.in_child(mounted) == names

    def relative() -> list[str]:
        os.chdir(root.parent)
        return inside(look, root="root")

    assert support.in_child(relative) == names


@support.needs_root
@pytest.mark.parametrize("propagation", ["private", "slave"])
def test_a_root_for_a_caller_in_a_chroot(root: Path, tmp_path: Path, propagation: str) -> None:
    """As in a build daemon's chroot, where "/" is no mount."""
    (root / "deep/inner").mkdir(parents=True)

    def chrooted() -> Any:
        own_mounts()
        mount("/proc", str(root / "proc"), flags=MS_BIND)
        support.preload()
        os.chroot(root)
        os.chdir("/")
        before = support.mounts()
        got = inside(
            lambda: (os.listdir("/"), set(mountinfo()), os.stat("/..").st_ino == os.stat("/").st_ino),
            "mnt pid",
            root="/deep",
            mounts=[Tmpfs("/inner")],
            propagation=propagation,
        )
        return got, support.mounts() == before

    (root / "deep/proc").mkdir()
    (names, points, closed), same = support.in_child(chrooted)
    assert sorted(names) == ["inner", "proc"]
    assert points == {"/", "/inner", "/proc"}
    assert closed
    assert same


@support.needs_root
def test_root_failures(root: Path) -> None:
    for path, kind in ("/no/such", FileNotFoundError), (root / "etc/hostname", NotADirectoryError):
        error = failure(inside, nothing, root=path)
        assert type(error) is kind
        assert error.filename == str(path)
        assert error.step == f"open the root {path}"  # type: ignore[attr-defined]


@support.needs_root
def test_a_mount_can_be_the_root() -> None:
    def look() -> Any:
        return sorted(os.listdir("/")), mountinfo()["/"]["type"], os.path.exists("/usr/bin"), errno_of_write("/")

    mounts = [Tmpfs("/"), Bind("/usr", "/usr", readonly=True), Symlink("usr/bin", "/bin"), Remount("/")]
    for run in (inside, inside_as_user):
        names, kind, usr, error = run(look, "mnt pid", mounts=mounts)
        assert names == ["bin", "proc", "usr"]
        assert (kind, usr, error) == ("tmpfs", True, errno.EROFS)


@support.needs_root
def test_without_mnt_the_root_is_a_chroot(root: Path) -> None:
    assert inside(lambda: sorted(os.listdir("/")), "uts", root=root) == sorted(os.listdir(root))


@support.needs_root
def test_proc_comes_by_itself_where_it_can(root: Path) -> None:
    def look() -> bool:
        return os.path.exists("/proc/self")

    assert inside(look, "mnt pid", root=root)
    assert not inside(look, "mnt", root=root)
    assert not inside(look, "mnt pid", root=root, mount_proc=False)
    (root / "proc").rmdir()
    assert not inside(look, "mnt pid", root=root)
    error = failure(inside, look, "mnt pid", root=root, mount_proc=True)
    assert isinstance(error, FileNotFoundError)
    assert error.step == "mount proc on /proc"  # type: ignore[attr-defined]
    assert inside(lambda: os.path.exists("/mnt/self"), "mnt pid", root=root, mount_proc="/mnt")
    # Parts of it may be covered by mounts of the recipe.
    assert inside(lambda: os.listdir("/proc/sys"), "mnt pid", mounts=[Tmpfs("/proc/sys")]) == []


# A root directory that means harm


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A directory of the outside that nothing may touch."""
    path = tmp_path / "host"
    (path / "dir").mkdir(parents=True)
    (path / "file").write_text("untouched")
    return path


def hostile_links(root: Path, host: Path) -> list[str]:
    """Symlinks in the root to the outside, of all kinds; the names of those that are made."""
    links = {
        "absolute": str(host),
        "relative": f"../../../../../../..{host}",
        "old": f"/oldroot{host}",
        "dots": "../host",
        "cwd": f"/proc/self/cwd{host}",
        "procroot": f"/proc/self/root{host}",
        "one": f"/proc/1/root{host}",
        "thread": f"/proc/thread-self/root/../..{host}",
    }
    for fd in range(3, 7):
        links[f"fd{fd}"] = f"/proc/self/fd/{fd}{host}"
        links[f"fdx{fd}"] = f"/proc/self/fd/{fd}/../../../../../../..{host}"
    for name, target in links.items():
        (root / name).symlink_to(target)
    return list(links)


@support.needs_root
@pytest.mark.parametrize("old_kernel", [False, True])
@pytest.mark.incident("A5")
def test_no_symlink_leads_out_of_the_root(root: Path, host: Path, old_kernel: bool) -> None:
    """CVE-2026-87766 of bubblewrap: targets below a symlinked parent were made on the host."""

    def attempt(mounts: list[Any]) -> OSError:
        if old_kernel:
            forbid("openat2")
        return failure(inside, nothing, "mnt pid", root=root, mounts=mounts)

    names = hostile_links(root, host)
    with unchanged(root, host):
        for name in names:
            for value in (
                Tmpfs(f"/{name}/dir"),
                Tmpfs(f"/{name}/new/deeper"),
                Bind("/usr", f"/{name}/dir"),
                Bind("/etc/passwd", f"/{name}/file"),
                File(f"/{name}/new", b"escaped"),
                File(f"/{name}/file", b"escaped"),
                Symlink("x", f"/{name}/new"),
                Remount(f"/{name}/dir"),
            ):
                error = support.in_child(attempt, [Tmpfs("/tmp"), value])
                assert error.errno in (errno.EXDEV, errno.ELOOP, errno.ENOENT), (value, error)
                assert error.filename == value.dst


@support.needs_root
def test_links_out_of_the_root_are_told_apart_from_missing_files(root: Path, host: Path) -> None:
    hostile_links(root, host)
    out = errno.ELOOP if support.lacks("openat2") else errno.EXDEV  # any link is refused then
    for name in ("absolute", "relative", "old", "dots"):
        assert failure(inside, nothing, root=root, mounts=[Tmpfs(f"/{name}/dir")]).errno == out
    for name in ("cwd", "fd3"):
        mounts = [Proc(), Tmpfs(f"/{name}/dir")]
        assert failure(inside, nothing, "mnt pid", root=root, mounts=mounts).errno == errno.ELOOP
    assert failure(inside, nothing, root=root, mounts=[Tmpfs("/mnt/none")]).errno == errno.ENOENT


@support.needs_root
@support.needs_kernel("openat2")
def test_links_inside_the_root_are_followed(root: Path) -> None:
    """/var/run -> /run and the like are what roots are full of: absolute, but meant inside."""
    (root / "run").symlink_to("/mnt")
    (root / "mnt/deep").mkdir()
    (root / "mnt/deep/up").symlink_to("../../../../../../../tmp")
    points = {
        "/run/deep": "/mnt/deep",
        "/run/deep/up": "/tmp",
        "/run/../run/deep/up/../mnt": "/mnt",
        "/../../mnt": "/mnt",
    }
    if support.lacks("mount-calls"):  # what lies there is then opened by its path, which leads through itself
        del points["/run/../run/deep/up/../mnt"]
    for dst, point in points.items():
        got = inside(mountinfo, root=root, mounts=[Bind("/proc", "/proc"), Tmpfs(dst)])
        assert got[point]["type"] == "tmpfs"


@support.needs_root
@pytest.mark.incident("A6")
def test_a_link_for_dev_is_refused(root: Path, host: Path) -> None:
    """CVE-2026-41579 of runc, CVE-2026-47766 of crun."""
    for target in ("../../host/dir", f"../../../../../..{host}/dir", f"{host}/dir", "/proc/self/cwd"):
        (root / "dev").unlink() if (root / "dev").is_symlink() else (root / "dev").rmdir()
        (root / "dev").symlink_to(target)
        with unchanged(host, root):
            error = failure(inside, nothing, "mnt pid", root=root, mounts=[Dev()])
        assert error.errno in (errno.EXDEV, errno.ELOOP)
        assert error.filename == "/dev"


@support.needs_root
@pytest.mark.incident("A9")
def test_a_race_of_renames_makes_nothing_on_the_host(root: Path, host: Path) -> None:
    """CVE-2024-45310, CVE-2021-30465: a component turns into a symlink while the recipe walks it."""
    (root / "a/b/c").mkdir(parents=True)
    (root / "evil").symlink_to(f"../../../../../../../..{host}")
    stop = threading.Event()
    libc = ctypes.CDLL(None)
    renameat2 = 316 if platform.machine() == "x86_64" else 276  # musl has no function of that name
    one, two = os.fsencode(root / "a"), os.fsencode(root / "evil")

    def swap() -> None:
        while not stop.is_set():
            libc.syscall(renameat2, -100, one, -100, two, 2)  # exchange

    thread = threading.Thread(target=swap)
    thread.start()
    outcomes = set()
    before = tree(host)
    try:
        for i in range(60):
            mounts = [
                Tmpfs("/tmp"),
                Tmpfs("/a/b/c"),
                Bind("/usr", f"/a/b/c/made{i}"),
                File(f"/a/b/c/f{i}", b"x"),
                File(f"/a/b/f{i}", b"x"),
            ]
            outcomes.add(failure(inside, nothing, root=root, mounts=mounts).errno)
    finally:
        stop.set()
        thread.join()
    assert tree(host) == before
    assert outcomes <= {errno.EXDEV, errno.ELOOP, errno.ENOENT, errno.EAGAIN}
    made = [name for name in (*os.listdir(root / "a"), *os.listdir(root / "evil")) if name[1:].isdigit()]
    assert made == []


@support.needs_root
def test_files_of_a_named_network_namespace() -> None:
    """etc_netns=True lays /etc/netns/NAME over /etc, as ip netns exec does."""
    from nsutil import named

    name = f"nsutil-test-{os.getpid()}"

    def child() -> tuple[str, str]:
        own_mounts()
        os.makedirs("/etc/netns", exist_ok=True)
        mount("tmpfs", "/etc/netns", "tmpfs")
        os.mkdir(f"/etc/netns/{name}")
        Path(f"/etc/netns/{name}/hosts").write_text("1.2.3.4 inside\n")
        box = nsutil.Namespace("mnt", enter=nsutil.enter(name=name), etc_netns=True)
        return box.call(Path("/etc/hosts").read_text), Path("/etc/hosts").read_text()

    made = not os.path.exists("/etc/netns")
    named.create(name).close()
    try:
        inner, outer = support.in_child(child)
    finally:
        named.remove(name)
        if made:
            os.rmdir("/etc/netns")
    assert inner == "1.2.3.4 inside\n"
    assert outer != inner


# Older kernels


@support.needs_root
@pytest.mark.parametrize("run", [inside, inside_as_user], ids=["root", "user"])
@pytest.mark.parametrize("calls", [["openat2"], ["open_tree", "fsopen", "mount_setattr"], None])
def test_the_old_calls_do_the_same(run: Callable[..., Any], root: Path, calls: list[str] | None) -> None:
    """As on a kernel without these calls, or under a filter that does not know them."""

    def look() -> Any:
        info = {path: (entry["type"], sorted(entry["flags"])) for path, entry in mountinfo().items()}
        return info, sorted(os.listdir("/")), Path("/tmp/f").read_text(), errno_of_write("/usr"), errno_of_write("/")

    mounts = [
        Tmpfs("/"),
        Tmpfs("/tmp", size="1m"),
        Dev(),
        Bind("/usr/bin", "/usr", readonly=True),
        Bind("/etc/passwd", "/etc/passwd"),
        File("/tmp/f", "text"),
        Sysfs(),
        Remount("/"),
    ]

    def old() -> Any:
        forbid(*(calls or ["openat2", "open_tree", "fsopen", "move_mount", "mount_setattr"]))
        return run(look, "mnt pid net", root=root, mounts=mounts)

    assert support.in_child(old) == run(look, "mnt pid net", root=root, mounts=mounts)


@support.needs_root
def test_old_calls_do_not_leave_a_tree_half_read_only(root: Path, tmp_path: Path) -> None:
    """mount(2) can make one mount read-only, not those below: that is an error, not a quiet gap."""
    (tmp_path / "below").mkdir()
    bind = [Bind(tmp_path, "/usr", readonly=True)]

    def old() -> tuple[int | None, int | None]:
        own_mounts()
        forbid("mount_setattr")
        alone = inside(lambda: errno_of_write("/usr"), root=root, mounts=bind)
        mount("tmpfs", str(tmp_path / "below"), "tmpfs")
        return alone, failure(inside, nothing, root=root, mounts=bind).errno

    assert support.in_child(old) == (errno.EROFS, errno.ENOSYS)


# What may not leak


@support.needs_root
def test_a_failure_leaves_nothing_behind(root: Path) -> None:
    """On a thread that lives on: no descriptor, no mount, the working directory and umask as before."""

    def child() -> list[bool]:
        own_mounts()
        results = []
        for mounts in (
            [Tmpfs("/mnt"), Bind("/usr", "/mnt/usr"), Bind("/etc", "/no/such")],
            [Bind("/usr", "/mnt"), Bind("/etc", "/mnt"), File("/mnt/x/y", b"")],
            [Dev("/mnt"), Remount("/none")],
        ):
            before = support.open_fds(), os.getcwd(), os.umask(0o22)
            os.umask(before[2])
            recipe = nsutil.Namespace("mnt", mounts=mounts)

            def in_thread(recipe: Any = recipe) -> None:
                nsutil.unshare(nsutil.MNT)
                failure(compile_child(recipe).setup.run)

            thread = threading.Thread(target=in_thread)
            thread.start()
            thread.join()
            umask = os.umask(before[2])
            results.append((support.open_fds(), os.getcwd(), umask) == before)
        return results

    assert support.in_child(child) == [True, True, True]


@support.needs_root
def test_a_block_and_a_thread_can_have_mounts(tmp_path: Path) -> None:
    """Made for them alone, gone afterwards; a failure on the way in is undone."""
    (tmp_path / "file").write_text("outside")

    def child() -> None:
        good = nsutil.Namespace("mnt", mounts=[Tmpfs(tmp_path), File(tmp_path / "file", "inside")], allow_main_mnt=True)
        bad = nsutil.Namespace("mnt", mounts=[Tmpfs(tmp_path), File("/no/such/file", b"")], allow_main_mnt=True)
        good.thread(os.getpid).result()  # whatever is imported late
        with support.no_leaks():
            with good:
                assert (tmp_path / "file").read_text() == "inside"
            assert (tmp_path / "file").read_text() == "outside"
            assert failure(bad.__enter__).filename == "/no/such/file"
            assert good.thread((tmp_path / "file").read_text).result() == "inside"
            assert failure(bad.thread(os.getpid).result).filename == "/no/such/file"

    support.in_child(child)


@support.needs_root
def test_nothing_is_left_open_by_a_success(root: Path) -> None:
    mounts = [Tmpfs("/tmp"), Dev(), Bind("/usr", "/usr"), File("/tmp/f", b"x")]

    def look() -> list[str]:
        return sorted(support.open_fds().values())

    def expected() -> list[str]:
        return sorted(support.open_fds().values())

    def strip(names: list[str]) -> list[str]:
        return [name.split(":")[0] for name in names]

    assert strip(inside(look, "mnt pid", root=root, mounts=mounts)) == strip(inside(expected, "mnt pid"))


@support.needs_root
def test_many_binds(root: Path) -> None:
    def look() -> int:
        return len(mountinfo())

    mounts = [Tmpfs("/tmp"), *(Bind("/etc/passwd", f"/tmp/{i}") for i in range(200))]
    assert inside(look, "mnt pid", root=root, mounts=mounts) == 203
    with pytest.raises(ValueError, match="descriptors"):
        compile_child(nsutil.Namespace("mnt", mounts=mounts * 2))


# The working directory, when mounts change what its path means


@support.needs_root
@pytest.mark.parametrize("way", ["run", "call", "thread"])
@pytest.mark.parametrize(
    ("mounts", "expected"),
    [
        ([Tmpfs("/mnt")], "/"),
        ([Tmpfs("/mnt"), Bind("/etc", "/mnt/own")], "/mnt/own etc"),
        ([File("/mnt/own/new", b"")], "FileNotFoundError"),
        ([Tmpfs("/mnt/own/below")], "/mnt/own outside"),
    ],
    ids=["hidden", "another", "refused", "below"],
)
def test_working_directory_is_what_its_path_is_inside(way: str, mounts: list[Any], expected: str) -> None:
    def look() -> str:
        marks = {"passwd": "etc", "outside": "outside"}
        return " ".join([os.getcwd(), *(word for name, word in marks.items() if os.path.exists(name))])

    def body() -> tuple[str, str]:
        support.private_mounts()
        support.must("mount", b"none", b"/mnt", b"tmpfs", 0, None)
        os.makedirs("/mnt/own/below")
        Path("/mnt/own/outside").touch()
        os.chdir("/mnt/own")
        box = nsutil.Namespace("mnt", mounts=mounts)
        shell = ["sh", "-c", "pwd -P; [ -e passwd ] && echo etc; [ -e outside ] && echo outside; true"]
        ways: dict[str, Callable[[], str]] = {
            "run": lambda: " ".join(box.run(shell, capture_output=True, text=True, check=True).stdout.split()),
            "call": lambda: box.call(look),
            "thread": lambda: box.thread(look).result(),
        }
        try:
            return ways[way](), look()
        except FileNotFoundError as error:
            return type(error).__name__, look()

    assert support.in_child(body) == (expected, "/mnt/own outside")
