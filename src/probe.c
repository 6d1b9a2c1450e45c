/* What the doctor asks the kernel after a failure: calls that change nothing,
 * and whose answer tells a filter's refusal from the kernel's own. */
#include "module.h"

#include "apart.h"
#include "compat.h"
#include "procfs.h"
#include "steps.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>


/* A clone that the kernel refuses while it looks at the flags: SIGHAND needs
 * VM.  Should something answer it all the same, the child ends at once. */
static long
malformed_clone(unsigned flags)
{
    long bad = (long)(flags | CLONE_SIGHAND | SIGCHLD);
#if defined(__s390x__)
    long pid = sc(SYS_clone, 0, bad, 0, 0, 0, 0);
#else
    long pid = sc(SYS_clone, bad, 0, 0, 0, 0, 0);
#endif
    if (pid == 0)
        sc(SYS_exit_group, 0, 0, 0, 0, 0, 0);
    if (pid > 0)
        sc(SYS_wait4, pid, 0, 0, 0, 0, 0);
    return pid;
}


/* Make a call of that name with those CLONE_NEW* flags, malformed such that
 * the kernel refuses it before it looks at any right.  Returns the errno of
 * somebody else's refusal, 0 when the kernel itself answered, -1 for a name
 * that is not known here. */
static int
foreign_errno(const char *name, unsigned flags)
{
    long result, own;
    if (strcmp(name, "unshare") == 0) {
        own = -EINVAL;          /* bit 0 is no flag of unshare */
        result = sc(SYS_unshare, (long)(flags | 1u), 0, 0, 0, 0, 0);
    }
    else if (strcmp(name, "clone") == 0) {
        own = -EINVAL;
        result = malformed_clone(flags);
    }
    else if (strcmp(name, "setns") == 0) {
        own = -EBADF;
        result = sc(SYS_setns, -1, (long)flags, 0, 0, 0, 0);
    }
    else if (strcmp(name, "mount") == 0) {
        own = -EFAULT;          /* no target */
        result = sc(SYS_mount, 0, 0, 0, 0, 0, 0);
    }
    else if (strcmp(name, "umount2") == 0) {
        own = -EFAULT;
        result = sc(SYS_umount2, 0, 0, 0, 0, 0, 0);
    }
    else {
        return -1;
    }
    return result == own || result >= 0 ? 0 : (int)-result;
}


/* filtered(call, flags): foreign_errno of that call; ValueError where there
 * is no malformed form of it. */
static PyObject *
probe_filtered(PyObject *module, PyObject *args)
{
    const char *name;
    unsigned flags;
    (void)module;
    if (!PyArg_ParseTuple(args, "sI:filtered", &name, &flags))
        return NULL;
    int err = foreign_errno(name, flags);
    if (err < 0)
        return PyErr_Format(PyExc_ValueError, "no probe for %s", name);
    return PyLong_FromLong(err);
}


/* What identifies a root directory: also a bind mount of the same directory
 * is another root. */
struct root_id {
    uint64_t mount, inode;
    uint32_t major, minor;
};


/* 0, or -errno. */
static long
root_of_thread(struct root_id *id)
{
    struct file_status found;
    memset(&found, 0, sizeof found);
    long result = sc(SYS_statx, AT_FDCWD, (long)"/", 0,
                     NSU_STATX_INO | NSU_STATX_MNT_ID, (long)&found, 0);
    if (result < 0)
        return result;
    memset(id, 0, sizeof *id);
    id->inode = found.stx_ino;
    id->major = found.stx_dev_major;
    id->minor = found.stx_dev_minor;
    id->mount = found.stx_mnt_id;
    return 0;
}


/* A descriptor of this thread's mount namespace, or -errno; /proc may be
 * missing inside a chroot, a pidfd of the process does then. */
static long
own_mount_namespace(void)
{
    long fd = open_proc_ns("/proc/thread-self/ns/mnt");
    if (fd < 0)
        fd = sc(SYS_pidfd_open, getpid(), 0, 0, 0, 0, 0);
    return fd;
}


/* The body of a thread that ends: joining the own mount namespace puts the
 * root where the namespace's is; another root than before was a chroot. */
static void
compare_roots(void *arg)
{
    long *answer = arg;
    struct root_id before, after;
    long fd = own_mount_namespace();
    *answer = fd;
    if (fd < 0)
        return;
    *answer = sc(SYS_unshare, CLONE_FS, 0, 0, 0, 0, 0);
    if (*answer >= 0)
        *answer = root_of_thread(&before);
    if (*answer >= 0)
        *answer = sc(SYS_setns, fd, CLONE_NEWNS, 0, 0, 0, 0);
    if (*answer >= 0)
        *answer = root_of_thread(&after);
    if (*answer >= 0)
        *answer = memcmp(&before, &after, sizeof before) != 0;
    sc(SYS_close, fd, 0, 0, 0, 0, 0);
}


/* chrooted(): bool, or None where the look takes rights that are missing. */
static PyObject *
probe_chrooted(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    long answer = -1;
    int err;
    (void)module;
    Py_BEGIN_ALLOW_THREADS
    err = run_on_thread(compare_roots, &answer);
    Py_END_ALLOW_THREADS
    if (err || answer < 0)
        Py_RETURN_NONE;
    return PyBool_FromLong(answer);
}


PyMethodDef probe_methods[] = {
    {"filtered", probe_filtered, METH_VARARGS,
     "filtered($module, call, flags, /)\n--\n\n"
     "The errno with which a filter answers that call, 0 if the kernel does."},
    {"chrooted", probe_chrooted, METH_NOARGS,
     "chrooted($module, /)\n--\n\n"
     "Whether this thread's root is not its mount namespace's; None: unknown "
     "(that takes CAP_SYS_ADMIN and CAP_SYS_CHROOT)."},
    {NULL, NULL, 0, NULL},
};
