/* The plan executor; see steps.h for the rules of this file. */
#include "steps.h"

#include "compat.h"
#include "credsteps.h"
#include "mountsteps.h"
#include "procfs.h"
#include "targets.h"

#include <errno.h>
#include <net/if.h>
#include <stdbool.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>


#ifndef HAVE_RAW_SYSCALL
long
sc(long number, long a, long b, long c, long d, long e, long f)
{
    int before = errno;
    long result = syscall(number, a, b, c, d, e, f);
    if (result == -1)
        result = -errno;
    errno = before;
    return result;
}


#endif

long
be_dumpable(const struct run *run)
{
    long flag = sc(SYS_prctl, PR_GET_DUMPABLE, 0, 0, 0, 0, 0);
    if (flag < 0 || flag == 1 || run->hidden)
        return -1;
    sc(SYS_prctl, PR_SET_DUMPABLE, 1, 0, 0, 0, 0);
    return flag;
}


void
be_as_before(long flag)
{
    /* 2 comes from fs.suid_dumpable and cannot be set: 0 is stricter. */
    if (flag >= 0)
        sc(SYS_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0, 0);
}


long
open_own_proc(const struct run *run, const char *path)
{
    long fd = open_proc(path, O_WRONLY);
    if (fd == -EACCES) {
        long flag = be_dumpable(run);
        fd = open_proc(path, O_WRONLY);
        be_as_before(flag);
    }
    return fd;
}


/* open_proc(path, flags): a file or directory of procfs. */
static long
step_open_proc(struct run *run, const long *arg)
{
    (void)run;
    return open_proc((const char *)arg[0], arg[1]);
}


/* write_proc(path, data, length): write to a file of procfs, in one write.
 * A map swallowed by a file laid over it would leave the child with rights
 * that nobody meant. */
static long
step_write_proc(struct run *run, const long *arg)
{
    long fd = open_own_proc(run, (const char *)arg[0]);
    if (fd < 0)
        return fd;
    long result = sc(SYS_write, fd, arg[1], arg[2], 0, 0, 0);
    shut(fd);
    return result;
}


/* ifup(name): set IFF_UP on an interface of the current NET namespace. */
static long
step_ifup(struct run *run, const long *arg)
{
    (void)run;
    struct ifreq request;
    const char *name = (const char *)arg[0];
    memset(&request, 0, sizeof request);
    for (int i = 0; i < IFNAMSIZ - 1 && name[i]; i++)
        request.ifr_name[i] = name[i];
    long fd = sc(SYS_socket, AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0, 0, 0, 0);
    if (fd == -EAFNOSUPPORT)
        fd = sc(SYS_socket, AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0, 0, 0, 0);
    if (fd < 0)
        return fd;
    long result = sc(SYS_ioctl, fd, SIOCGIFFLAGS, (long)&request, 0, 0, 0);
    if (result >= 0) {
        request.ifr_flags |= IFF_UP;
        result = sc(SYS_ioctl, fd, SIOCSIFFLAGS, (long)&request, 0, 0, 0);
    }
    sc(SYS_close, fd, 0, 0, 0, 0, 0);
    return result;
}


/* The two passes of a join: all but USER first with the rights held now,
 * then what is left with USER; errors of the first pass are not final since
 * the rights may come with the user namespace, those of the second are.
 * join(count, pairs): pairs holds a slot number and CLONE_NEW* flags each;
 * a pidfd may stand for several types at once. */
