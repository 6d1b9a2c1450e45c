/* One function per ioctl of ioctl_nsfs(2) and per namespace ioctl of a pidfd:
 * ints in, ints out, OSError as the kernel says.  New descriptors are CLOEXEC
 * from the kernel's hands. */
#include "module.h"

#include "compat.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

/* struct mnt_ns_info of linux/nsfs.h (6.12), which old headers lack. */
struct mount_info {
    uint32_t size;
    uint32_t nr_mounts;
    uint64_t id;
};


/* ioctl without the GIL.  The kernel's value, or -1 with OSError set: the
 * descriptor as given is the filename. */
static int
request(PyObject *object, int fd, unsigned long number, void *arg)
{
    int result;
    Py_BEGIN_ALLOW_THREADS
    result = ioctl(fd, number, arg);
    Py_END_ALLOW_THREADS
    if (result < 0)
        ns_oserror_of(errno, object);
    return result;
}


/* The fd of an argument, announced to the audit hooks as the ioctl `name`.
 * 0, or -1 with an exception set. */
static int
announced_fd(PyObject *object, const char *name, int *fd)
{
    if (ns_as_fd(object, fd) < 0)
        return -1;
    return ns_audit("nsutil.ioctl", "(si)", name, *fd);
}


/* An ioctl without argument whose value is the answer. */
static PyObject *
plain(PyObject *object, const char *name, unsigned long number)
{
    int fd;
    if (announced_fd(object, name, &fd) < 0)
        return NULL;
    int result = request(object, fd, number, NULL);
    return result < 0 ? NULL : PyLong_FromLong(result);
}


