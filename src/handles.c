/* What NamespaceFile and NamespaceReference need from C: telling namespace
 * files from others, file handles of nsfs, and looks inside. */
#include "module.h"

#include "compat.h"
#include "guard.h"
#include "nsthread.h"
#include "procfs.h"
#include "visit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

/* struct file_handle with the 16 bytes of an nsfs handle (linux/nsfs.h of
 * 6.18): namespace id, type and inode number. */
struct nsfs_handle {
    unsigned bytes;
    int type;
    unsigned char data[16];
};


/* fstatfs(2), whatever signals come: a file may be on any file system. */
static int
file_system(int fd, struct statfs *about)
{
    int result;
    do
        result = fstatfs(fd, about);
    while (result < 0 && errno == EINTR);
    return result;
}


PyDoc_STRVAR(nsfs_type_doc,
"nsfs_type($module, fd, /)\n--\n\n"
"The CLONE_NEW* bit of a namespace file, 0 for every other file.\n\n"
"No ioctl is sent to files that are not namespaces; for an O_PATH fd of a\n"
"namespace, which takes none, the answer is -1.");

static PyObject *
nsfs_type(PyObject *module, PyObject *object)
{
    int fd, type = 0;
    struct statfs about;
    (void)module;
    if (ns_as_fd(object, &fd) < 0)
        return NULL;
    if (file_system(fd, &about) < 0)
        return ns_oserror_of(errno, object);
    if (about.f_type == NSU_NSFS_MAGIC)
        type = ioctl(fd, NSU_GET_NSTYPE);
    return PyLong_FromLong(type);
}


/* The 64-bit id into *id: 1, 0 where the kernel has none, -1 with errno. */
static int
unique_id(int fd, int type, uint64_t *id)
{
    int result = ioctl(fd, NSU_GET_ID, id);
    if (result < 0 && errno == ENOTTY && type == CLONE_NEWNS)
        result = ioctl(fd, NSU_GET_MNTNS_ID, id);
    if (result < 0)
        return errno == ENOTTY ? 0 : -1;
    return 1;
}


PyDoc_STRVAR(nsfs_identity_doc,
"nsfs_identity($module, fd, newer, /)\n--\n\n"
"(type, device, inode, id) of a descriptor: nsfs_type, fstat(2), and the\n"
"64-bit id, None where the kernel has none or newer is false.");

static PyObject *
nsfs_identity(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    int fd, type = 0;
    uint64_t id = 0;
    struct statfs about;
    struct stat st;
    (void)module;
    if (nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "nsfs_identity takes 2 arguments");
        return NULL;
    }
    int newer = PyObject_IsTrue(args[1]);
    if (newer < 0 || ns_as_fd(args[0], &fd) < 0)
        return NULL;
    if (file_system(fd, &about) < 0 || fstat(fd, &st) < 0)
        return ns_oserror_of(errno, args[0]);
    if (about.f_type == NSU_NSFS_MAGIC)
        type = ioctl(fd, NSU_GET_NSTYPE);
    int known = newer && type > 0 ? unique_id(fd, type, &id) : 0;
    if (known < 0)
        return ns_oserror_of(errno, args[0]);
    PyObject *number = known ? PyLong_FromUnsignedLongLong(id)
                             : Py_NewRef(Py_None);
    return Py_BuildValue("iKKN", type, (unsigned long long)st.st_dev,
                         (unsigned long long)st.st_ino, number);
}


PyDoc_STRVAR(nsfs_handle_doc,
"nsfs_handle($module, fd, /)\n--\n\n"
"The file handle of a namespace file as bytes, name_to_handle_at(2).\n\n"
"Linux 6.18.  OSError: EOPNOTSUPP before that.");

static PyObject *
nsfs_handle(PyObject *module, PyObject *object)
{
    int fd, mount;
    struct nsfs_handle handle = {.bytes = sizeof handle.data};
    (void)module;
    if (ns_as_fd(object, &fd) < 0)
        return NULL;
    if (syscall(SYS_name_to_handle_at, fd, "", &handle, &mount, AT_EMPTY_PATH)
        < 0)
        return ns_oserror_of(errno, object);
    if (handle.type != NSU_NSFS_HANDLE)
        return ns_oserror_of(EOPNOTSUPP, object);
    return PyBytes_FromStringAndSize((const char *)handle.data,
                                     (Py_ssize_t)handle.bytes);
}


