/* `with recipe:` in one C call on the way in and one on the way out.
 *
 * Between the system calls of a way no Python code runs, so an exception
 * raised by a signal handler finds the thread either outside or inside.  The
 * one gap left is between the end of __enter__ and the start of the body.  It
 * is closed by the Guard: looking up __exit__ makes one, the interpreter
 * keeps it on its stack as the exit function, and when the stack is thrown
 * away its deallocator leaves the block. */
#include "guard.h"

#include "plan.h"

#include <errno.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct {
    PyObject_HEAD
    struct prepared prepared;
} BlockObject;

typedef struct {
    PyObject_HEAD
    PyObject *recipe;           /* the Block this guard belongs to */
    struct block *block;        /* while inside; owned by the thread's stack */
} GuardObject;

/* The guard made by the look-up of __exit__, waiting for its __enter__. */
static _Thread_local GuardObject *waiting;


/* Call a function of nsutil._recipe that makes and raises an error.  NULL
 * always, with some exception set. */
static PyObject *
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
    PyMem_RawFree(block);
    if (!error)
        return 0;
    thread_break(wrong);
    raise_from_python("restore_failed", "(ii)", wrong, error);
    return -1;
}


static bool
is_ours(const struct block *block)
{
    return block->thread == thread_id()
           && block->generation == fork_generation();
}


/* Blocks whose guard died on another thread: nobody else can leave them.
 * 0, or -1 with RestoreError set. */
static int
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
            PyMem_RawFree(block);
        }
    }
    return 0;
}


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


static PyObject *
leave_innermost(PyObject *recipe)
{
    GuardObject *guard = innermost_guard(recipe);
    if (guard == NULL) {
        PyErr_SetString(PyExc_RuntimeError,
                        "no block of this recipe is entered on this thread");
        return NULL;
    }
    Py_INCREF(guard);
    PyObject *result = guard_leave(guard);
    Py_DECREF(guard);
    return result;
}


/* ------------------------------------------------------------ entering */

/* Ask the recipe once what a block of it does and keep the answer.  0, or
 * -1 with the ValueError that says why it can't be a block. */
static int
prepare(BlockObject *self)
{
    PyObject *plan, *slots;
    int types, strict, allow_main_mnt;
    PyObject *answer = PyObject_CallMethod((PyObject *)self,
                                           "_prepare_block", NULL);
    if (answer == NULL)
        return -1;
    if (!PyArg_ParseTuple(answer, "OiOpp", &plan, &types, &slots, &strict,
                          &allow_main_mnt)) {
        Py_DECREF(answer);
        return -1;
    }
    PyObject *old_plan = self->prepared.plan, *old = self->prepared.slots;
    self->prepared = (struct prepared){Py_NewRef(plan), Py_NewRef(slots),
                                       types, strict, allow_main_mnt};
    Py_XDECREF(old_plan);
    Py_XDECREF(old);
    Py_DECREF(answer);
    return 0;
}


/* How many threads this process has, as the kernel counts them. */
static int
thread_count(void)
{
    struct stat st;
    return stat("/proc/self/task", &st) < 0 ? 1 : (int)st.st_nlink - 2;
}


/* The main thread of a threaded process must keep its CLONE_FS sharing: a
 * chdir() there would no longer be seen by the others.  0 or -1. */
static int
check_thread(const struct prepared *prepared)
{
    if (thread_broken()) {
        raise_from_python("thread_is_marked", "(i)", thread_broken());
        return -1;
    }
    if (!(prepared->types & CLONE_NEWNS) || prepared->allow_main_mnt
        || thread_id() != getpid())
        return 0;
    int threads = thread_count();
    if (threads <= 1)
        return 0;
    raise_from_python("mnt_on_main_thread", "(i)", threads);
    return -1;
}


/* A guard of that recipe that is not entered.  A new reference, or NULL. */
static GuardObject *
new_guard(struct module_state *state, PyObject *recipe)
{
    GuardObject *guard = PyObject_New(GuardObject,
                                      (PyTypeObject *)state->guard_type);
    if (guard == NULL)
        return NULL;
    guard->recipe = Py_NewRef(recipe);
    guard->block = NULL;
    return guard;
}


/* The guard for this entry: the one that the look-up of __exit__ made on
 * this thread just now, else a new one that only the block will keep. */
static GuardObject *
guard_for(struct module_state *state, PyObject *recipe, bool *is_new)
{
    GuardObject *guard = waiting;
    waiting = NULL;
    *is_new = guard == NULL || guard->recipe != recipe || guard->block;
    if (*is_new)
        return new_guard(state, recipe);
    return (GuardObject *)Py_NewRef(guard);
}


/* Save, then move.  0, or the errno of the step (run says which; step -1:
 * saving).  On failure the thread is back and *wrong is what is not. */
static int
move(struct block *block, const struct prepared *prepared,
     const struct plan *plan, struct run *run, int *wrong)
{
    *wrong = 0;
    run->step = -1;
    run->error = -block_begin(block, prepared->types, prepared->strict);
    if (run->error)
        return run->error;
    if (run_steps(plan, run) == 0)
        return 0;
    if (block_restore(block, wrong))
        thread_break(*wrong);
    return run->error;
}


/* Enter with everything made ready: nothing but C from here to the end.
 * The block is pushed and the guard holds it, or NULL with an exception. */
static struct block *
enter_block(BlockObject *self, const struct plan *plan, struct run *run)
{
    struct block *block = PyMem_RawMalloc(sizeof *block);
    if (block == NULL)
        return (struct block *)PyErr_NoMemory();
    int error, wrong;
    Py_BEGIN_ALLOW_THREADS
    error = move(block, &self->prepared, plan, run, &wrong);
    Py_END_ALLOW_THREADS
    if (!error) {
        block_push(block);
        return block;
    }
    PyMem_RawFree(block);
    if (wrong)
        raise_from_python("restore_failed", "(ii)", wrong, error);
    else
        raise_from_python("block_failed", "(Oii)", self, run->step, error);
    return NULL;
}