#define PLAIN(name, number, doc)                                              \
    PyDoc_STRVAR(name##_doc, #name "($module, fd, /)\n--\n\n" doc);           \
    static PyObject *                                                         \
    name(PyObject *module, PyObject *object)                                  \
    {                                                                         \
        (void)module;                                                         \
        return plain(object, #name, number);                                  \
    }

PLAIN(get_userns, NSU_GET_USERNS,
"A new fd for the user namespace that owns a namespace, NS_GET_USERNS.\n\n"
"Linux 4.9.  OSError: EPERM where it is outside the caller's own, EBADF,\n"
"ENOTTY for a file that is no namespace.  ioctl_nsfs(2).")

PLAIN(get_parent, NSU_GET_PARENT,
"A new fd for the parent of a PID or user namespace, NS_GET_PARENT.\n\n"
"Linux 4.9.  OSError: EPERM for the first one and for parents outside the\n"
"caller's own, EINVAL for other types, EBADF, ENOTTY.  ioctl_nsfs(2).")

PLAIN(get_nstype, NSU_GET_NSTYPE,
"The type of a namespace as its CLONE_NEW* bit, NS_GET_NSTYPE.\n\n"
"Linux 4.11.  OSError: EBADF, ENOTTY.  ioctl_nsfs(2).")


PyDoc_STRVAR(get_owner_uid_doc,
"get_owner_uid($module, fd, /)\n--\n\n"
"The uid of the owner of a user namespace, NS_GET_OWNER_UID.\n\n"
"The number is the one in the caller's user namespace.  Linux 4.11.\n"
"OSError: EINVAL for other types, EBADF, ENOTTY.  ioctl_nsfs(2).");

static PyObject *
get_owner_uid(PyObject *module, PyObject *object)
{
    int fd;
    unsigned uid = 0;
    (void)module;
    if (announced_fd(object, "get_owner_uid", &fd) < 0
        || request(object, fd, NSU_GET_OWNER_UID, &uid) < 0)
        return NULL;
    return PyLong_FromUnsignedLong(uid);
}


PyDoc_STRVAR(get_mntns_id_doc,
"get_mntns_id($module, fd, /)\n--\n\n"
"The 64-bit id of a mount namespace, NS_GET_MNTNS_ID.\n\n"
"It is what statmount(2) and listmount(2) take and is never used again.\n"
"Linux 6.11.  OSError: EINVAL for other types, EBADF, ENOTTY.\n"
"ioctl_nsfs(2).");

static PyObject *
get_mntns_id(PyObject *module, PyObject *object)
{
    int fd, result;
    uint64_t id = 0;
    (void)module;
    if (announced_fd(object, "get_mntns_id", &fd) < 0)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    result = ioctl(fd, NSU_GET_MNTNS_ID, &id);
    if (result < 0 && errno == ENOTTY)          /* 6.11 had another number */
        result = ioctl(fd, NSU_GET_MNTNS_ID_OLD, &id);
    Py_END_ALLOW_THREADS
    if (result < 0)
        return ns_oserror_of(errno, object);
    return PyLong_FromUnsignedLongLong(id);
}


PyDoc_STRVAR(get_id_doc,
"get_id($module, fd, /)\n--\n\n"
"The 64-bit id of a namespace, NS_GET_ID.\n\n"
"Unlike an inode number it is never used again while the machine runs.\n"
"Linux 6.18.  OSError: EBADF, ENOTTY.  ioctl_nsfs(2).");

static PyObject *
get_id(PyObject *module, PyObject *object)
{
    int fd;
    uint64_t id = 0;
    (void)module;
    if (announced_fd(object, "get_id", &fd) < 0
        || request(object, fd, NSU_GET_ID, &id) < 0)
        return NULL;
    return PyLong_FromUnsignedLongLong(id);
}


/* The four pid translations: the pid is passed by value. */
static PyObject *
translate(PyObject *const *args, Py_ssize_t nargs, const char *name,
          unsigned long number)
{
    int fd, pid;
    if (nargs != 2)
        return PyErr_Format(PyExc_TypeError,
                            "%s() takes exactly 2 arguments (%zd given)", name,
                            nargs);
    if (ns_as_c_int(args[1], &pid) < 0 || announced_fd(args[0], name, &fd) < 0)
        return NULL;
    int result = request(args[0], fd, number, (void *)(long)pid);
    return result < 0 ? NULL : PyLong_FromLong(result);
}


#define TRANSLATE(name, number, doc)                                          \
    PyDoc_STRVAR(name##_doc, #name "($module, fd, pid, /)\n--\n\n" doc        \
"\n\nLinux 6.11.  OSError: ESRCH where there is no such process, EINVAL for\n"\
"other types, EBADF, ENOTTY.  ioctl_nsfs(2).");                               \
    static PyObject *                                                         \
    name(PyObject *module, PyObject *const *args, Py_ssize_t nargs)           \
    {                                                                         \
        (void)module;                                                         \
        return translate(args, nargs, #name, number);                         \
    }

TRANSLATE(get_pid_from_pidns, NSU_GET_PID_FROM_PIDNS,
"The caller's number of thread `pid` of a PID namespace,\n"
"NS_GET_PID_FROM_PIDNS.")

TRANSLATE(get_tgid_from_pidns, NSU_GET_TGID_FROM_PIDNS,
"The caller's number of the process of thread `pid` of a PID namespace,\n"
"NS_GET_TGID_FROM_PIDNS.")

TRANSLATE(get_pid_in_pidns, NSU_GET_PID_IN_PIDNS,
"The number in a PID namespace of the caller's thread `pid`,\n"
"NS_GET_PID_IN_PIDNS.")

TRANSLATE(get_tgid_in_pidns, NSU_GET_TGID_IN_PIDNS,
"The number in a PID namespace of the process of the caller's thread `pid`,\n"
"NS_GET_TGID_IN_PIDNS.")


/* The three mount namespace ioctls.  Returns (value, nr_mounts, id). */
static PyObject *
mount_request(PyObject *object, const char *name, unsigned long number)
{
    int fd;
    struct mount_info info = {.size = sizeof info};
    if (announced_fd(object, name, &fd) < 0)
        return NULL;
    int result = request(object, fd, number, &info);
    if (result < 0)
        return NULL;
    return Py_BuildValue("(iIK)", result, info.nr_mounts,
                         (unsigned long long)info.id);
}


/* These three hand a plain tuple to nsutil.ioctl, which names its fields. */
#define MOUNT_REQUEST(name, number)                                           \
    PyDoc_STRVAR(name##_doc, #name "($module, fd, /)\n--\n\n"                 \
                 "(value, nr_mounts, id); see nsutil.ioctl." #name ".");      \
    static PyObject *                                                         \
    name(PyObject *module, PyObject *object)                                  \
    {                                                                         \
        (void)module;                                                         \
        return mount_request(object, #name, number);                          \
    }

MOUNT_REQUEST(mnt_get_info, NSU_MNT_GET_INFO)
MOUNT_REQUEST(mnt_get_next, NSU_MNT_GET_NEXT)
MOUNT_REQUEST(mnt_get_prev, NSU_MNT_GET_PREV)


static const struct {
    const char *name;           /* as in /proc/PID/ns */
    unsigned long number;
} pidfd_requests[] = {
    {"cgroup", NSU_PIDFD_GET_CGROUP},
    {"ipc", NSU_PIDFD_GET_IPC},
    {"mnt", NSU_PIDFD_GET_MNT},
    {"net", NSU_PIDFD_GET_NET},
    {"pid", NSU_PIDFD_GET_PID},
    {"pid_for_children", NSU_PIDFD_GET_PID_FOR_CHILDREN},
    {"time", NSU_PIDFD_GET_TIME},
    {"time_for_children", NSU_PIDFD_GET_TIME_FOR_CHILDREN},
    {"user", NSU_PIDFD_GET_USER},
    {"uts", NSU_PIDFD_GET_UTS},
};


/* The ioctl for a name of /proc/PID/ns, or 0 with an exception set. */
static unsigned long
pidfd_request_of(PyObject *name)
{
    if (!PyUnicode_Check(name)) {
        PyErr_Format(PyExc_TypeError, "name must be a str, not %R", name);
        return 0;
    }
    for (size_t i = 0; i < sizeof pidfd_requests / sizeof *pidfd_requests; i++)
        if (PyUnicode_CompareWithASCIIString(name, pidfd_requests[i].name)
            == 0)
            return pidfd_requests[i].number;
    PyErr_Format(PyExc_ValueError,
                 "unknown namespace %R; one of cgroup, ipc, mnt, net, pid, "
                 "pid_for_children, time, time_for_children, user, uts",
                 name);
    return 0;
}


PyDoc_STRVAR(pidfd_get_namespace_doc,
"pidfd_get_namespace($module, pidfd, name, /)\n--\n\n"
"A new fd for a namespace of the process of a pidfd, PIDFD_GET_*_NAMESPACE.\n"
"\n"
"name: as in /proc/PID/ns, \"pid_for_children\" and \"time_for_children\"\n"
"too.  Linux 6.11.  OSError: ESRCH for a dead process, EACCES where the\n"
"caller may not look into it, EBADF, ENOTTY; ValueError: unknown name.\n"
"PIDFD_GET_NET_NAMESPACE(2const).");

static PyObject *
pidfd_get_namespace(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    int fd;
    (void)module;
    if (nargs != 2)
        return PyErr_Format(PyExc_TypeError,
                            "pidfd_get_namespace() takes "
                            "exactly 2 arguments (%zd given)",
                            nargs);
    unsigned long number = pidfd_request_of(args[1]);
    if (number == 0 || ns_as_fd(args[0], &fd) < 0
        || ns_audit("nsutil.ioctl", "(siO)", "pidfd_get_namespace", fd,
                    args[1])
               < 0)
        return NULL;
    int result = request(args[0], fd, number, NULL);
    return result < 0 ? NULL : PyLong_FromLong(result);
}


#define ONE(name) {#name, name, METH_O, name##_doc}
#define FAST(name)                                                            \
    {#name, (PyCFunction)(void (*)(void))(name), METH_FASTCALL, name##_doc}

PyMethodDef ioctl_methods[] = {
    ONE(get_userns),          ONE(get_parent),
    ONE(get_nstype),          ONE(get_owner_uid),
    ONE(get_mntns_id),        ONE(get_id),
    FAST(get_pid_from_pidns), FAST(get_tgid_from_pidns),
    FAST(get_pid_in_pidns),   FAST(get_tgid_in_pidns),
    ONE(mnt_get_info),        ONE(mnt_get_next),
    ONE(mnt_get_prev),        FAST(pidfd_get_namespace),
    {NULL, NULL, 0, NULL},
};
