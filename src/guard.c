/* `with recipe:` in one C call on the way in (block.c) and one on the way
 * out (here).
 *
 * Between the system calls of a way no Python code runs, so an exception
 * raised by a signal handler finds the thread either outside or inside.  The
 * one gap left is between the end of __enter__ and the start of the body.  It
 * is closed by the Guard: looking up __exit__ makes one, the interpreter
 * keeps it on its stack as the exit function, and when the stack is thrown
 * away its deallocator leaves the block.
 *
 * A guard may be used, and may die, on any thread at any time, also without a
 * GIL.  So a thread follows pointers to the blocks on its own stack alone; to
 * others it compares.  Where a guard dies elsewhere while the thread of the
 * block looks for it, the process's lock keeps them apart. */
#include "guard.h"

#include "shared.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <structmember.h>       /* T_PYSSIZET, before Python 3.12 */

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


int
thread_usable(void)
{
    int wrong = thread_broken();
    if (wrong == 0)
        return 0;
    raise_from_python("thread_is_marked", "(i)", wrong);
    return -1;
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


/* The calling thread in this process, never 0. */
static uint64_t
this_owner(void)
{
    return (uint64_t)fork_generation() << 32 | (uint32_t)thread_id();
}


/* The block of a guard if the calling thread, in the process that did, entered
 * it, else NULL.  A thread's id comes again, its stack does not. */
static struct block *
own_block(GuardObject *self)
{
    struct block *block = block_top();
    while (block && atomic_load(&block->guard) != self)
        block = block->outer;
    bool ours = block && block->generation == fork_generation();
    return ours ? block : NULL;
}


/* Part the two, whose block is the calling thread's. */
static void
unlink_guard(GuardObject *self, struct block *block)
{
    self->block = NULL;
    atomic_store(&self->owner, 0);
    atomic_store(&block->guard, NULL);
}


void
guard_link(GuardObject *guard, struct block *block, bool keep)
{
    guard->block = block;
    atomic_store(&guard->owner, this_owner());
    block->recipe = guard->recipe;
    atomic_store(&block->guard, guard);
    block->keeps_guard = keep;
    if (keep)                   /* else the interpreter's stack keeps it */
        Py_INCREF((PyObject *)guard);
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


/* Why this thread may not leave the block of that owner.  NULL with
 * RuntimeError set. */
static PyObject *
leave_elsewhere(uint64_t owner)
{
    if (owner == 0)
        PyErr_SetString(PyExc_RuntimeError,
                        "this block is not entered, or was left already");
    else if (owner >> 32 != fork_generation())
        PyErr_SetString(PyExc_RuntimeError,
                        "this block was entered before a fork: the child "
                        "cannot leave it for its parent and stays in the "
                        "namespaces it was forked in");
    else
        PyErr_Format(PyExc_RuntimeError,
                     "the block was entered on thread %d and left on thread "
                     "%d: namespaces are per thread, nothing was restored; "
                     "leave it on the thread that entered it",
                     (int)(uint32_t)owner, (int)thread_id());
    return NULL;
}


/* Leave a block of this thread that has no guard any more.  None, or NULL with
 * RuntimeError or RestoreError set. */
static PyObject *
leave_unlinked(struct block *block)
{
    bool in_order = block_top() == block;
    block_remove(block);        /* younger blocks inherit what they need */
    if (leave_block(block) < 0)
        return NULL;
    if (in_order)
        Py_RETURN_NONE;
    PyErr_SetString(PyExc_RuntimeError,
                    "namespace blocks left out of order (a generator or a "
                    "task was switched inside a block); this block's own "
                    "namespaces are left, the younger blocks still hold");
    return NULL;
}


/* What `with` calls at the end: any three arguments.  None, or NULL with
 * RuntimeError or RestoreError set. */
static PyObject *
guard_leave(GuardObject *self)
{
    struct block *block = own_block(self);
    if (block == NULL)
        return leave_elsewhere(atomic_load(&self->owner));
    if (leave_orphans() < 0)
        return NULL;
    bool kept = block->keeps_guard;
    unlink_guard(self, block);
    PyObject *result = leave_unlinked(block);
    if (kept)
        Py_DECREF(self);
    return result;
}


/* The innermost block of that recipe on this thread, or NULL: for exits that
 * are called by name or through an ExitStack. */
static struct block *
innermost_block(const PyObject *recipe)
{
    struct block *block = block_top();
    while (block && (block->recipe != recipe || atomic_load(&block->orphan)))
        block = block->outer;
    return block;
}


/* Leave the innermost block of that recipe on this thread.  None, or NULL
 * with RuntimeError or RestoreError set. */
static PyObject *
leave_innermost(const PyObject *recipe)
{
    struct block *block = innermost_block(recipe);
    if (block == NULL) {
        PyErr_SetString(PyExc_RuntimeError,
                        "no block of this recipe is entered on this thread");
        return NULL;
    }
    if (block->generation != fork_generation())
        return leave_elsewhere((uint64_t)block->generation << 32 | 1);
    if (leave_orphans() < 0)
        return NULL;
    process_lock();
    GuardObject *guard = atomic_load(&block->guard);
    if (guard != NULL)
        unlink_guard(guard, block);
    process_unlock();
    bool kept = guard && block->keeps_guard;
    PyObject *result = leave_unlinked(block);
    if (kept)
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
    if (atomic_load(&self->owner) == 0 && innermost_block(self->recipe))
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
    PyObject *known = __atomic_load_n(&state->inside_type, __ATOMIC_ACQUIRE);
    if (known != NULL)
        return (PyTypeObject *)known;
    PyObject *module = PyImport_ImportModule("nsutil._blocks");
    PyObject *type = module ? PyObject_GetAttrString(module, "Inside") : NULL;
    Py_XDECREF(module);
    if (type
        && !__atomic_compare_exchange_n(&state->inside_type, &known, type,
                                        false, __ATOMIC_ACQ_REL,
                                        __ATOMIC_ACQUIRE)) {
        Py_DECREF(type);        /* another thread was quicker */
        type = known;
    }
    return (PyTypeObject *)type;
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


/* The guard that the look-up of __exit__ made on this thread just now, out of
 * the dict where exit_get() put it.  A new reference, or NULL, with an
 * exception set or without. */
static GuardObject *
take_waiting(struct module_state *state)
{
    PyObject *dict = PyThreadState_GetDict();
    PyObject *guard = dict ? PyDict_GetItemWithError(dict, state->waiting)
                           : NULL;
    if (guard == NULL)
        return NULL;
    Py_INCREF(guard);
    if (PyDict_DelItem(dict, state->waiting) < 0)
        Py_CLEAR(guard);
    return (GuardObject *)guard;
}


/* The guard for this entry: the one that waits for it, unless whoever looked
 * it up has dropped it, else a new one that only the block will keep. */
GuardObject *
guard_for(struct module_state *state, PyObject *recipe, bool *is_new)
{
    GuardObject *guard = take_waiting(state);
    *is_new = guard == NULL || guard->recipe != recipe
              || Py_REFCNT((PyObject *)guard) == 1;
    if (!*is_new || PyErr_Occurred())
        return guard;
    Py_XDECREF((PyObject *)guard);
    return new_guard(state, recipe);
}


/* Whether the thread of a block that is not on the calling one's stack has
 * ended; its id may be the calling one's by now.  In a forked child that is
 * not known: the block may be on the stack after all. */
static bool
is_deserted(const struct block *block)
{
    return block->generation == fork_generation()
           && (block->thread == thread_id() || thread_ended(block->thread));
}


/* The guard of a block that another thread entered, or this one before a fork,
 * dies.  A thread that is gone can't leave it; another one's next block does,
 * and in a forked child that block closes it. */
static void
abandon_elsewhere(GuardObject *self)
{
    process_lock();
    struct block *block = self->block;
    bool ended = block && is_deserted(block);
    if (block) {
        atomic_store(&block->guard, NULL);
        if (!ended)
            atomic_store(&block->orphan, true);
    }
    process_unlock();
    if (ended) {
        block_close(block);
        free(block);
    }
}


/* The last reference is gone.  On the thread of the block: leave it (an
 * exception raised here can only be shown). */
static void
guard_abandon(GuardObject *self)
{
    struct block *block = own_block(self);
    if (block == NULL) {
        abandon_elsewhere(self);
        return;
    }
    unlink_guard(self, block);
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
    if (atomic_load(&self->owner))
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
    return PyBool_FromLong(own_block(self) != NULL);
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
    PyObject *dict = PyThreadState_GetDict();
    PyObject *guard = dict ? (PyObject *)new_guard(state, recipe)
                           : PyErr_NoMemory();
    if (guard && PyDict_SetItem(dict, state->waiting, guard) < 0)
        Py_CLEAR(guard);
    return guard;
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


/* It is in the dictionary of a class of the module that its own type holds:
 * unless the collector sees that, none of them ever goes. */
static int
exit_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    return 0;
}


static PyType_Slot exit_slots[] = {
    {Py_tp_traverse, exit_traverse},
    {Py_tp_descr_get, exit_get},
    {Py_tp_call, exit_call},
    {0, NULL},
};

static PyType_Spec exit_spec = {
    .name = "nsutil._ns.Exit",
    .basicsize = sizeof(PyObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE
             | Py_TPFLAGS_HAVE_GC,
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
    state->waiting = PyUnicode_InternFromString("nsutil._ns.waiting");
    if (!state->guard_type || !state->exit_type || !state->waiting)
        return -1;
    return PyModule_AddObjectRef(module, "Guard", state->guard_type);
}
