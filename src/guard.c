/* `with recipe:` in one C call on the way in (block.c) and one on the way
 * out (here).
 *
 * Between the system calls of a way no Python code runs, so an exception
 * raised by a signal handler finds the thread either outside or inside.  The
 * one gap left is between the end of __enter__ and the start of the body.  It
 * is closed by the Guard: looking up __exit__ makes one, the interpreter
 * keeps it on its stack as the exit function, and when the stack is thrown
 * away its deallocator leaves the block. */
#include "guard.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <structmember.h>       /* T_PYSSIZET, before Python 3.12 */

/* The guard made by the look-up of __exit__, waiting for its __enter__. */
static _Thread_local GuardObject *waiting;


/* Call a function of nsutil._blocks that makes and raises an error.  NULL
 * always, with some exception set. */
PyObject *
raise_from_python(const char *function, const char *format, ...)
{
    va_list items;
    va_start(items, format);
    PyObject *args = Py_VaBuildValue(format, items);
    va_end(items);
    PyObject *module = PyImport_ImportModule("nsutil._blocks");
    PyObject *callable = module && args
                             ? PyObject_GetAttrString(module, function)
                             : NULL;
    PyObject *result = callable ? PyObject_CallObject(callable, args) : NULL;
    if (result != NULL)
        PyErr_Format(PyExc_SystemError, "%s did not raise", function);
    Py_XDECREF(result);
    Py_XDECREF(callable);
    Py_XDECREF(module);
    Py_XDECREF(args);
    return NULL;
}


/* ------------------------------------------------------------- leaving */

/* Restore a block that is out of the stack and free it.  0, or -1 with
 * RestoreError set and the thread marked. */
static int
leave_block(struct block *block)
{
    int error, wrong = 0;
    Py_BEGIN_ALLOW_THREADS
    error = block_restore(block, &wrong);
    Py_END_ALLOW_THREADS
    free(block);
    if (!error)
        return 0;
    thread_break(wrong);
    raise_from_python("restore_failed", "(ii)", wrong, error);
    return -1;
}


/* Whether the calling thread, in the process that did, entered the block. */
static bool
is_ours(const struct block *block)
{
    return block->thread == thread_id()
           && block->generation == fork_generation();
}


/* Blocks whose guard died on another thread: nobody else can leave them.
 * 0, or -1 with RestoreError set. */
int
leave_orphans(void)
{
    struct block *block;
    while ((block = block_top()) != NULL && atomic_load(&block->orphan)) {
        block_remove(block);
        if (block->generation == fork_generation()) {
            if (leave_block(block) < 0)
                return -1;
        }
        else {
            block_close(block);
            free(block);
        }
    }
    return 0;
}


/* Why this thread may not leave the block.  NULL with RuntimeError set. */
static PyObject *
leave_elsewhere(const struct block *block)
{
    if (block->generation != fork_generation())
        PyErr_SetString(PyExc_RuntimeError,
                        "this block was entered before a fork: the child "
                        "cannot leave it for its parent and stays in the "
                        "namespaces it was forked in");
    else
        PyErr_Format(PyExc_RuntimeError,
                     "the block was entered on thread %d and left on thread "
                     "%d: namespaces are per thread, nothing was restored; "
                     "leave it on the thread that entered it",
                     (int)block->thread, (int)thread_id());
    return NULL;
}


/* What `with` calls at the end: any three arguments.  None, or NULL with
 * RuntimeError or RestoreError set. */
static PyObject *
guard_leave(GuardObject *self)
{
    struct block *block = self->block;
    if (block == NULL) {
        PyErr_SetString(PyExc_RuntimeError,
                        "this block is not entered, or was left already");
        return NULL;
    }
    if (!is_ours(block))
        return leave_elsewhere(block);
    if (leave_orphans() < 0)
        return NULL;
    bool in_order = block_top() == block, kept = block->keeps_guard;
    self->block = NULL;
    block_remove(block);        /* younger blocks inherit what they need */
    int failed = leave_block(block);
    if (kept)
        Py_DECREF(self);
    if (failed)
        return NULL;
    if (in_order)
        Py_RETURN_NONE;
    PyErr_SetString(PyExc_RuntimeError,
                    "namespace blocks left out of order (a generator or a "
                    "task was switched inside a block); this block's own "
                    "namespaces are left, the younger blocks still hold");
    return NULL;
}


