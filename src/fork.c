/* fork() for children that run Python; see fork.h. */
#include "fork.h"

#include "nsthread.h"

#include <errno.h>
#include <unistd.h>


/* The directory of this package with a final slash, or NULL with an
 * exception set. */
static PyObject *
package_directory(PyObject *module)
{
    PyObject *file = PyModule_GetFilenameObject(module);
    if (file == NULL)
        return NULL;
    Py_ssize_t length = PyUnicode_GetLength(file);
    Py_ssize_t slash = PyUnicode_FindChar(file, '/', 0, length, -1);
    PyObject *directory = PyUnicode_Substring(file, 0, slash + 1);
    Py_DECREF(file);
    return directory;
}


/* warnings.warn(text, DeprecationWarning, skip_file_prefixes=(here,)), so that
 * the warning names the first line outside this package.  0 or -1. */
static int
warn_caller(PyObject *module, PyObject *text)
{
    PyObject *directory = package_directory(module);
    PyObject *warnings = directory ? PyImport_ImportModule("warnings") : NULL;
    PyObject *warn = warnings ? PyObject_GetAttrString(warnings, "warn")
                              : NULL;
    PyObject *args = warn ? Py_BuildValue("(OO)", text,
                                          PyExc_DeprecationWarning)
                          : NULL;
    PyObject *options = args ? Py_BuildValue("{s(O)}", "skip_file_prefixes",
                                             directory)
                             : NULL;
    PyObject *done = options ? PyObject_Call(warn, args, options) : NULL;
    Py_XDECREF(options);
    Py_XDECREF(args);
    Py_XDECREF(warn);
    Py_XDECREF(warnings);
    Py_XDECREF(directory);
    Py_XDECREF(done);
    return done ? 0 : -1;
}


/* What os.fork() says from 3.12 on, before the fork rather than after it: as
 * an error it must leave no child behind. */
static int
warn_of_threads(PyObject *module, const char *what)
{
    if (Py_Version < 0x030c0000 || thread_count() < 2)
        return 0;
    PyObject *text = PyUnicode_FromFormat(
        "This process (pid=%d) is multi-threaded, use of %s() may lead to "
        "deadlocks in the child.",
        (int)getpid(), what);
    int result = text ? warn_caller(module, text) : -1;
    Py_XDECREF(text);
    return result;
}


int
fork_allowed(PyObject *module, const char *what)
{
    /* PyOS_AfterFork_Child() ends the process in any but the main one. */
    if (PyInterpreterState_GetID(PyInterpreterState_Get()) != 0) {
        PyErr_Format(PyExc_RuntimeError,
                     "%s() forks, which subinterpreters do not support", what);
        return -1;
    }
    return warn_of_threads(module, what);
}


void
fork_begin(sigset_t *before)
{
    sigset_t all;
    sigfillset(&all);
    PyOS_BeforeFork();
    pthread_sigmask(SIG_BLOCK, &all, before);
}


void
fork_parent(const sigset_t *before)
{
    int error = errno;
    PyOS_AfterFork_Parent();
    pthread_sigmask(SIG_SETMASK, before, NULL);
    errno = error;
}
