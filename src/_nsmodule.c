/* nsutil._ns: the entry file.  It lists the topic files' tables and holds
 * what they share; the work is elsewhere. */
#include "module.h"
#include "steps.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>


PyObject *
ns_oserror(int err, const char *filename)
{
    errno = err;
    return PyErr_SetFromErrnoWithFilename(PyExc_OSError, filename);
}


PyObject *
ns_oserror_of(int err, PyObject *object)
{
    errno = err;
    return PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, object);
}


#ifdef Py_LIMITED_API
int
ns_audit(const char *event, const char *format, ...)
{
    va_list items;
    va_start(items, format);
    PyObject *args = Py_VaBuildValue(format, items);
    va_end(items);
    if (args == NULL)
        return -1;
    PyObject *audit = PySys_GetObject("audit");        /* borrowed */
    PyObject *name = PyUnicode_FromString(event);
    PyObject *head = name ? PyTuple_Pack(1, name) : NULL;
    PyObject *all = head ? PySequence_Concat(head, args) : NULL;
    PyObject *done = audit && all ? PyObject_CallObject(audit, all) : NULL;
    Py_XDECREF(all);
    Py_XDECREF(head);
    Py_XDECREF(name);
    Py_DECREF(args);
    if (done == NULL && audit != NULL)
        return -1;
    Py_XDECREF(done);
    return 0;
}
#endif


#ifdef Py_GIL_DISABLED
/* A critical section of the object would not do: to set the attribute takes
 * another one, which suspends ours (3.13). */
static PyMutex swapping;
#define SWAPPING(does) PyMutex_##does(&swapping)


/* The thread that forks has not got it. */
static void
allow_swaps(void)
{
    swapping = (PyMutex){0};
}
#else
#define SWAPPING(does) ((void)0)
#endif


PyObject *
ns_swap(PyObject *object, PyObject *name, PyObject *value)
{
    SWAPPING(Lock);
    PyObject *old = PyObject_GetAttr(object, name);
    if (old && PyObject_SetAttr(object, name, value) < 0)
        Py_CLEAR(old);
    SWAPPING(Unlock);
    return old;
}


PyDoc_STRVAR(swap_doc,
"swap($module, owner, name, value, /)\n--\n\n"
"Set an attribute; what it was, which no other thread gets as well.");

static PyObject *
swap(PyObject *module, PyObject *args)
{
    PyObject *object, *name, *value;
    (void)module;
    if (!PyArg_ParseTuple(args, "OUO:swap", &object, &name, &value))
        return NULL;
    return ns_swap(object, name, value);
}


PyDoc_STRVAR(check_thread_doc,
"check_thread($module, /)\n--\n\n"
"RestoreError on a thread that a block could not bring back.");

static PyObject *
check_thread(PyObject *module, PyObject *args)
{
    (void)module;
    (void)args;
    if (thread_usable() < 0)
        return NULL;
    Py_RETURN_NONE;
}


static PyMethodDef shared_methods[] = {
    {"check_thread", check_thread, METH_NOARGS, check_thread_doc},
    {"swap", swap, METH_VARARGS, swap_doc},
    {NULL, NULL, 0, NULL},
};


int
ns_as_c_int(PyObject *object, int *value)
{
    long wide = PyLong_AsLong(object);
    if (wide == -1 && PyErr_Occurred())
        return -1;
    if (wide < INT_MIN || wide > INT_MAX) {
        PyErr_Format(PyExc_OverflowError, "%R does not fit a C int", object);
        return -1;
    }
    *value = (int)wide;
    return 0;
}


int
ns_as_fd(PyObject *object, int *fd)
{
    if (PyLong_Check(object) && !PyBool_Check(object))
        return ns_as_c_int(object, fd);
    *fd = PyObject_AsFileDescriptor(object);
    return *fd < 0 ? -1 : 0;
}


/* What Python must know of the C side.  0, or -1 with an exception set. */
static int
add_constants(PyObject *module)
{
    return PyModule_AddIntConstant(module, "RUN_SLOTS", RUN_SLOTS);
}


static int
module_exec(PyObject *module)
{
    PyMethodDef *tables[] = {call_methods,  handle_methods,  holder_methods,
                             ioctl_methods, message_methods, name_methods,
                             plan_methods,  probe_methods,   process_methods,
                             scan_methods,  shared_methods};
    struct module_state *state = PyModule_GetState(module);
#ifdef Py_GIL_DISABLED
    pthread_atfork(NULL, NULL, allow_swaps);
#endif
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        if (PyModule_AddFunctions(module, tables[i]) < 0)
            return -1;
    if (plan_add_types(module, state) < 0 || guard_add_types(module, state) < 0
        || block_add_types(module, state) < 0 || child_add_type(module) < 0)
        return -1;
    return add_constants(module);
}


static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    struct module_state *state = PyModule_GetState(module);
    Py_VISIT(state->plan_type);
    Py_VISIT(state->block_type);
    Py_VISIT(state->guard_type);
    Py_VISIT(state->inside_type);
    Py_VISIT(state->exit_type);
    Py_VISIT(state->waiting);
    return 0;
}


static int
module_clear(PyObject *module)
{
    struct module_state *state = PyModule_GetState(module);
    Py_CLEAR(state->plan_type);
    Py_CLEAR(state->block_type);
    Py_CLEAR(state->guard_type);
    Py_CLEAR(state->inside_type);
    Py_CLEAR(state->exit_type);
    Py_CLEAR(state->waiting);
    return 0;
}


static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030c0000 && !defined(Py_LIMITED_API)
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030d0000 && !defined(Py_LIMITED_API)
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "nsutil._ns",
    .m_doc = "The system calls behind nsutil.",
    .m_size = sizeof(struct module_state),
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
};


PyMODINIT_FUNC
PyInit__ns(void)
{
    return PyModuleDef_Init(&module_definition);
}
