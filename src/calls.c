/* unshare, setns and clone: the thin system calls.  errno becomes an OSError;
 * what the arguments mean is left to the kernel, as the os module does. */
#include "calls.h"

#include "compat.h"
#include "nsthread.h"

#include <errno.h>
#include <sched.h>
#include <unistd.h>

/* The parameters of one function, all of which may be given by name. */
struct signature {
    const char *function;
    const char *names[2];
    Py_ssize_t required;
    Py_ssize_t total;
};


/* The position of a keyword, or -1 with TypeError set. */
static Py_ssize_t
find_parameter(const struct signature *signature, PyObject *keyword)
{
    for (Py_ssize_t i = 0; i < signature->total; i++)
        if (PyUnicode_CompareWithASCIIString(keyword, signature->names[i])
            == 0)
            return i;
    PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument %R",
                 signature->function, keyword);
    return -1;
}


/* Lay the keyword arguments at their positions in out, behind the nargs
 * positional ones.  0, or -1 with TypeError set. */
static int
bind_keywords(const struct signature *signature, PyObject *const *values,
              PyObject *keywords, PyObject **out)
{
    Py_ssize_t count = keywords ? PyTuple_Size(keywords) : 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        Py_ssize_t at = find_parameter(signature,
                                       PyTuple_GetItem(keywords, i));
        if (at < 0)
            return -1;
        if (out[at] != NULL) {
            PyErr_Format(PyExc_TypeError,
                         "%s() got multiple values for argument '%s'",
                         signature->function, signature->names[at]);
            return -1;
        }
        out[at] = values[i];
    }
    return 0;
}


/* Sort the arguments of a METH_FASTCALL | METH_KEYWORDS call into out
 * (borrowed; NULL where not given).  0, or -1 with TypeError set. */
static int
bind(const struct signature *signature, PyObject *const *args,
     Py_ssize_t nargs, PyObject *keywords, PyObject **out)
{
    if (nargs > signature->total) {
        PyErr_Format(PyExc_TypeError,
                     "%s() takes at most %zd argument%s (%zd given)",
                     signature->function, signature->total,
                     signature->total == 1 ? "" : "s", nargs);
        return -1;
    }
    for (Py_ssize_t i = 0; i < signature->total; i++)
        out[i] = i < nargs ? args[i] : NULL;
    if (bind_keywords(signature, args + nargs, keywords, out) < 0)
        return -1;
    for (Py_ssize_t i = 0; i < signature->required; i++)
        if (out[i] == NULL) {
            PyErr_Format(PyExc_TypeError,
                         "%s() missing required argument '%s' (pos %zd)",
                         signature->function, signature->names[i], i + 1);
            return -1;
        }
    return 0;
}


/* unshare(2), after the innermost with-block of this thread has noted the way
 * back.  0 or an errno.  No Python in here.  USER needs a process without
 * other threads, and the kernel forgets a joined one only a moment later. */
static int
noted_unshare(int flags)
{
    int error = -guard_note(-1, flags);
    if (error == 0)
        error = unshare(flags) < 0 ? errno : 0;
    if (error == EINVAL && flags & CLONE_NEWUSER && lasting_threads() == 1)
        error = unshare(flags) < 0 ? errno : 0;
    return error;
}


/* setns(2) likewise. */
static int
noted_setns(int fd, int nstype)
{
    int error = -guard_note(fd, nstype);
    return error ? error : setns(fd, nstype) < 0 ? errno : 0;
}


PyDoc_STRVAR(unshare_doc,
"unshare($module, flags)\n--\n\n"
"Move the calling thread into new namespaces, unshare(2).\n\n"
"flags: NSType or CLONE_* bits.  New PID and TIME namespaces are those of\n"
"the children made from now on; USER needs a process of one thread.\n"
"Inside a ``with`` block of nsutil the types are restored at its end.\n\n"
"Raises OSError as the kernel says, EINVAL for unknown bits.");

