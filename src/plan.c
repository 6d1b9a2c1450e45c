/* _ns.Plan: typed steps from Python, copied once into C memory that the
 * executor can use without Python. */
#include "plan.h"

#include <stdint.h>
#include <string.h>

typedef struct {
    PyObject_HEAD
    struct plan plan;
    struct step *steps;
    PyObject *source;           /* keeps the bytes alive that steps use */
    void **blocks;              /* vectors and integer arrays for steps */
    Py_ssize_t block_count;
} PlanObject;


/* A block of memory that lives as long as the plan.  NULL with MemoryError
 * set on failure. */
static void *
plan_block(PlanObject *self, size_t size)
{
    void **more = PyMem_Realloc(self->blocks,
                                sizeof(void *)
                                    * (size_t)(self->block_count + 1));
    void *block = more ? PyMem_Calloc(1, size) : NULL;
    if (more)
        self->blocks = more;
    if (block == NULL)
        return PyErr_NoMemory();
    self->blocks[self->block_count++] = block;
    return block;
}


/* A tuple of bytes as a NULL-terminated vector.  -1 with an exception set. */
static int
vector_argument(PlanObject *self, PyObject *items, long *value)
{
    Py_ssize_t n = PyTuple_Size(items);
    char **vector = plan_block(self, sizeof(char *) * (size_t)(n + 1));
    if (vector == NULL)
        return -1;
    for (Py_ssize_t i = 0; i < n; i++) {
        vector[i] = PyBytes_AsString(PyTuple_GetItem(items, i));
        if (vector[i] == NULL)
            return -1;
    }
    *value = (long)vector;
    return 0;
}


/* A tuple of ints as an array of uint32.  -1 with an exception set. */
static int
fill_array(PlanObject *self, PyObject *items, long *value)
{
    Py_ssize_t n = PyTuple_Size(items);
    uint32_t *array = plan_block(self, sizeof(uint32_t) * (size_t)(n + 1));
    if (array == NULL)
        return -1;
    for (Py_ssize_t i = 0; i < n; i++) {
        unsigned long item = PyLong_AsUnsignedLong(PyTuple_GetItem(items, i));
        if (item == (unsigned long)-1 && PyErr_Occurred())
            return -1;
        array[i] = (uint32_t)item;
    }
    *value = (long)array;
    return 0;
}


/* A list of ints as the same, whatever other threads do with the list. */
static int
array_argument(PlanObject *self, PyObject *list, long *value)
{
    PyObject *items = PySequence_Tuple(list);
    int result = items ? fill_array(self, items, value) : -1;
    Py_XDECREF(items);
    return result;
}


/* (n,) stands for slot n.  -1 with ValueError set when there is none. */
static int
slot_argument(struct step *step, int index, PyObject *item)
{
    long slot = PyLong_AsLong(item);
    if (slot == -1 && PyErr_Occurred())
        return -1;
    if (slot < 0 || slot >= RUN_SLOTS) {
        PyErr_Format(PyExc_ValueError, "slot must be between 0 and %d, not %R",
                     RUN_SLOTS - 1, item);
        return -1;
    }
    step->arg[index] = slot;
    step->from_slot |= 1u << index;
    return 0;
}


/* The long of any argument kind : int, bytes,
 * None, (slot,), tuple of bytes, list of ints.  -1 with an exception set. */
static int
any_argument(PlanObject *self, struct step *step, int index, PyObject *value)
{
    long *arg = &step->arg[index];
    if (value == Py_None)
        return 0;
    if (PyBytes_Check(value)) {
        *arg = (long)PyBytes_AsString(value);
        return 0;
    }
    if (PyList_Check(value))
        return array_argument(self, value, arg);
    if (PyTuple_Check(value)) {
        if (PyTuple_Size(value) == 1
            && PyLong_Check(PyTuple_GetItem(value, 0)))
            return slot_argument(step, index, PyTuple_GetItem(value, 0));
        return vector_argument(self, value, arg);
    }
    /* Flags may have bit 63 or be negative: take either as 64 bits, but no
     * more, or a step would get what nobody asked for. */
    int overflow;
    *arg = PyLong_AsLongAndOverflow(value, &overflow);
    if (overflow > 0)
        *arg = (long)PyLong_AsUnsignedLong(value);
    else if (overflow < 0)
        PyErr_SetString(PyExc_OverflowError, "an argument below 64 bits");
    return *arg == -1 && PyErr_Occurred() ? -1 : 0;
}


