/* Saving and restoring a thread's namespaces; see nsthread.h. */
#include "nsthread.h"

#include "compat.h"
#include "procfs.h"
#include "steps.h"

#include <errno.h>
#include <linux/capability.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#ifdef __GLIBC_PREREQ
#if __GLIBC_PREREQ(2, 32)
#include <sys/single_threaded.h>
#endif
#endif

/* Types whose setns to where one is has no effect. */
enum {
    RETURN_TRIED = (CLONE_NEWCGROUP | CLONE_NEWIPC | CLONE_NEWNET
                    | CLONE_NEWUTS | CLONE_NEWPID)
};

const struct kind kinds[KINDS] = {
    {"cgroup", CLONE_NEWCGROUP, NSU_PIDFD_GET_CGROUP},
    {"ipc", CLONE_NEWIPC, NSU_PIDFD_GET_IPC},
    {"net", CLONE_NEWNET, NSU_PIDFD_GET_NET},
    {"uts", CLONE_NEWUTS, NSU_PIDFD_GET_UTS},
    {"pid_for_children", CLONE_NEWPID, NSU_PIDFD_GET_PID_FOR_CHILDREN},
    {"time_for_children", CLONE_NEWTIME, NSU_PIDFD_GET_TIME_FOR_CHILDREN},
    {"user", CLONE_NEWUSER, NSU_PIDFD_GET_USER},
    {"mnt", CLONE_NEWNS, NSU_PIDFD_GET_MNT},
    {"pid", CLONE_NEWPID, NSU_PIDFD_GET_PID},
    {"time", CLONE_NEWTIME, NSU_PIDFD_GET_TIME},
};

static _Thread_local struct block *top;
static _Thread_local int broken;
/* Types known to allow setns back, in this process: a forked child may be in
 * another user namespace. */
static _Thread_local int returnable;
static _Thread_local unsigned returnable_in;
static atomic_uint generation;
static atomic_int pidfd_works;          /* 0 untried, 1 yes, -1 no */


static void
count_fork(void)
{
    atomic_fetch_add(&generation, 1);
}


unsigned
fork_generation(void)
{
    return atomic_load(&generation);
}


void
watch_forks(void)
{
    static atomic_flag registered = ATOMIC_FLAG_INIT;
    if (!atomic_flag_test_and_set(&registered))
        pthread_atfork(NULL, NULL, count_fork);
}


bool
newer_calls(void)
{
    static atomic_int answer;           /* 0 unknown, 1 yes, -1 no */
    if (atomic_load(&answer) == 0)
        atomic_store(&answer, getenv("NSUTIL_NO_NEW_CALLS") ? -1 : 1);
    return atomic_load(&answer) > 0;
}


/* Asked once for each thread and fork: every block needs it twice. */
pid_t
thread_id(void)
{
    static _Thread_local pid_t id;
    static _Thread_local unsigned asked_in;
    if (id == 0 || asked_in != fork_generation()) {
        id = (pid_t)sc(SYS_gettid, 0, 0, 0, 0, 0, 0);
        asked_in = fork_generation();
    }
    return id;
}


bool
thread_ended(pid_t thread)
{
    return sc(SYS_tgkill, getpid(), thread, 0, 0, 0, 0) == -ESRCH;
}


/* A pidfd of the calling thread, or -1 where the kernel has none (< 6.9) or
 * shows no namespaces by it.  It is the cheaper way even to one namespace, and
 * whatever somebody has laid over /proc does not matter. */
static int
own_pidfd(void)
{
    if (atomic_load(&pidfd_works) < 0 || !newer_calls())
        return -1;
    long fd = sc(SYS_pidfd_open, thread_id(), PIDFD_THREAD, 0, 0, 0, 0);
    return fd < 0 ? -1 : (int)fd;
}


/* One namespace of the calling thread through its pidfd, else through
 * /proc/thread-self (never /proc/self, which is the main thread's). */
static int
open_kind(int pidfd, const struct kind *kind)
{
    if (pidfd >= 0) {
        long fd = sc(SYS_ioctl, pidfd, kind->pidfd_get, 0, 0, 0, 0);
        if (fd >= 0)
            return (int)fd;
        if (fd == -ENOTTY)
            atomic_store(&pidfd_works, -1);
    }
    char path[64] = "/proc/thread-self/ns/";
    return (int)open_proc_ns(strcat(path, kind->name));
}


/* Close a descriptor, unless it is closed, and forget it. */
static void
close_fd(int *fd)
{
    if (*fd >= 0)
        sc(SYS_close, *fd, 0, 0, 0, 0, 0);
    *fd = -1;
}


int
open_own_ns(const struct kind *kind)
{
    int pidfd = own_pidfd();
    int fd = open_kind(pidfd, kind);
    close_fd(&pidfd);
    return fd;
}


const struct kind *
find_kind(const char *name)
{
    for (int i = 0; i < KINDS; i++)
        if (strcmp(kinds[i].name, name) == 0)
            return &kinds[i];
    return NULL;
}


