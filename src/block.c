/* The way into a block: save, move and set up in one C call; see guard.c. */
#include "guard.h"

#include "plan.h"

#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

/* What Namespace._prepare_block() returns, kept in the recipe. */
struct prepared {
    PyObject *plan;             /* _ns.Plan */
    PyObject *slots;            /* tuple of descriptors that the plan uses */
    int types;                  /* CLONE_NEW* to save and restore */
    int strict;
    int allow_main_mnt;
};

/* Several threads may enter the same recipe for the first time at once, also
 * without a GIL: the first one's answer is published whole and stays. */
typedef struct {
    PyObject_HEAD
    struct prepared *prepared;  /* NULL: not prepared */
} BlockObject;


/* What is published, or NULL. */
static struct prepared *
prepared_of(const BlockObject *self)
{
    return __atomic_load_n(&self->prepared, __ATOMIC_ACQUIRE);
}


/* Takes NULL too. */
static void
drop_prepared(struct prepared *prepared)
{
    if (prepared == NULL)
        return;
    Py_DECREF(prepared->plan);
    Py_DECREF(prepared->slots);
    PyMem_Free(prepared);
}


/* Publish it, or drop it where another thread was quicker. */
static void
publish(BlockObject *self, struct prepared *prepared)
{
    struct prepared *none = NULL;
    if (!__atomic_compare_exchange_n(&self->prepared, &none, prepared, false,
                                     __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        drop_prepared(prepared);
}


/* Ask the recipe once what a block of it does and keep the answer.  0, or
 * -1 with the ValueError that says why it can't be a block. */
static int
prepare(BlockObject *self)
{
    PyObject *plan, *slots;
    int types, strict, allow_main_mnt;
    PyObject *answer = PyObject_CallMethod((PyObject *)self, "_prepare_block",
                                           NULL);
    if (answer == NULL)
        return -1;
    if (!PyTuple_Check(answer)) {
        PyErr_Format(PyExc_TypeError, "not a prepared block: %R", answer);
        Py_DECREF(answer);
        return -1;
    }
    if (!PyArg_ParseTuple(answer, "OiOpp", &plan, &types, &slots, &strict,
                          &allow_main_mnt)) {
        Py_DECREF(answer);
        return -1;
    }
    struct prepared *prepared = PyMem_Malloc(sizeof *prepared);
    bool made = prepared != NULL;
    if (made) {
        *prepared = (struct prepared){Py_NewRef(plan), Py_NewRef(slots), types,
                                      strict, allow_main_mnt};
        publish(self, prepared);
    }
    else
        PyErr_NoMemory();
    Py_DECREF(answer);
    return made ? 0 : -1;
}


/* The main thread of a threaded process must keep its CLONE_FS sharing: a
 * chdir() there would no longer be seen by the others.  0 or -1. */
static int
check_thread(const struct prepared *prepared)
{
    if (thread_usable() < 0)
        return -1;
    if (!(prepared->types & CLONE_NEWNS) || prepared->allow_main_mnt
        || thread_id() != getpid())
        return 0;
    int threads;
    Py_BEGIN_ALLOW_THREADS
    threads = lasting_threads();
    Py_END_ALLOW_THREADS
    if (threads <= 1)
        return 0;
    raise_from_python("mnt_on_main_thread", "(i)", threads);
    return -1;
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
    block->compare = true;      /* a refused step often moved nothing */
    if (block_restore(block, wrong))
        thread_break(*wrong);
    return run->error;
}


/* Enter with everything made ready: nothing but C from here to the end.
 * The block is pushed and the guard holds it, or NULL with an exception. */
static struct block *
enter_block(BlockObject *self, const struct plan *plan, struct run *run)
{
    struct block *block = malloc(sizeof *block);
    if (block == NULL)
        return (struct block *)PyErr_NoMemory();
    int error, wrong;
    Py_BEGIN_ALLOW_THREADS
    error = move(block, prepared_of(self), plan, run, &wrong);
    Py_END_ALLOW_THREADS
    if (!error) {
        block_push(block);
        return block;
    }
    free(block);
    if (wrong)
        raise_from_python("restore_failed", "(ii)", wrong, error);
    else
        raise_from_python("block_failed", "(Oii)", self, run->step, error);
    return NULL;
}


/* Everything of an entry that may run Python code: preparation and checks.
 * 0, or -1 with an exception set. */
static int
get_ready(PyObject *module, BlockObject *self, struct run *run)
{
    if (prepared_of(self) == NULL && prepare(self) < 0)
        return -1;
    const struct prepared *prepared = prepared_of(self);
    if (check_thread(prepared) < 0 || leave_orphans() < 0
        || ns_audit("nsutil.enter", "(O)", (PyObject *)self) < 0)
        return -1;
    const struct plan *plan = plan_of(module, prepared->plan);
    return plan ? run_preset_for(plan, run, prepared->slots) : -1;
}


/* Block.__enter__: enter on the calling thread.  The guard, which is also
 * what `as` binds, or NULL with the thread where it was (RestoreError if that
 * failed). */
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
    PyObject *module = PyType_GetModule(defining);
    struct block *block = NULL;
    struct run run;
    bool is_new;
    GuardObject *guard = guard_for(PyModule_GetState(module), object, &is_new);
    if (guard && get_ready(module, self, &run) == 0)
        block = enter_block(self, plan_of(module, prepared_of(self)->plan),
                            &run);
    if (block == NULL) {
        Py_XDECREF((PyObject *)guard);
        return NULL;
    }
    guard_link(guard, block, is_new);
    return (PyObject *)guard;
}


static int
block_traverse(PyObject *object, visitproc visit, void *arg)
{
    const struct prepared *prepared = prepared_of((BlockObject *)object);
    Py_VISIT(Py_TYPE(object));
    if (prepared != NULL) {
        Py_VISIT(prepared->plan);
        Py_VISIT(prepared->slots);
    }
    return 0;
}


static int
block_clear(PyObject *object)
{
    BlockObject *self = (BlockObject *)object;
    drop_prepared(
        __atomic_exchange_n(&self->prepared, NULL, __ATOMIC_ACQ_REL));
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


/* `async with` has no place to run: NULL with TypeError set. */
static PyObject *
block_no_async(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    PyErr_SetString(PyExc_TypeError,
                    "a namespace block belongs to one thread, an async block "
                    "would hold it across other tasks: use `with` around "
                    "code without await, or nsutil.aio.run() and "
                    "nsutil.aio.call()");
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


/* Block, with guard.c's descriptor as its __exit__.  0, or -1 with an
 * exception set. */
int
block_add_types(PyObject *module, struct module_state *state)
{
    state->block_type = PyType_FromModuleAndSpec(module, &block_spec, NULL);
    if (state->block_type == NULL)
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