static long
step_join(struct run *run, const long *arg)
{
    const unsigned *pair = (const unsigned *)arg[1];
    unsigned done = 0, count = (unsigned)arg[0];
    long result = 0;
    for (unsigned i = 0; i < count; i++) {
        unsigned flags = pair[2 * i + 1] & ~(unsigned)CLONE_NEWUSER;
        long fd = run->slot[pair[2 * i]];
        if (flags && sc(SYS_setns, fd, flags, 0, 0, 0, 0) == 0)
            done |= flags;
    }
    for (unsigned i = 0; i < count && result >= 0; i++) {
        unsigned flags = pair[2 * i + 1] & CLONE_NEWUSER;
        if (flags)
            result = sc(SYS_setns, run->slot[pair[2 * i]],
                        pair[2 * i + 1] & ~done, 0, 0, 0, 0);
        if (flags && result >= 0)
            done |= pair[2 * i + 1];
    }
    for (unsigned i = 0; i < count && result >= 0; i++)
        if (pair[2 * i + 1] & ~done)
            result = sc(SYS_setns, run->slot[pair[2 * i]],
                        pair[2 * i + 1] & ~done, 0, 0, 0, 0);
    return result;
}


/* verify_ns(dir, name, inode): -ESTALE unless that entry of dir, our own
 * /proc/PID/task/TID/ns taken before any mount changed, is the namespace of
 * that inode: a join that went elsewhere must not go unseen. */
static long
step_verify_ns(struct run *run, const long *arg)
{
    (void)run;
    struct file_status found;
    long result = sc(SYS_statx, arg[0], arg[1], 0, NSU_STATX_INO, (long)&found,
                     0);
    if (result < 0)
        return result;
    return found.stx_ino == (uint64_t)arg[2] ? 0 : -ESTALE;
}


/* Call mount("/") with the root of the mount namespace as "/": in a chroot
 * "/" need not be a mount point.  setns to one's own namespace leads there,
 * the saved root and directory lead back. */
static long
mount_at_ns_root(long flags)
{
    const long how = O_PATH | O_DIRECTORY | O_CLOEXEC;
    long root = sc(SYS_openat, AT_FDCWD, (long)"/", how, 0, 0, 0);
    long cwd = sc(SYS_openat, AT_FDCWD, (long)".", how, 0, 0, 0);
    long ns = open_proc_ns("/proc/thread-self/ns/mnt");
    long result = root < 0 ? root : cwd < 0 ? cwd : ns;
    if (result >= 0)
        result = sc(SYS_setns, ns, CLONE_NEWNS, 0, 0, 0, 0);
    if (result >= 0) {
        result = sc(SYS_mount, 0, (long)"/", 0, flags, 0, 0);
        long back = sc(SYS_fchdir, root, 0, 0, 0, 0, 0);
        if (back >= 0)
            back = sc(SYS_chroot, (long)".", 0, 0, 0, 0, 0);
        if (back >= 0)
            back = sc(SYS_fchdir, cwd, 0, 0, 0, 0, 0);
        result = back < 0 ? back : result;
    }
    for (int i = 0; i < 3; i++) {
        long fd = i == 0 ? root : i == 1 ? cwd : ns;
        if (fd >= 0)
            sc(SYS_close, fd, 0, 0, 0, 0, 0);
    }
    return result;
}


/* propagation(flags): MS_REC | MS_PRIVATE, ... for every mount there is. */
static long
step_propagation(struct run *run, const long *arg)
{
    (void)run;
    long result = sc(SYS_mount, 0, (long)"/", 0, arg[0], 0, 0);
    return result == -EINVAL ? mount_at_ns_root(arg[0]) : result;
}


/* chdir_again(result, path): chdir unless an earlier try of that path, whose
 * result is given, came through: a relative path leads on from where it is. */
static long
step_chdir_again(struct run *run, const long *arg)
{
    (void)run;
    return arg[0] == 0 ? 0 : sc(SYS_chdir, arg[1], 0, 0, 0, 0, 0);
}


/* check_cwd(): -ENOENT when the working directory is not below the root:
 * a directory kept from outside would be a way out.  -ENAMETOOLONG when it is
 * so deep that the kernel can't tell. */
static long
step_check_cwd(struct run *run, const long *arg)
{
    (void)run;
    (void)arg;
    char path[4096];
    long length = sc(SYS_getcwd, (long)path, sizeof path, 0, 0, 0, 0);
    if (length < 0)
        return length;
    return path[0] == '/' ? 0 : -ENOENT;
}