static PyObject *
call_unshare(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
             PyObject *keywords)
{
    static const struct signature signature = {"unshare", {"flags"}, 1, 1};
    PyObject *arg[1];
    int flags, error;
    (void)module;
    if (bind(&signature, args, nargs, keywords, arg) < 0
        || ns_as_c_int(arg[0], &flags) < 0
        || ns_audit("nsutil.unshare", "(i)", flags) < 0)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    error = noted_unshare(flags);
    Py_END_ALLOW_THREADS
    if (error)
        return ns_oserror(error, NULL);
    Py_RETURN_NONE;
}


PyDoc_STRVAR(setns_doc,
"setns($module, fd, nstype=0)\n--\n\n"
"Move the calling thread into existing namespaces, setns(2).\n\n"
"fd: an int or anything with fileno().  An nsfs file moves the thread into\n"
"that namespace, and nstype, when not 0, must be its type.  A pidfd (Linux\n"
"5.8) moves it into the namespaces of that process named by nstype, all of\n"
"them or none.  Inside a ``with`` block of nsutil the types are restored at\n"
"its end.\n\n"
"Raises OSError as the kernel says: EBADF for a closed fd, EINVAL for a file\n"
"that is no namespace or has another type, EPERM, ESRCH for a dead process.");

static PyObject *
call_setns(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
           PyObject *keywords)
{
    static const struct signature signature = {"setns",
                                               {"fd", "nstype"},
                                               1,
                                               2};
    PyObject *arg[2];
    int fd, nstype = 0, error;
    (void)module;
    if (bind(&signature, args, nargs, keywords, arg) < 0
        || ns_as_fd(arg[0], &fd) < 0
        || (arg[1] != NULL && ns_as_c_int(arg[1], &nstype) < 0)
        || ns_audit("nsutil.setns", "(ii)", fd, nstype) < 0)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    error = noted_setns(fd, nstype);
    Py_END_ALLOW_THREADS
    if (error)
        return ns_oserror_of(error, arg[0]);
    Py_RETURN_NONE;
}


PyDoc_STRVAR(clone_doc,
"clone($module, flags=0)\n--\n\n"
"Fork a child that goes on in new namespaces; its pid, and 0 in the child.\n"
"\n"
"flags: NSType.  As os.fork(), with the namespaces entered before it returns\n"
"in the child: with PID it is PID 1, with TIME its clocks are the new ones.\n"
"With USER the ids are unmapped until somebody writes /proc/PID/uid_map.\n"
"With USER and PID (or PID in a user namespace that does not own the present\n"
"PID namespace) the pid is that of a process in between, which hands signals\n"
"on, ends as the child ends and takes it along when killed.\n\n"
"Raises OSError as the kernel says, also for what fails in the child (there\n"
"is none then), EINVAL for bits that are no namespace; RuntimeError in a\n"
"subinterpreter.  Warns as os.fork() does when the process has threads.\n"
"clone(2), unshare(2), pid_namespaces(7), time_namespaces(7).");

static PyObject *
call_clone(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
           PyObject *keywords)
{
    static const struct signature signature = {"clone", {"flags"}, 0, 1};
    PyObject *arg[1];
    int flags = 0;
    if (bind(&signature, args, nargs, keywords, arg) < 0
        || (arg[0] != NULL && ns_as_c_int(arg[0], &flags) < 0)
        || ns_audit("nsutil.clone", "(i)", flags) < 0)
        return NULL;
    if (flags & ~NS_ALL_TYPES)
        return ns_oserror(EINVAL, NULL);
    return clone_child(module, flags);
}


#define FAST(function) (PyCFunction)(void (*)(void))(function)

PyMethodDef call_methods[] = {
    {"unshare", FAST(call_unshare), METH_FASTCALL | METH_KEYWORDS,
     unshare_doc},
    {"setns", FAST(call_setns), METH_FASTCALL | METH_KEYWORDS, setns_doc},
    {"clone", FAST(call_clone), METH_FASTCALL | METH_KEYWORDS, clone_doc},
    {NULL, NULL, 0, NULL},
};
