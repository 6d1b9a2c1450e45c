/* Mounts, one step each: find or make the target, mount, remember. */
#include "mountsteps.h"

#include "compat.h"
#include "procfs.h"
#include "submounts.h"
#include "targets.h"

#include <errno.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#ifndef OPEN_TREE_CLONE
#define OPEN_TREE_CLONE 1
#define OPEN_TREE_CLOEXEC O_CLOEXEC
#define MOVE_MOUNT_F_EMPTY_PATH 0x04
#define MOVE_MOUNT_T_EMPTY_PATH 0x40
#define FSOPEN_CLOEXEC 1
#define FSMOUNT_CLOEXEC 1
#define FSCONFIG_SET_FLAG 0
#define FSCONFIG_SET_STRING 1
#define FSCONFIG_CMD_CREATE 6
#endif
#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif

struct attributes {             /* struct mount_attr of mount_setattr(2) */
    uint64_t set, clear, propagation, userns;
};


/* "/proc/thread-self/fd/N": how calls that take a path reach a descriptor. */
static const char *
fd_path(long fd, char text[48])
{
    return proc_path("/proc/thread-self/fd/", fd, text);
}


/* What lies on top of path, after a mount on it by the old calls.  A lookup
 * that starts at the root does not cross a mount on the root; ".." does. */
static long
open_top(const struct run *run, const char *path)
{
    if (strcmp(path, "/") != 0)
        return open_in(run->mounts.root, path);
    return SC(openat, run->mounts.root, "..", O_PATH | O_CLOEXEC);
}


/* mount(2) on a descriptor, and the descriptor of the new mount, or -errno. */
static long
mount_old(const struct run *run, const char *path, long target,
          const char *source, const char *type, long flags,
          const char *options)
{
    char text[48];
    long result = SC(mount, source, fd_path(target, text), type, flags,
                     options);
    return result < 0 ? result : open_top(run, path);
}


/* Hand "key=value,flag" to fsconfig one by one; what has no name is passed
 * over, as by mount(2).  0, or -errno. */
static long
configure(long fs, const char *options)
{
    char text[256];
    long result = 0;
    while (result >= 0 && *options) {
        size_t length = strcspn(options, ",");
        if (length >= sizeof text)
            return -EINVAL;
        memcpy(text, options, length);
        text[length] = '\0';
        char *value = strchr(text, '=');
        if (value)
            *value++ = '\0';
        if (*text)
            result = SC(fsconfig, fs,
                        value ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG, text,
                        value, 0);
        options += length + (options[length] == ',');
    }
    return result;
}


/* A new file system, mounted nowhere yet: its descriptor, or -errno.  The
 * MOUNT_ATTR_* bits in use here are equal to their MS_* counterparts. */
static long
new_mount(const char *type, long flags, const char *options)
{
    long fs = SC(fsopen, type, FSOPEN_CLOEXEC);
    if (fs < 0)
        return fs;
    long result = SC(fsconfig, fs, FSCONFIG_SET_STRING, "source", type, 0);
    if (result >= 0)
        result = configure(fs, options);
    if (result >= 0)
        result = SC(fsconfig, fs, FSCONFIG_CMD_CREATE, 0, 0, 0);
    if (result >= 0)
        result = SC(fsmount, fs, FSMOUNT_CLOEXEC, flags);
    shut(fs);
    return result;
}


/* Lay a detached mount on a target.  Takes mount; gives it back, or
 * -errno. */