PyDoc_STRVAR(open_nsfs_handle_doc,
"open_nsfs_handle($module, handle, /)\n--\n\n"
"A new fd for the namespace of a handle, open_by_handle_at(2).\n\n"
"Linux 6.18.  OSError: ESTALE where the namespace is gone, or is not the\n"
"caller's and the caller is not privileged; EBADF before 6.18.");

static PyObject *
open_nsfs_handle(PyObject *module, PyObject *object)
{
    char *data;
    Py_ssize_t size;
    struct nsfs_handle handle = {.bytes = sizeof handle.data,
                                 .type = NSU_NSFS_HANDLE};
    (void)module;
    if (PyBytes_AsStringAndSize(object, &data, &size) < 0)
        return NULL;
    if (size != sizeof handle.data)
        return PyErr_Format(PyExc_ValueError,
                            "an nsfs handle has %zu bytes, not %zd",
                            sizeof handle.data, size);
    memcpy(handle.data, data, sizeof handle.data);
    long fd = syscall(SYS_open_by_handle_at, NSU_FD_NSFS_ROOT, &handle,
                      O_RDONLY | O_CLOEXEC);
    return fd < 0 ? ns_oserror(errno, NULL) : PyLong_FromLong(fd);
}


/* Run a visit without the GIL.  The fd, or NULL with OSError set; its filename
 * tells what failed: the namespace as given, or the path (NULL: none). */
static PyObject *
run_visit(struct visit *visit, PyObject *namespace, PyObject *path)
{
    int fd;
    Py_BEGIN_ALLOW_THREADS
    fd = visit_namespace(visit);
    Py_END_ALLOW_THREADS
    if (fd >= 0)
        return PyLong_FromLong(fd);
    if (visit->stranded)
        return raise_from_python("restore_failed", "(ii)", visit->type,
                                 visit->stranded);
    return ns_oserror_of(-fd, visit->step ? namespace : path);
}


/* The visits' acts: a new fd, or -1 and errno. */
static int
act_socket(const struct visit *visit)
{
    const int *arg = visit->data;
    return socket(arg[0], arg[1] | SOCK_CLOEXEC, arg[2]);
}


PyDoc_STRVAR(socket_in_doc,
"socket_in($module, fd, family, type, proto, /)\n--\n\n"
"A new socket of a network namespace, made by a thread that enters it.\n\n"
"OSError: EPERM where the caller may not enter, or what socket(2) says.");

static PyObject *
socket_in(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    int arg[3];
    struct visit look = {.type = CLONE_NEWNET, .act = act_socket, .data = arg};
    (void)module;
    if (nargs != 4)
        return PyErr_Format(PyExc_TypeError,
                            "socket_in() takes exactly 4 "
                            "arguments (%zd given)",
                            nargs);
    if (ns_as_fd(args[0], &look.fd) < 0)
        return NULL;
    for (int i = 0; i < 3; i++)
        if (ns_as_c_int(args[i + 1], &arg[i]) < 0)
            return NULL;
    if (ns_audit("nsutil.socket", "(iiii)", look.fd, arg[0], arg[1], arg[2])
        < 0)
        return NULL;
    return run_visit(&look, args[0], NULL);
}


/* The arguments of openat(2). */
struct opening {
    char *path;
    int flags, mode, dirfd;
};


/* The same. */
static int
act_open(const struct visit *visit)
{
    const struct opening *opening = visit->data;
    return openat(opening->dirfd, opening->path, opening->flags | O_CLOEXEC,
                  (mode_t)opening->mode);
}


PyDoc_STRVAR(open_in_doc,
"open_in($module, fd, path, flags, mode, dirfd, /)\n--\n\n"
"openat(2) by a thread that has entered a mount namespace.\n\n"
"path: bytes; a relative one starts at dirfd, or with -1 at the root of\n"
"that namespace.  OSError: EPERM where the caller may not enter, or what\n"
"openat(2) says.");