/* Everything of an entry that may run Python code: preparation, checks, the
 * object that `as` binds.  0, or -1 with an exception set. */
static int
get_ready(PyObject *module, BlockObject *self, GuardObject *guard,
          struct run *run, PyObject **inside)
{
    if (self->prepared.plan == NULL && prepare(self) < 0)
        return -1;
    if (check_thread(&self->prepared) < 0 || leave_orphans() < 0)
        return -1;
    if (run_preset(run, self->prepared.slots) < 0)
        return -1;
    if (plan_of(module, self->prepared.plan) == NULL)
        return -1;
    *inside = PyObject_CallMethod((PyObject *)self, "_inside", "(O)", guard);
    return *inside ? 0 : -1;
}


static PyObject *
block_enter(PyObject *object, PyTypeObject *defining, PyObject *const *args,
            Py_ssize_t nargs, PyObject *keywords)
{
    (void)args;
    if (nargs || keywords) {
        PyErr_SetString(PyExc_TypeError, "__enter__() takes no arguments");
        return NULL;
    }
    BlockObject *self = (BlockObject *)object;
    PyObject *module = PyType_GetModule(defining), *inside = NULL;
    struct block *block = NULL;
    struct run run;
    bool is_new;
    GuardObject *guard = guard_for(PyModule_GetState(module), object,
                                   &is_new);
    if (guard && get_ready(module, self, guard, &run, &inside) == 0)
        block = enter_block(self, plan_of(module, self->prepared.plan), &run);
    if (block == NULL) {
        Py_XDECREF(guard);
        Py_XDECREF(inside);
        return NULL;
    }
    guard->block = block;
    block->guard = guard;
    block->keeps_guard = is_new;
    if (!is_new)
        Py_DECREF(guard);       /* the interpreter's stack keeps it */
    return inside;
}


/* ------------------------------------------------------- the Guard type */

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


/* The last reference is gone.  On the thread of the block: leave it (an
 * exception raised here can only be shown).  Elsewhere: leave a mark for the
 * owner, whose next block does it. */
static void
guard_abandon(GuardObject *self)
{
    struct block *block = self->block;
    self->block = NULL;
    block->guard = NULL;
    if (block->thread != thread_id()) {
        atomic_store(&block->orphan, true);
        return;
    }
    block_remove(block);
    if (block->generation != fork_generation()) {
        block_close(block);
        PyMem_RawFree(block);
        return;
    }
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


static PyGetSetDef guard_getset[] = {
    {"active", guard_is_active, NULL, "inside, on this thread", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot guard_slots[] = {
    {Py_tp_doc, "One entered block; calling it leaves."},
    {Py_tp_call, guard_call},
    {Py_tp_dealloc, guard_dealloc},
    {Py_tp_getset, guard_getset},
    {0, NULL},
};

static PyType_Spec guard_spec = {
    .name = "nsutil._ns.Guard",
    .basicsize = sizeof(GuardObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE
             | Py_TPFLAGS_DISALLOW_INSTANTIATION,
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


/* ------------------------------------------------------- the Block type */

static int
block_traverse(PyObject *object, visitproc visit, void *arg)
{
    BlockObject *self = (BlockObject *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->prepared.plan);
    Py_VISIT(self->prepared.slots);
    return 0;
}


static int
block_clear(PyObject *object)
{
    BlockObject *self = (BlockObject *)object;
    Py_CLEAR(self->prepared.plan);
    Py_CLEAR(self->prepared.slots);
    return 0;
}


static void
block_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    block_clear(object);
    freefunc release = PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}


static PyObject *
block_no_async(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    PyErr_SetString(PyExc_TypeError,
                    "a namespace block belongs to one thread, an async block "
                    "would hold it across other tasks: use `with` around code "
                    "without await, or nsutil.aio.run() and nsutil.aio.call()");
    return NULL;
}


static PyMethodDef block_methods[] = {
    {"__enter__", (PyCFunction)(void (*)(void))block_enter,
     METH_METHOD | METH_FASTCALL | METH_KEYWORDS, "Enter on this thread."},
    {"__aenter__", block_no_async, METH_NOARGS, "Refused."},
    {"__aexit__", block_no_async, METH_VARARGS, "Refused."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot block_slots[] = {
    {Py_tp_doc, "The base of Namespace: what `with` does."},
    {Py_tp_methods, block_methods},
    {Py_tp_traverse, block_traverse},
    {Py_tp_clear, block_clear},
    {Py_tp_dealloc, block_dealloc},
    {0, NULL},
};

static PyType_Spec block_spec = {
    .name = "nsutil._ns.Block",
    .basicsize = sizeof(BlockObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = block_slots,
};


int
guard_add_types(PyObject *module, struct module_state *state)
{
    watch_forks();
    state->guard_type = PyType_FromModuleAndSpec(module, &guard_spec, NULL);
    state->exit_type = PyType_FromModuleAndSpec(module, &exit_spec, NULL);
    state->block_type = PyType_FromModuleAndSpec(module, &block_spec, NULL);
    if (!state->guard_type || !state->exit_type || !state->block_type)
        return -1;
    PyObject *exit = PyObject_CallNoArgs(state->exit_type);
    int error = exit ? PyObject_SetAttrString(state->block_type, "__exit__",
                                              exit)
                     : -1;
    Py_XDECREF(exit);
    if (error)
        return -1;
    return PyModule_AddObjectRef(module, "Block", state->block_type);
}