static long
attach(long mount, long target)
{
    long result = SC(move_mount, mount, "", target, "",
                     MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
    if (result >= 0)
        return mount;
    shut(mount);
    return result;
}


/* Note what later steps need of a mount that was just made on path: its
 * device when it is our own, its descriptor when it is the root now.  Takes
 * mount.  0, or -errno. */
static long
remember(struct run *run, const char *path, long mount, bool own)
{
    struct file_status status;
    struct mount_state *state = &run->mounts;
    if (mount < 0)
        return mount;
    if (own && status_of(mount, &status) == 0
        && state->own_count < RUN_OWN_MOUNTS)
        state->own[state->own_count++] = device_of(&status);
    if (strcmp(path, "/") == 0) {
        shut(state->root);
        state->root = mount;
        state->replaced++;
    }
    else {
        shut(mount);
    }
    return 0;
}


/* Keep what will be laid on target from where its mount is seen as well: a
 * procfs of the inside on the /proc of the outside, for instance.  Nothing to
 * do where target is not the root of a mount (EINVAL). */
static void
set_private(long target)
{
    char text[48];
    SC(mount, 0, fd_path(target, text), 0, MS_PRIVATE, 0);
}


/* mount_at(path, type, flags, options, how): a new file system on path. */
long
step_mount_at(struct run *run, const long *arg)
{
    const char *path = (const char *)arg[0], *type = (const char *)arg[1];
    const char *options = (const char *)arg[3];
    long target = open_target(run, path, DIRECTORY);
    if (target < 0)
        return target;
    if (arg[4] & MOUNT_ALONE)
        set_private(target);
    long mount = arg[4] & MOUNT_ONE_STRING ? -ENOSYS
                                           : new_mount(type, arg[2], options);
    if (mount >= 0)
        mount = attach(mount, target);
    else if (is_unavailable(mount))
        mount = mount_old(run, path, target, type, type, arg[2], options);
    shut(target);
    return remember(run, path, mount, arg[4] & MOUNT_OWN);
}


/* Switch a mount to read-only or back with mount(2), which sets all flags:
 * those it has are passed again, since a user namespace may add to them but
 * not take away. */
static long
remount_old(long mount, bool readonly)
{
    static const struct {
        long st, ms;
    } same[] = {
        {2, MS_NOSUID},     {4, MS_NODEV},         {8, MS_NOEXEC},
        {1024, MS_NOATIME}, {2048, MS_NODIRATIME}, {4096, MS_RELATIME},
    };
    struct statfs fs;
    char text[48];
    long flags = MS_REMOUNT | MS_BIND | (readonly ? MS_RDONLY : 0);
    long result = SC(fstatfs, mount, &fs);
    if (result < 0)
        return result;
    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        if (fs.f_flags & same[i].st)
            flags |= same[i].ms;
    return SC(mount, 0, fd_path(mount, text), 0, flags, 0);
}


/* Switch a mount, or all mounts below it, to read-only or back.  Other flags
 * stay.  mount(2) can't do a whole tree: -ENOSYS says so, a mount left
 * writable would not. */
static long
set_readonly(long mount, bool recursive, bool readonly)
{
    struct attributes change = {0};
    *(readonly ? &change.set : &change.clear) = MS_RDONLY;
    long result = SC(mount_setattr, mount, "",
                     AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0), &change,
                     sizeof change);
    if (result == -ENOSYS && !(recursive && may_have_submounts(mount)))
        result = remount_old(mount, readonly);
    return result;
}


/* open_tree(2): a copy of a mount, or of all mounts below it too, that is
 * mounted nowhere yet. */
static long
copy_mount(long dir, const char *path, bool recursive)
{
    return SC(open_tree, dir, path,
              OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (*path ? 0 : AT_EMPTY_PATH)
                  | (recursive ? AT_RECURSIVE : 0));
}


/* source(path, how): what bind_at is to mount: copied now, before any of our
 * mounts comes to lie on it.  Where mounts can't be copied it is opened, and
 * taken as it is when it is bound. */
long
step_source(struct run *run, const long *arg)
{
    const char *path = (const char *)arg[0];
    int *copied = &run->mounts.copied;
    if (*copied >= 0) {
        long mount = copy_mount(AT_FDCWD, path, arg[1] & BIND_RECURSIVE);
        if (mount >= 0 || *copied > 0 || !is_unavailable(mount)) {
            *copied = 1;
            return mount;
        }
        *copied = -1;
    }
    return SC(openat, AT_FDCWD, path, O_PATH | O_CLOEXEC);
}


/* A mount of what source is, laid on target: its descriptor, or -errno. */
static long
bind_mount(const struct run *run, const char *path, long source, long target,
           bool recursive)
{
    char text[48];
    long mount = copy_mount(source, "", recursive);
    if (mount >= 0)
        return attach(mount, target);
    if (!is_unavailable(mount))
        return mount;
    return mount_old(run, path, target, fd_path(source, text), NULL,
                     MS_BIND | (recursive ? MS_REC : 0), NULL);
}


/* Would a copy of source take along what was laid over the root by now?  A
 * copy made beforehand would not. */
static bool
holds_new_root(const struct run *run, const struct file_status *source)
{
    struct file_status root;
    return run->mounts.replaced
           && SC(statx, AT_FDCWD, "/", 0, NSU_STATX_BASIC_STATS, &root) == 0
           && device_of(&root) == device_of(source)
           && root.stx_ino == source->stx_ino;
}


