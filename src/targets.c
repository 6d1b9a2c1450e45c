/* Names inside the root of the mounts; see targets.h.
 *
 * Two rules keep a hostile root directory from reaching outside.  Names are
 * resolved inside the root (openat2 with RESOLVE_IN_ROOT) and never through
 * the magic links of procfs; and what was opened is what gets mounted on, so
 * that a name swapped in between changes nothing.  Where openat2 is missing
 * (before 5.6, gVisor) names are walked without following any symlink.
 */
#include "targets.h"

#include "compat.h"

#include <errno.h>
#include <string.h>
#include <sys/sysmacros.h>


void
shut(long fd)
{
    if (fd >= 0)
        SC(close, fd);
}


bool
is_unavailable(long result)
{
    return result == -ENOSYS || result == -EPERM;
}


long
status_of(long fd, struct file_status *status)
{
    return SC(statx, fd, "", AT_EMPTY_PATH, NSU_STATX_BASIC_STATS, status);
}


unsigned long
device_of(const struct file_status *status)
{
    return makedev(status->stx_dev_major, status->stx_dev_minor);
}


/* The next component of *path in name, *path moved behind it.  1, 0 at the
 * end, or -ENAMETOOLONG. */
static long
next_name(const char **path, char name[NAME_MAX + 1])
{
    const char *from = *path + strspn(*path, "/");
    size_t length = strcspn(from, "/");
    if (length > NAME_MAX)
        return -ENAMETOOLONG;
    memcpy(name, from, length);
    name[length] = '\0';
    *path = from + length;
    return length > 0;
}


/* A child of a directory as an O_PATH descriptor; no symlink is followed. */
static long
open_child(long dir, const char *name)
{
    struct file_status status;
    if (strcmp(name, "..") == 0)
        return -EXDEV;
    long fd = SC(openat, dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return fd;
    long result = status_of(fd, &status);
    if (result == 0 && S_ISLNK(status.stx_mode))
        result = -ELOOP;
    if (result == 0)
        return fd;
    shut(fd);
    return result;
}


/* open_in without openat2: symlinks and ".." are refused, not resolved. */
static long
walk_in(long root, const char *path)
{
    char name[NAME_MAX + 1];
    long more;
    long at = SC(openat, root, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    while (at >= 0 && (more = next_name(&path, name)) != 0) {
        long next = more < 0 ? more : open_child(at, name);
        shut(at);
        at = next;
    }
    return at;
}


/* An O_PATH descriptor of a path as openat2 resolves it, else -errno.  A
 * rename in the tree at the same moment makes openat2 ask for a retry. */
static long
resolve(long root, const char *path, unsigned long how)
{
    struct nsu_open_how open = {.flags = O_PATH | O_CLOEXEC,
                                .resolve = how | NSU_RESOLVE_NO_MAGICLINKS};
    long fd = -EAGAIN;
    for (int i = 0; i < 1000 && fd == -EAGAIN; i++)
        fd = SC(openat2, root, path, &open, sizeof open);
    return fd;
}


long
open_in(long root, const char *path)
{
    long fd = resolve(root, path, NSU_RESOLVE_IN_ROOT);
    return is_unavailable(fd) ? walk_in(root, path) : fd;
}


long
missing(const struct run *run, const char *path)
{
    if (!run->mounts.replaced)
        return -ENOENT;
    long fd = resolve(run->mounts.root, path + strspn(path, "/"),
                      NSU_RESOLVE_BENEATH);
    shut(fd);
    return fd == -EXDEV ? -EXDEV : -ENOENT;
}


/* Is the file on a file system that this run mounted? */
static bool
is_own(const struct run *run, long fd)
{
    struct file_status status;
    if (status_of(fd, &status) < 0)
        return false;
    for (int i = 0; i < run->mounts.own_count; i++)
        if (run->mounts.own[i] == device_of(&status))
            return true;
    return false;
}


/* Make one directory (0755) or empty file (0444) with exactly that mode.
 * Never follows or replaces anything.  0, or -errno. */
static long
make(long dir, const char *name, enum kind kind)
{
    long mask = SC(umask, 0);
    const int how = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    long result = kind == DIRECTORY ? SC(mkdirat, dir, name, 0755)
                                    : SC(openat, dir, name, how, 0444);
    SC(umask, mask);
    if (result < 0 || kind == DIRECTORY)
        return result;
    shut(result);
    return 0;
}


long
parent_of(const char *path, char head[PATH_MAX])
{
    const char *slash = strrchr(path, '/');
    size_t length = slash ? (size_t)(slash - path) : 0;
    if (strlen(path) >= PATH_MAX)
        return -ENAMETOOLONG;
    memcpy(head, path, length);
    head[length] = '\0';
    return (long)length;
}


/* The longest part of path that exists, as an O_PATH descriptor; *path is
 * moved to the rest. */
static long
open_existing(long root, const char **path)
{
    char head[PATH_MAX];
    long length = parent_of(*path, head);
    if (length < 0)
        return length;
    long fd = open_in(root, length ? head : ".");
    while (fd == -ENOENT && length > 0) {
        do
            head[--length] = '\0';
        while (length > 0 && (*path)[length] != '/');
        fd = open_in(root, length ? head : ".");
    }
    *path += length;
    return fd;
}


/* Make what is missing of a path, on a file system of this run only.  An
 * O_PATH descriptor of the last component, or -errno. */
static long
make_path(const struct run *run, const char *path, enum kind kind)
{
    char name[NAME_MAX + 1];
    const char *rest = path;
    long more;
    long at = open_existing(run->mounts.root, &rest);
    while (at >= 0 && (more = next_name(&rest, name)) != 0) {
        enum kind now = rest[strspn(rest, "/")] ? DIRECTORY : kind;
        long next = more;
        if (more > 0)
            next = is_own(run, at) ? make(at, name, now) : missing(run, path);
        if (next == 0)
            next = open_child(at, name);
        shut(at);
        at = next;
    }
    return at;
}


/* fd, if it is a directory where one is wanted and none where not; else it
 * is closed.  The kernel has EINVAL for that, which could be anything. */
static long
of_kind(long fd, enum kind kind)
{
    struct file_status status;
    long result = status_of(fd, &status);
    if (result == 0 && S_ISDIR(status.stx_mode) == (kind == DIRECTORY))
        return fd;
    shut(fd);
    return result < 0 ? result : kind == DIRECTORY ? -ENOTDIR : -EISDIR;
}


long
open_target(const struct run *run, const char *path, enum kind kind)
{
    long fd = open_in(run->mounts.root, path);
    if (fd == -ENOENT)
        fd = make_path(run, path, kind);
    return fd < 0 ? fd : of_kind(fd, kind);
}


long
open_parent(const struct run *run, const char *path, const char **name)
{
    char head[PATH_MAX];
    long length = parent_of(path, head);
    if (length < 0)
        return length;
    *name = path + length + (path[length] == '/');
    long dir = open_target(run, length ? head : ".", DIRECTORY);
    if (dir < 0)
        return dir;
    long there = SC(openat, dir, *name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    shut(there);
    if (there == -ENOENT && is_own(run, dir))
        return dir;
    shut(dir);
    if (there >= 0)
        return -EEXIST;
    return there == -ENOENT ? missing(run, path) : there;
}