static PyObject *
open_in(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    struct opening opening;
    struct visit look = {.type = CLONE_NEWNS,
                         .act = act_open,
                         .data = &opening};
    (void)module;
    if (nargs != 5)
        return PyErr_Format(PyExc_TypeError,
                            "open_in() takes exactly 5 "
                            "arguments (%zd given)",
                            nargs);
    if (ns_as_fd(args[0], &look.fd) < 0
        || PyBytes_AsStringAndSize(args[1], &opening.path, NULL) < 0
        || ns_as_c_int(args[2], &opening.flags) < 0
        || ns_as_c_int(args[3], &opening.mode) < 0
        || ns_as_c_int(args[4], &opening.dirfd) < 0
        || ns_audit("nsutil.open", "(iOi)", look.fd, args[1], opening.flags)
               < 0)
        return NULL;
    if (opening.dirfd == -1)
        opening.dirfd = AT_FDCWD;
    return run_visit(&look, args[0], args[1]);
}


#define FAST(name)                                                            \
    {#name, (PyCFunction)(void (*)(void))(name), METH_FASTCALL, name##_doc}

PyDoc_STRVAR(newer_doc,
"newer_calls($module, /)\n--\n\n"
"False while NSUTIL_NO_NEW_CALLS is set: what old kernels lack is not used.");

/* os.environ would take longer than the calls that are asked about. */
static PyObject *
newer_wanted(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyBool_FromLong(getenv("NSUTIL_NO_NEW_CALLS") == NULL);
}


PyDoc_STRVAR(open_own_doc,
"open_own($module, entry, /)\n--\n\n"
"A descriptor of one of the calling thread's namespaces, by its entry in\n"
"/proc/thread-self/ns; whatever lies over that, it is the thread's own.");

static PyObject *
open_own(PyObject *module, PyObject *entry)
{
    (void)module;
    const char *name = PyUnicode_AsUTF8AndSize(entry, NULL);
    const struct kind *kind = name ? find_kind(name) : NULL;
    if (name && kind == NULL)
        PyErr_Format(PyExc_ValueError, "no such entry: %R", entry);
    if (kind == NULL)
        return NULL;
    int fd = open_own_ns(kind);
    return fd < 0 ? ns_oserror(-fd, NULL) : PyLong_FromLong(fd);
}


PyDoc_STRVAR(open_proc_doc,
"open_proc($module, path, namespace=False, /)\n--\n\n"
"Open a file or directory of /proc for reading, or the namespace that an\n"
"entry leads to.  OSError EXDEV where anything lies over it: root of a MNT\n"
"namespace may have laid that there for whoever comes in.");

static PyObject *
open_proc_file(PyObject *module, PyObject *args)
{
    const char *path;
    int namespace = 0;
    (void)module;
    if (!PyArg_ParseTuple(args, "s|p:open_proc", &path, &namespace))
        return NULL;
    if (strncmp(path, "/proc/", 6) != 0)
        return PyErr_Format(PyExc_ValueError, "%s is not below /proc", path);
    long fd;
    Py_BEGIN_ALLOW_THREADS
    fd = namespace ? open_proc_ns(path) : open_proc(path, O_RDONLY);
    Py_END_ALLOW_THREADS
    return fd < 0 ? ns_oserror((int)-fd, path) : PyLong_FromLong(fd);
}


PyMethodDef handle_methods[] = {
    {"newer_calls", newer_wanted, METH_NOARGS, newer_doc},
    {"nsfs_type", nsfs_type, METH_O, nsfs_type_doc},
    {"nsfs_handle", nsfs_handle, METH_O, nsfs_handle_doc},
    {"open_nsfs_handle", open_nsfs_handle, METH_O, open_nsfs_handle_doc},
    {"open_own", open_own, METH_O, open_own_doc},
    {"open_proc", open_proc_file, METH_VARARGS, open_proc_doc},
    FAST(nsfs_identity),
    FAST(socket_in),
    FAST(open_in),
    {NULL, NULL, 0, NULL},
};