/* The innermost guard of that recipe on this thread (borrowed), or NULL:
 * for exits that are called by name or through an ExitStack. */
static GuardObject *
innermost_guard(PyObject *recipe)
{
    for (struct block *b = block_top(); b; b = b->outer) {
        GuardObject *guard = b->guard;
        if (guard && guard->recipe == recipe)
            return guard;
    }
    return NULL;
}


/* Leave the innermost block of that recipe on this thread.  None, or NULL
 * with RuntimeError or RestoreError set. */
static PyObject *
leave_innermost(PyObject *recipe)
{
    GuardObject *guard = innermost_guard(recipe);
    if (guard == NULL) {
        PyErr_SetString(PyExc_RuntimeError,
                        "no block of this recipe is entered on this thread");
        return NULL;
    }
    Py_INCREF((PyObject *)guard);
    PyObject *result = guard_leave(guard);
    Py_DECREF(guard);
    return result;
}


/* ------------------------------------------------------- the Guard type */

/* Leave: the guard is what the interpreter keeps as the exit function. */
static PyObject *
guard_call(PyObject *object, PyObject *args, PyObject *keywords)
{
    (void)args;
    (void)keywords;
    GuardObject *self = (GuardObject *)object;
    if (self->block == NULL && innermost_guard(self->recipe) != NULL)
        return leave_innermost(self->recipe);
    return guard_leave(self);
}


#ifndef Py_LIMITED_API
/* The same, as the interpreter likes to call it. */
static PyObject *
guard_vectorcall(PyObject *object, PyObject *const *args, size_t nargs,
                 PyObject *names)
{
    (void)args;
    (void)nargs;
    (void)names;
    return guard_call(object, NULL, NULL);
}


static PyMemberDef guard_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(GuardObject, call), READONLY,
     NULL},
    {NULL, 0, 0, 0, NULL},
};
#endif


/* The subclass of Guard that `as` binds; looked up once.  Borrowed, or NULL
 * with an exception set. */
static PyTypeObject *
inside_type(struct module_state *state)
{
    if (state->inside_type == NULL) {
        PyObject *module = PyImport_ImportModule("nsutil._blocks");
        if (module == NULL)
            return NULL;
        state->inside_type = PyObject_GetAttrString(module, "Inside");
        Py_DECREF(module);
    }
    return (PyTypeObject *)state->inside_type;
}


/* A guard of that recipe that is not entered.  A new reference, or NULL.
 * Allocated and no more: an __init__ would cost each block as much as one of
 * its system calls. */
static GuardObject *
new_guard(struct module_state *state, PyObject *recipe)
{
    PyTypeObject *type = inside_type(state);
    GuardObject *guard = type ? (GuardObject *)PyType_GenericAlloc(type, 0)
                              : NULL;
    if (guard == NULL)
        return NULL;
    guard->recipe = Py_NewRef(recipe);
#ifndef Py_LIMITED_API
    guard->call = guard_vectorcall;
#endif
    return guard;
}


/* Guard(): only a block makes one.  NULL with TypeError set. */
static PyObject *
guard_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    (void)type;
    (void)args;
    (void)keywords;
    PyErr_SetString(PyExc_TypeError,
                    "only a with block makes this object: with Namespace(...) "
                    "as inside: ...");
    return NULL;
}


/* The guard for this entry: the one that the look-up of __exit__ made on
 * this thread just now, else a new one that only the block will keep. */
GuardObject *
guard_for(struct module_state *state, PyObject *recipe, bool *is_new)
{
    GuardObject *guard = waiting;
    waiting = NULL;
    *is_new = guard == NULL || guard->recipe != recipe || guard->block;
    if (*is_new)
        return new_guard(state, recipe);
    return (GuardObject *)Py_NewRef((PyObject *)guard);
}


/* The last reference is gone.  On the thread of the block: leave it (an
 * exception raised here can only be shown).  Elsewhere: leave a mark for the
 * owner, whose next block does it; in a forked child that block closes it. */