/* The inode of a namespace descriptor, 0 where there is none: a pid
 * namespace without its first process has no file. */
static uint64_t
inode_of(int fd)
{
    struct stat st;
    return fd >= 0 && fstat(fd, &st) == 0 ? st.st_ino : 0;
}


/* Open "/" and "." of the calling thread.  0 or -errno. */
static int
save_places(struct block *block)
{
    const long flags = O_PATH | O_DIRECTORY | O_CLOEXEC;
    block->root = (int)sc(SYS_openat, AT_FDCWD, (long)"/", flags, 0, 0, 0);
    if (block->root < 0)
        return block->root;
    block->cwd = (int)sc(SYS_openat, AT_FDCWD, (long)".", flags, 0, 0, 0);
    return block->cwd < 0 ? block->cwd : 0;
}


int
block_save(struct block *block, int types)
{
    int error = 0;
    int pidfd = own_pidfd();
    for (int i = 0; i < KINDS_SAVED && !error; i++) {
        if (!(types & kinds[i].flag) || block->fd[i] >= 0)
            continue;
        block->fd[i] = open_kind(pidfd, &kinds[i]);
        if (block->fd[i] < 0)
            error = block->fd[i];
        else if (kinds[i].flag == CLONE_NEWNS)
            error = save_places(block);
    }
    close_fd(&pidfd);
    return error;
}


/* The inode of one entry of the calling thread. */
static uint64_t
own_inode(const struct kind *kind)
{
    int fd = open_own_ns(kind);
    uint64_t inode = inode_of(fd);
    close_fd(&fd);
    return inode;
}


/* How many threads this process has, as the kernel counts them; libc knows
 * of processes that never had a second one. */
int
thread_count(void)
{
    struct stat st;
#ifdef _SYS_SINGLE_THREADED_H
    if (__libc_single_threaded)
        return 1;
#endif
    return stat("/proc/self/task", &st) < 0 ? 1 : (int)st.st_nlink - 2;
}


int
lasting_threads(void)
{
    const struct timespec moment = {0, 500000};
    int threads = thread_count();
    for (int i = 0; threads > 1 && i < 20; i++) {
        nanosleep(&moment, NULL);
        threads = thread_count();
    }
    return threads;
}


/* Whether this thread has CAP_SYS_ADMIN in its own user namespace. */
static bool
is_admin(void)
{
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    return sc(SYS_capget, (long)&head, (long)data, 0, 0, 0, 0) == 0
           && data[0].effective >> CAP_SYS_ADMIN & 1;
}


/* Whether the thread could come back.  In a user namespace that does not own
 * the namespaces it is in, unshare is allowed and setns back is not.  To try
 * it moves nobody; MNT is not tried, since setns would change root and cwd.
 * What was allowed once is not asked again.  0, or -EPERM. */
static int
check_return(const struct block *block, int types)
{
    if (returnable_in != block->generation)
        returnable = 0;
    returnable_in = block->generation;
    for (int i = 0; i < KINDS_SAVED; i++) {
        int flag = kinds[i].flag;
        if (!(types & flag & ~returnable & RETURN_TRIED))
            continue;
        if (sc(SYS_setns, block->fd[i], flag, 0, 0, 0, 0) == 0)
            returnable |= flag;
        else if (is_admin())
            return -EPERM;
    }
    return 0;
}


int
block_begin(struct block *block, int types, bool strict)
{
    memset(block, 0, sizeof *block);
    for (int i = 0; i < KINDS_SAVED; i++)
        block->fd[i] = -1;
    block->root = block->cwd = -1;
    block->strict = block->compare = strict;
    block->thread = thread_id();
    block->generation = fork_generation();
    int error = block_save(block, strict ? NS_ALL_TYPES : types);
    if (error == 0)
        error = check_return(block, types);
    if (error)
        block_close(block);
    if (strict) {
        block->own_pid = own_inode(&kinds[KINDS_SAVED]);
        block->own_time = own_inode(&kinds[KINDS_SAVED + 1]);
    }
    return error;
}


void
block_close(struct block *block)
{
    for (int i = 0; i < KINDS_SAVED; i++)
        close_fd(&block->fd[i]);
    close_fd(&block->root);
    close_fd(&block->cwd);
}


/* Whether "/" is the directory that fd was opened for: device, inode and,
 * since a bind mount shares both, the mount. */
static bool
is_root(int fd)
{
    struct file_status here, there;
    const unsigned want = NSU_STATX_INO | NSU_STATX_MNT_ID;
    if (sc(SYS_statx, AT_FDCWD, (long)"/", 0, want, (long)&here, 0) < 0
        || sc(SYS_statx, fd, (long)"", AT_EMPTY_PATH, want, (long)&there, 0)
               < 0)
        return false;
    return here.stx_ino == there.stx_ino
           && here.stx_dev_major == there.stx_dev_major
           && here.stx_dev_minor == there.stx_dev_minor
           && (here.stx_mask & 0x1000u) != 0
           && here.stx_mnt_id == there.stx_mnt_id;
}