/* bind_at(source, path, how): what the descriptor source is, on path. */
long
step_bind_at(struct run *run, const long *arg)
{
    struct file_status status;
    const char *path = (const char *)arg[1];
    long result = status_of(arg[0], &status);
    if (result < 0)
        return result;
    long target = open_target(run, path,
                              S_ISDIR(status.stx_mode) ? DIRECTORY
                                                       : FILE_OR_DEVICE);
    if (target < 0)
        return target;
    bool recursive = arg[2] & BIND_RECURSIVE;
    long mount = -ENOSYS;
    if (arg[2] & BIND_SOURCE && run->mounts.copied > 0) {
        mount = SC(fcntl, arg[0], F_DUPFD_CLOEXEC, 0);
        if (mount >= 0)
            mount = attach(mount, target);
    }
    else if (!recursive || !holds_new_root(run, &status)) {
        mount = bind_mount(run, path, arg[0], target, recursive);
    }
    shut(target);
    if (mount >= 0 && arg[2] & BIND_READONLY) {
        result = set_readonly(mount, recursive, true);
        if (result < 0) {
            shut(mount);
            return result;
        }
    }
    return remember(run, path, mount, false);
}


/* remount_at(path, readonly): switch the mount that path is the root of. */
long
step_remount_at(struct run *run, const long *arg)
{
    long mount = open_in(run->mounts.root, (const char *)arg[0]);
    if (mount == -ENOENT)
        mount = missing(run, (const char *)arg[0]);
    if (mount < 0)
        return mount;
    long result = set_readonly(mount, false, arg[1]);
    shut(mount);
    return result;
}


/* write_at(path, data, length): a new file with that content. */
long
step_write_at(struct run *run, const long *arg)
{
    const char *name, *data = (const char *)arg[1];
    long dir = open_parent(run, (const char *)arg[0], &name);
    if (dir < 0)
        return dir;
    long mask = SC(umask, 0);
    long fd = SC(openat, dir, name,
                 O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0444);
    SC(umask, mask);
    shut(dir);
    if (fd < 0)
        return fd;
    long n = 0;
    for (long left = arg[2]; left > 0 && (n >= 0 || n == -EINTR);) {
        n = SC(write, fd, data, left);
        if (n > 0) {
            data += n;
            left -= n;
        }
    }
    shut(fd);
    return n < 0 ? n : 0;
}


/* Is path a symlink to exactly target? */
static bool
is_symlink_to(const struct run *run, const char *path, const char *target)
{
    char head[PATH_MAX], found[PATH_MAX];
    long length = parent_of(path, head);
    if (length < 0)
        return false;
    long dir = open_in(run->mounts.root, length ? head : ".");
    long n = SC(readlinkat, dir, path + length + (path[length] == '/'), found,
                sizeof found);
    shut(dir);
    return n >= 0 && (size_t)n == strlen(target)
           && memcmp(found, target, (size_t)n) == 0;
}


/* symlink_at(target, path): a symlink; an equal one may be there already. */
long
step_symlink_at(struct run *run, const long *arg)
{
    const char *name, *path = (const char *)arg[1];
    long dir = open_parent(run, path, &name);
    if (dir == -EEXIST)
        return is_symlink_to(run, path, (const char *)arg[0]) ? 0 : dir;
    if (dir < 0)
        return dir;
    long result = SC(symlinkat, arg[0], dir, name);
    shut(dir);
    return result;
}


/* mkdir_at(path, mode): a new directory with exactly that mode. */
long
step_mkdir_at(struct run *run, const long *arg)
{
    const char *name;
    long dir = open_parent(run, (const char *)arg[0], &name);
    if (dir < 0)
        return dir;
    long mask = SC(umask, 0);
    long result = SC(mkdirat, dir, name, arg[1]);
    SC(umask, mask);
    shut(dir);
    return result;
}


/* device(path, number): an O_PATH descriptor of a character device; -ELOOP
 * or -ENODEV when something else lies there, which a container would then
 * take for its /dev/null. */