#define CALL(name, nargs) {#name, SYS_##name, NULL, nargs, 0}
#define OPENER(name, nargs) {#name, SYS_##name, NULL, nargs, 1}
#define COMPOSITE(name, nargs) {#name, -1, step_##name, nargs, 0}
#define COMPOSITE_OPENER(name, nargs) {#name, -1, step_##name, nargs, 1}

/* clang-format off */
static const struct op ops[] = {
    CALL(capset, 2),
    CALL(chdir, 1),
    CALL(chroot, 1),
    CALL(close, 1),
    CALL(close_range, 3),
    CALL(dup3, 3),
    CALL(fchdir, 1),
    CALL(fchmod, 2),
    CALL(fcntl, 3),
    CALL(fsconfig, 5),
    OPENER(fsmount, 3),
    OPENER(fsopen, 2),
    CALL(ioctl, 3),
    CALL(mkdirat, 3),
    CALL(mount, 5),
    CALL(mount_setattr, 5),
    CALL(move_mount, 5),
    OPENER(open_tree, 3),
    OPENER(openat, 4),
    OPENER(openat2, 4),
    CALL(personality, 1),
    OPENER(pidfd_getfd, 3),
    CALL(pivot_root, 2),
    CALL(prctl, 5),
    CALL(prlimit64, 4),
    CALL(setdomainname, 2),
    CALL(setgroups, 2),
    CALL(sethostname, 2),
    CALL(setns, 2),
    CALL(setpgid, 2),
    CALL(setresgid, 3),
    CALL(setresuid, 3),
    CALL(setsid, 0),
    OPENER(socket, 3),
    CALL(symlinkat, 3),
    CALL(umask, 1),
    CALL(umount2, 2),
    CALL(unlinkat, 3),
    CALL(unshare, 1),
    CALL(write, 3),
    COMPOSITE(chdir_again, 2),
    COMPOSITE(check_cwd, 0),
    COMPOSITE(ifup, 1),
    COMPOSITE(join, 2),
    COMPOSITE(propagation, 1),
    COMPOSITE(verify_ns, 3),
    COMPOSITE_OPENER(open_proc, 2),
    COMPOSITE(write_proc, 3),
    CREDENTIAL_OPS
    MOUNT_OPS
};
/* clang-format on */


const struct op *
find_op(const char *name)
{
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        if (strcmp(ops[i].name, name) == 0)
            return &ops[i];
    return NULL;
}


/* One step.  Its result, -errno on failure. */
static long
run_step(const struct step *step, struct run *run)
{
    long arg[STEP_ARGS];
    for (int i = 0; i < STEP_ARGS; i++)
        arg[i] = step->from_slot & 1u << i ? run->slot[step->arg[i]]
                                           : step->arg[i];
    if (step->op->number < 0)
        return step->op->function(run, arg);
    return sc(step->op->number, arg[0], arg[1], arg[2], arg[3], arg[4],
              arg[5]);
}


/* Whether a failure of that step counts as success. */
static bool
is_tolerated(const struct step *step, long result)
{
    return step->tolerate == TOLERATE_ANY || step->tolerate == -result;
}


/* After a failure: close what the steps before it opened and kept in slots.
 * A thread that goes on living must not gather descriptors. */
static void
close_opened(const struct plan *plan, struct run *run)
{
    for (int i = 0; i < run->step; i++) {
        const struct step *step = &plan->steps[i];
        if (step->op->opens && step->out >= 0)
            shut(run->slot[step->out]);
    }
    step_mounts_done(run, NULL);
}


int
run_steps(const struct plan *plan, struct run *run)
{
    for (int i = 0; i < plan->count; i++) {
        const struct step *step = &plan->steps[i];
        long result = run_step(step, run);
        if (result < 0 && !is_tolerated(step, result)) {
            run->step = i;
            run->error = (int)-result;
            close_opened(plan, run);
            return run->error;
        }
        if (step->out >= 0)
            run->slot[step->out] = result < 0 ? -1 : result;
        if (step->op->number == SYS_close && step->from_slot & 1u)
            run->slot[step->arg[0]] = -1;
    }
    return 0;
}