/* Put root and cwd back, which setns(MNT) moved to the root of the mount
 * namespace: a caller in a chroot must not come out of it.  0 or errno. */
static int
restore_places(const struct block *block)
{
    if (!is_root(block->root) && (fchdir(block->root) < 0 || chroot(".") < 0))
        return errno;
    return fchdir(block->cwd) < 0 ? errno : 0;
}


/* Move back to one saved namespace.  0 or errno. */
static int
restore_kind(const struct block *block, int i)
{
    long result = sc(SYS_setns, block->fd[i], kinds[i].flag, 0, 0, 0, 0);
    if (result < 0)
        return (int)-result;
    return kinds[i].flag == CLONE_NEWNS ? restore_places(block) : 0;
}


/* Whether the thread already is where it was; -1 where the kernel does not
 * tell.  Asked only where it matters: setns to a namespace one is in can be
 * refused (USER, TIME, a privilege given up), and is not needed. */
static int
is_unchanged(const struct block *block, int i)
{
    if (!block->compare)
        return 0;
    uint64_t now = own_inode(&kinds[i]);
    return now == 0 ? -1 : now == inode_of(block->fd[i]);
}


/* Move back to what is in todo and was saved.  What the kernel does not tell
 * because of another MNT namespace's /proc stays in todo, unless this is the
 * last time.  0, or the first errno with all types that failed in *wrong. */
static int
restore_kinds(const struct block *block, unsigned *todo, bool last, int *wrong)
{
    int first = 0;
    for (int i = 0; i < KINDS_SAVED; i++) {
        if (block->fd[i] < 0 || !(*todo & 1u << i))
            continue;
        int unchanged = is_unchanged(block, i);
        if (unchanged < 0 && !last && kinds[i].flag != CLONE_NEWNS)
            continue;
        *todo &= ~(1u << i);
        int error = unchanged > 0 ? 0 : restore_kind(block, i);
        if (error) {
            *wrong |= kinds[i].flag;
            first = first ? first : error;
        }
    }
    return first;
}


/* Strict: the two entries that no call of this thread can move back. */
static int
still_wrong(const struct block *block)
{
    if (!block->strict)
        return 0;
    int wrong = 0;
    if (own_inode(&kinds[KINDS_SAVED]) != block->own_pid)
        wrong |= CLONE_NEWPID;
    if (own_inode(&kinds[KINDS_SAVED + 1]) != block->own_time)
        wrong |= CLONE_NEWTIME;
    return wrong;
}


int
block_restore(struct block *block, int *wrong)
{
    unsigned todo = (1u << KINDS_SAVED) - 1;
    *wrong = 0;
    int first = restore_kinds(block, &todo, false, wrong);
    int second = restore_kinds(block, &todo, true, wrong);
    first = first ? first : second;
    int rest = still_wrong(block);
    *wrong |= rest;
    block_close(block);
    return first ? first : rest ? EINVAL : 0;
}


struct block *
block_top(void)
{
    return top;
}


void
block_push(struct block *block)
{
    block->outer = top;
    top = block;
}


/* The oldest block younger than the given one that saved that kind: it
 * believes that where the given one was is where to go back to. */
static struct block *
heir_of(const struct block *block, int kind)
{
    struct block *heir = NULL;
    for (struct block *b = top; b && b != block; b = b->outer)
        if (b->fd[kind] >= 0)
            heir = b;
    return heir;
}


/* Exchange two ints. */
static void
swap_int(int *a, int *b)
{
    int t = *a;
    *a = *b;
    *b = t;
}


/* Hand what the block saved to its heirs, which close theirs with it. */
static void
bequeath(struct block *block)
{
    for (int i = 0; i < KINDS_SAVED; i++) {
        struct block *heir = block->fd[i] < 0 ? NULL : heir_of(block, i);
        if (heir == NULL)
            continue;
        swap_int(&heir->fd[i], &block->fd[i]);
        close_fd(&block->fd[i]);
        if (kinds[i].flag == CLONE_NEWNS) {
            swap_int(&heir->root, &block->root);
            swap_int(&heir->cwd, &block->cwd);
        }
    }
}


bool
block_remove(struct block *block)
{
    struct block **link = &top;
    while (*link && *link != block)
        link = &(*link)->outer;
    if (*link == NULL)
        return false;
    if (*link != top)
        bequeath(block);
    *link = block->outer;
    return true;
}


int
thread_broken(void)
{
    return broken;
}


void
thread_break(int types)
{
    broken |= types;
}


int
guard_note(int fd, int nstype)
{
    struct block *block = top;
    returnable = 0;
    if (block == NULL || block->generation != fork_generation())
        return 0;
    int types = nstype & NS_ALL_TYPES;
    if (fd >= 0 && types == 0) {
        long found = sc(SYS_ioctl, fd, NSU_GET_NSTYPE, 0, 0, 0, 0);
        types = found < 0 ? 0 : (int)found;
    }
    return types ? block_save(block, types) : 0;
}
