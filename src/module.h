/* What the Python glue files share.  The files without Python.h (steps.c,
 * spawn.c, scan.c, init.c) never include this. */
#ifndef NSUTIL_MODULE_H
#define NSUTIL_MODULE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

struct module_state {
    PyObject *plan_type;        /* _ns.Plan */
    PyObject *block_type;       /* _ns.Block, the base of Namespace */
    PyObject *guard_type;       /* one `with` in progress */
    PyObject *inside_type;      /* what `as` binds: nsutil._blocks.Inside, a
                                   subclass of it; NULL until first needed */
    PyObject *exit_type;        /* the descriptor behind Block.__exit__ */
    PyObject *waiting;          /* a thread's guard for its next block: the
                                   key in the dict of the thread's state */
};

/* One table per topic file, added to the module by _nsmodule.c. */
extern PyMethodDef call_methods[];      /* calls.c: unshare, setns, clone */
extern PyMethodDef handle_methods[];    /* handles.c */
extern PyMethodDef holder_methods[];    /* holder.c */
extern PyMethodDef ioctl_methods[];     /* ioctls.c */
extern PyMethodDef name_methods[];      /* named.c */
extern PyMethodDef plan_methods[];      /* plan.c */
extern PyMethodDef probe_methods[];     /* probe.c: for the doctor */
extern PyMethodDef process_methods[];   /* process.c: spawn, fork */
extern PyMethodDef scan_methods[];      /* scanmod.c */
extern PyMethodDef message_methods[];   /* message.c */

/* Add the types of that file to the module and its state.  0, or -1 with an
 * exception set. */
int plan_add_types(PyObject *module, struct module_state *state);
int guard_add_types(PyObject *module, struct module_state *state);
int block_add_types(PyObject *module, struct module_state *state);
int child_add_type(PyObject *module);

/* Raise the OSError of err with a filename (NULL: none).  Returns NULL. */
PyObject *ns_oserror(int err, const char *filename);

/* The same with the object that failed as filename, an fd for example. */
PyObject *ns_oserror_of(int err, PyObject *object);

/* sys.audit(event, *args) with args as Py_BuildValue takes a tuple's items.
 * Returns 0, or -1 with the hook's exception set.  The stable ABI has it from
 * 3.13 on only. */
#ifdef Py_LIMITED_API
int ns_audit(const char *event, const char *format, ...);
#else
#define ns_audit PySys_Audit
#endif

/* Whether other things may start from the calling thread: one that a block
 * could not bring back would hand on the namespaces it is stuck in.  0, or -1
 * with RestoreError set.  In guard.c. */
int thread_usable(void);

/* Set an attribute to a value and return what it was, which no other thread
 * gets as well: whoever gets a descriptor may close it.  NULL with an
 * exception set. */
PyObject *ns_swap(PyObject *object, PyObject *name, PyObject *value);

/* A C int of any value, with the errors of the os module: TypeError, or
 * OverflowError for what does not fit.  0, or -1 with one of them set. */
int ns_as_c_int(PyObject *object, int *value);

/* A descriptor from an int or an object with fileno(); 0, or -1 with an
 * exception set.  Negative ints pass: the kernel judges (EBADF); what does
 * not fit a C int is an OverflowError, as in the os module. */
int ns_as_fd(PyObject *object, int *fd);

#endif