long
step_device(struct run *run, const long *arg)
{
    (void)run;
    struct file_status status;
    long fd = SC(openat, AT_FDCWD, arg[0], O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return fd;
    long result = status_of(fd, &status);
    if (result == 0 && S_ISLNK(status.stx_mode))
        result = -ELOOP;
    else if (result == 0
             && (!S_ISCHR(status.stx_mode)
                 || makedev(status.stx_rdev_major, status.stx_rdev_minor)
                        != (unsigned long)arg[1]))
        result = -ENODEV;
    if (result == 0)
        return fd;
    shut(fd);
    return result;
}


/* same_file(fd, device, inode): -ESTALE unless fd is that file. */
long
step_same_file(struct run *run, const long *arg)
{
    (void)run;
    struct file_status status;
    long result = status_of(arg[0], &status);
    if (result < 0)
        return result;
    bool same = device_of(&status) == (unsigned long)arg[1]
                && status.stx_ino == (uint64_t)arg[2];
    return same ? 0 : -ESTALE;
}


/* mount_root(): targets are looked up below the root of this process. */
long
step_mount_root(struct run *run, const long *arg)
{
    (void)arg;
    run->mounts.root = SC(openat, AT_FDCWD, "/",
                          O_PATH | O_DIRECTORY | O_CLOEXEC);
    return run->mounts.root < 0 ? run->mounts.root : 0;
}


/* root_at(fd): lay the mounts of a directory over "/", where they are part
 * of the namespace but seen by nobody, and look up all targets in them. */
long
step_root_at(struct run *run, const long *arg)
{
    long result = step_mount_root(run, NULL);
    if (result < 0)
        return result;
    long mount = bind_mount(run, "/", arg[0], run->mounts.root, true);
    return remember(run, "/", mount, false);
}


/* Does something lie over the root of this process?  A lookup of "/" does not
 * cross it, ".." does.  Not known before 5.8, and then not the case. */
static bool
root_is_covered(void)
{
    struct file_status root, top;
    long result = SC(statx, AT_FDCWD, "/", 0, NSU_STATX_MNT_ID, &root);
    if (result >= 0)
        result = SC(statx, AT_FDCWD, "/..", 0, NSU_STATX_MNT_ID, &top);
    return result < 0
           || (root.stx_mask & top.stx_mask & NSU_STATX_MNT_ID
               && root.stx_mnt_id != top.stx_mnt_id);
}


/* Unmount the old root, which lies over the new one, and what lies on it
 * still: where several mounts took the place of the root, all but the last
 * one.  umount2 takes the topmost each time, the old root last, and then has
 * nothing more to take (EINVAL); mounts that it may not take (EINVAL too) and
 * that would leave the old root within reach are told apart by their number.
 * The tree is first made a slave, lest the unmounts reach the outside where
 * mounts are shared.  0, or -errno. */
static long
let_go_of(long old, int mounts)
{
    long result = SC(fchdir, old);
    if (result >= 0)
        result = SC(mount, 0, ".", 0, MS_REC | MS_SLAVE, 0);
    while (result >= 0 && (result = SC(umount2, ".", MNT_DETACH)) >= 0)
        mounts--;
    if (result == -EINVAL && mounts <= 0)
        result = root_is_covered() ? -EBUSY : SC(chdir, "/");
    return result;
}


/* pivot_root with the old root laid over the new one for a moment, so that
 * no directory is needed for it.  The old root, or -errno: nothing changed. */
static long
pivot_to(long root)
{
    long old = SC(openat, AT_FDCWD, "/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (old < 0)
        return old;
    long result = SC(fchdir, root);
    if (result >= 0)
        result = SC(pivot_root, ".", ".");
    if (result >= 0)
        return old;
    shut(old);
    return result;
}


/* pivot(): make the root of the mounts the root of the namespace.  In a
 * chroot "/" need not be a mount, and only a mount can be replaced: joining
 * the own namespace leads to its root, from where it can be. */
long
step_pivot(struct run *run, const long *arg)
{
    (void)arg;
    int mounts = run->mounts.replaced;
    long old = pivot_to(run->mounts.root);
    if (old == -EINVAL) {
        long ns = open_proc_ns("/proc/thread-self/ns/mnt");
        if (ns >= 0 && SC(setns, ns, CLONE_NEWNS) >= 0)
            old = pivot_to(run->mounts.root);
        shut(ns);
        mounts = 1;             /* the others lie below, on the chroot */
    }
    long result = old < 0 ? old : let_go_of(old, mounts);
    shut(old);
    return result;
}


/* cwd_again(): the working directory by its path.  What was mounted over it
 * would leave a directory of the outside within reach.  Where the path leads
 * nowhere, "/"; where it may not be searched, nothing says that it changed. */
long
step_cwd_again(struct run *run, const long *arg)
{
    char path[PATH_MAX];
    (void)run;
    (void)arg;
    if (SC(getcwd, path, sizeof path) < 0 || path[0] != '/')
        return 0;
    long result = SC(chdir, path);
    if (result == -ENOENT || result == -ENOTDIR)
        result = SC(chdir, "/");
    return result == -EACCES ? 0 : result;
}


/* mounts_done(): close what the steps above keep open. */
long
step_mounts_done(struct run *run, const long *arg)
{
    (void)arg;
    shut(run->mounts.root);
    run->mounts.root = -1;
    return 0;
}