static void
guard_abandon(GuardObject *self)
{
    struct block *block = self->block;
    self->block = NULL;
    block->guard = NULL;
    if (!is_ours(block)) {
        atomic_store(&block->orphan, true);
        return;
    }
    block_remove(block);
    PyObject *kind, *value, *trace;
    PyErr_Fetch(&kind, &value, &trace);
    if (leave_block(block) < 0)
        PyErr_WriteUnraisable(self->recipe);
    PyErr_Restore(kind, value, trace);
}


static void
guard_dealloc(PyObject *object)
{
    GuardObject *self = (GuardObject *)object;
    PyTypeObject *type = Py_TYPE(object);
    if (waiting == self)
        waiting = NULL;
    if (self->block)
        guard_abandon(self);
    Py_XDECREF(self->recipe);
    freefunc release = PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}


/* Whether the block is entered and this is its thread and process. */
static PyObject *
guard_is_active(PyObject *object, void *unused)
{
    (void)unused;
    GuardObject *self = (GuardObject *)object;
    return PyBool_FromLong(self->block && is_ours(self->block));
}


/* The recipe whose block this is. */
static PyObject *
guard_recipe(PyObject *object, void *unused)
{
    (void)unused;
    return Py_NewRef(((GuardObject *)object)->recipe);
}


static PyGetSetDef guard_getset[] = {
    {"_recipe", guard_recipe, NULL, "whose block this is", NULL},
    {"_active", guard_is_active, NULL, "inside, on this thread", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot guard_slots[] = {
    {Py_tp_doc, "One entered block; calling it leaves."},
    {Py_tp_new, guard_new},
    {Py_tp_call, guard_call},
    {Py_tp_dealloc, guard_dealloc},
    {Py_tp_getset, guard_getset},
#ifndef Py_LIMITED_API
    {Py_tp_members, guard_members},
#endif
    {0, NULL},
};

static PyType_Spec guard_spec = {
    .name = "nsutil._ns.Guard",
    .basicsize = sizeof(GuardObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE
#ifndef Py_LIMITED_API
             | Py_TPFLAGS_HAVE_VECTORCALL
#endif
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = guard_slots,
};


/* --------------------------------------------- the __exit__ descriptor */

/* recipe.__exit__ makes the guard of the block to come; Block.__exit__ is
 * the descriptor itself, callable as ExitStack calls it. */
static PyObject *
exit_get(PyObject *self, PyObject *recipe, PyObject *type)
{
    (void)type;
    if (recipe == NULL || recipe == Py_None)
        return Py_NewRef(self);
    struct module_state *state = PyType_GetModuleState(Py_TYPE(self));
    GuardObject *guard = new_guard(state, recipe);
    if (guard != NULL)
        waiting = guard;        /* borrowed: its deallocator clears this */
    return (PyObject *)guard;
}


/* Block.__exit__(recipe, ...): leave the innermost block of it. */
static PyObject *
exit_call(PyObject *self, PyObject *args, PyObject *keywords)
{
    (void)self;
    (void)keywords;
    if (PyTuple_Size(args) < 1) {
        PyErr_SetString(PyExc_TypeError, "__exit__() needs the recipe");
        return NULL;
    }
    return leave_innermost(PyTuple_GetItem(args, 0));
}


static PyType_Slot exit_slots[] = {
    {Py_tp_descr_get, exit_get},
    {Py_tp_call, exit_call},
    {0, NULL},
};

static PyType_Spec exit_spec = {
    .name = "nsutil._ns.Exit",
    .basicsize = sizeof(PyObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = exit_slots,
};


/* The types of this file; the Exit descriptor goes into Block's namespace
 * (block.c).  0, or -1 with an exception set. */
int
guard_add_types(PyObject *module, struct module_state *state)
{
    watch_forks();
    state->guard_type = PyType_FromModuleAndSpec(module, &guard_spec, NULL);
    state->exit_type = PyType_FromModuleAndSpec(module, &exit_spec, NULL);
    if (!state->guard_type || !state->exit_type)
        return -1;
    return PyModule_AddObjectRef(module, "Guard", state->guard_type);
}