/* All arguments of a step, as many as its op takes.  -1 with TypeError or
 * ValueError set. */
static int
step_arguments(PlanObject *self, struct step *step, PyObject *args)
{
    Py_ssize_t n = PyTuple_Size(args);
    if (n != step->op->nargs) {
        PyErr_Format(PyExc_TypeError, "%s takes %d arguments, not %zd",
                     step->op->name, step->op->nargs, n);
        return -1;
    }
    for (int i = 0; i < (int)n; i++)
        if (any_argument(self, step, i, PyTuple_GetItem(args, i)) < 0)
            return -1;
    return 0;
}


/* One (op, args, out, tolerate) into a struct step.  -1 with an exception
 * set. */
static int
fill_step(PlanObject *self, struct step *step, PyObject *item)
{
    const char *name;
    PyObject *args;
    if (!PyTuple_Check(item)
        || !PyArg_ParseTuple(item, "sO!ii:step", &name, &PyTuple_Type, &args,
                             &step->out, &step->tolerate)) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "a step must be a tuple");
        return -1;
    }
    step->op = find_op(name);
    if (step->op == NULL) {
        PyErr_Format(PyExc_ValueError, "unknown step %R",
                     PyTuple_GetItem(item, 0));
        return -1;
    }
    if (step->out < -1 || step->out >= RUN_SLOTS) {
        PyErr_Format(PyExc_ValueError, "no slot %d", step->out);
        return -1;
    }
    return step_arguments(self, step, args);
}


/* How many slots a step could read or write, from the first one on.  A
 * composite may be given their numbers in an array: all. */
static int
slots_of(const struct step *step)
{
    if (step->op->number < 0)
        return RUN_SLOTS;
    int count = step->out + 1;
    for (int i = 0; i < STEP_ARGS; i++)
        if (step->from_slot & 1u << i && step->arg[i] >= count)
            count = (int)step->arg[i] + 1;
    return count;
}


/* Plan(steps): copy and check them all.  NULL with an exception set. */
static PyObject *
plan_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    PyObject *given;
    static char *names[] = {"", NULL};
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O:Plan", names, &given))
        return NULL;
    allocfunc alloc = PyType_GetSlot(type, Py_tp_alloc);
    PlanObject *self = (PlanObject *)alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->source = PySequence_Tuple(given);
    Py_ssize_t n = self->source ? PyTuple_Size(self->source) : -1;
    /* These are system calls: a hook sees them here, or nowhere. */
    if (n >= 0 && ns_audit("nsutil.plan", "(O)", self->source) == 0) {
        self->steps = PyMem_Calloc((size_t)n + 1, sizeof(struct step));
        if (self->steps == NULL)
            PyErr_NoMemory();
    }
    for (Py_ssize_t i = 0; self->steps && i < n; i++)
        if (fill_step(self, &self->steps[i], PyTuple_GetItem(self->source, i))
            < 0)
            break;
    if (self->steps == NULL || PyErr_Occurred()) {
        Py_DECREF(self);
        return NULL;
    }
    self->plan = (struct plan){(int)n, self->steps, 0};
    for (Py_ssize_t i = 0; i < n; i++)
        if (slots_of(&self->steps[i]) > self->plan.slots)
            self->plan.slots = slots_of(&self->steps[i]);
    return (PyObject *)self;
}


static void
plan_dealloc(PyObject *object)
{
    PlanObject *self = (PlanObject *)object;
    PyTypeObject *type = Py_TYPE(object);
    for (Py_ssize_t i = 0; i < self->block_count; i++)
        PyMem_Free(self->blocks[i]);
    PyMem_Free(self->blocks);
    PyMem_Free(self->steps);
    Py_XDECREF(self->source);
    freefunc release = PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}


/* len(plan): the number of steps. */
static Py_ssize_t
plan_length(PyObject *self)
{
    return ((PlanObject *)self)->plan.count;
}


static PyType_Slot plan_slots[] = {
    {Py_tp_doc, "Plan(steps, /)\n--\n\nPrepared steps for the executor."},
    {Py_tp_new, plan_new},
    {Py_tp_dealloc, plan_dealloc},
    {Py_sq_length, plan_length},
    {0, NULL},
};

static PyType_Spec plan_spec = {
    .name = "nsutil._ns.Plan",
    .basicsize = sizeof(PlanObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = plan_slots,
};


int
plan_add_types(PyObject *module, struct module_state *state)
{
    state->plan_type = PyType_FromModuleAndSpec(module, &plan_spec, NULL);
    if (state->plan_type == NULL)
        return -1;
    return PyModule_AddObjectRef(module, "Plan", state->plan_type);
}


const struct plan *
plan_of(PyObject *module, PyObject *object)
{
    struct module_state *state = PyModule_GetState(module);
    if (!PyObject_TypeCheck(object, (PyTypeObject *)state->plan_type)) {
        PyErr_Format(PyExc_TypeError, "a Plan is needed, not %R", object);
        return NULL;
    }
    return &((PlanObject *)object)->plan;
}


int
run_preset(struct run *run, PyObject *slots)
{
    const struct plan any = {0, NULL, RUN_SLOTS};
    return run_preset_for(&any, run, slots);
}


int
run_preset_for(const struct plan *plan, struct run *run, PyObject *slots)
{
    /* -1 each: all are two kilobytes, and most blocks use none. */
    memset(run->slot, 0xff, (size_t)plan->slots * sizeof *run->slot);
    run->plan = run->step = run->error = run->hidden = 0;
    run->mounts.root = -1;
    run->mounts.replaced = run->mounts.copied = run->mounts.own_count = 0;
    if (slots == NULL || slots == Py_None)
        return 0;
    Py_ssize_t n = PySequence_Size(slots);
    if (n < 0)
        return -1;
    if (n > RUN_SLOTS) {
        PyErr_Format(PyExc_ValueError, "%zd slots, but there are %d", n,
                     RUN_SLOTS);
        return -1;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        int fd = -1;
        PyObject *item = PySequence_GetItem(slots, i);
        int bad = item == NULL || ns_as_fd(item, &fd) < 0;
        Py_XDECREF(item);
        if (bad)
            return -1;
        run->slot[i] = fd;
    }
    return 0;
}


/* run_plan(plan, slots=()): None, or (step, errno) of the step that failed.
 * The caller undoes; nothing is rolled back here. */
static PyObject *
run_plan(PyObject *module, PyObject *args)
{
    PyObject *object, *slots = NULL;
    struct run run;
    if (!PyArg_ParseTuple(args, "O|O:run_plan", &object, &slots))
        return NULL;
    const struct plan *plan = plan_of(module, object);
    if (plan == NULL || run_preset(&run, slots) < 0)
        return NULL;
    int error;
    Py_BEGIN_ALLOW_THREADS
    error = run_steps(plan, &run);
    Py_END_ALLOW_THREADS
    if (error)
        return Py_BuildValue("ii", run.step, run.error);
    Py_RETURN_NONE;
}


PyMethodDef plan_methods[] = {
    {"run_plan", run_plan, METH_VARARGS,
     "run_plan($module, plan, slots=(), /)\n--\n\n"
     "Run a plan on this thread: None, or (step, errno) of the failure."},
    {NULL, NULL, 0, NULL},
};
