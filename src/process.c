/* spawn and wait for Python: arguments in, results out.  The work is done by
 * spawn.c without the GIL. */
#include "plan.h"
#include "spawn.h"

#include "await.h"
#include "compat.h"
#include "status.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* What a spawn points to, kept alive by a list of bytes objects. */
struct request {
    PyObject *module;
    PyObject *child; /* borrowed: takes what came of it */
    PyObject *held;
    struct spawn spawn;
};


/* Memory that lives as long as the request.  NULL with an exception set. */
static void *
hold_memory(struct request *r, Py_ssize_t count, size_t size)
{
    PyObject *block = PyBytes_FromStringAndSize(NULL,
                                                count * (Py_ssize_t)size);
    if (block == NULL || PyList_Append(r->held, block) < 0) {
        Py_XDECREF(block);
        return NULL;
    }
    Py_DECREF(block);
    return PyBytes_AsString(block);
}


/* A str, bytes or path-like object as bytes without NUL. */
static char *
hold_text(struct request *r, PyObject *object)
{
    PyObject *bytes = NULL;
    if (!PyUnicode_FSConverter(object, &bytes))
        return NULL;
    int failed = PyList_Append(r->held, bytes) < 0;
    Py_DECREF(bytes);
    return failed ? NULL : PyBytes_AsString(bytes);
}


/* A list or tuple of such as a NULL-terminated vector. */
static char **
hold_vector(struct request *r, PyObject *items)
{
    PyObject *tuple = PySequence_Tuple(items);
    if (tuple == NULL || PyList_Append(r->held, tuple) < 0) {
        Py_XDECREF(tuple);
        return NULL;
    }
    Py_DECREF(tuple);
    Py_ssize_t n = PyTuple_Size(tuple);
    char **vector = hold_memory(r, n + 1, sizeof(char *));
    if (vector == NULL)
        return NULL;
    for (Py_ssize_t i = 0; i < n; i++) {
        vector[i] = hold_text(r, PyTuple_GetItem(tuple, i));
        if (vector[i] == NULL)
            return NULL;
    }
    vector[n] = NULL;
    return vector;
}


/* The environment as it is.  The strings stay where they are for good, but
 * the vector may move as soon as another thread runs Python. */
static char **
hold_environ(struct request *r)
{
    Py_ssize_t n = 0;
    while (environ && environ[n])
        n++;
    char **vector = hold_memory(r, n + 1, sizeof(char *));
    if (vector == NULL)
        return NULL;
    if (n)
        memcpy(vector, environ, (size_t)n * sizeof(char *));
    vector[n] = NULL;
    return vector;
}


/* How many items stand before the NULL. */
static Py_ssize_t
vector_length(char *const *vector)
{
    Py_ssize_t n = 0;
    while (vector[n])
        n++;
    return n;
}


/* The arguments of nsutil-init as the last stage; child.c fills the blanks.
 * 0, or -1 with an exception set. */
static int
hold_stage(struct request *r)
{
    struct program *program = &r->spawn.program;
    Py_ssize_t paths = vector_length(program->candidates);
    Py_ssize_t words = vector_length(program->argv);
    char **at = hold_memory(r, STAGE_ARGS + paths + words + 1, sizeof *at);
    program->stage_argv = at;
    if (at == NULL)
        return -1;
    *at++ = "nsutil-init";
    *at++ = "s";
    for (int i = 0; i < 4; i++)
        *at++ = r->spawn.number[i];
    snprintf(r->spawn.number[3], NUMBER_SIZE, "%d", (int)paths);
    memcpy(at, program->candidates, (size_t)paths * sizeof *at);
    memcpy(at + paths, program->argv, (size_t)(words + 1) * sizeof *at);
    return 0;
}


/* What is run: without candidates nsutil-init holds the namespaces. */
static int
take_program(struct request *r, PyObject *argv, PyObject *envp,
             PyObject *candidates)
{
    struct program *program = &r->spawn.program;
    program->argv = hold_vector(r, argv);
    if (program->argv == NULL)
        return -1;
    program->candidates = hold_vector(r, candidates);
    if (program->candidates == NULL)
        return -1;
    r->spawn.hold = program->candidates[0] == NULL;
    program->envp = envp == Py_None ? hold_environ(r) : hold_vector(r, envp);
    if (program->envp == NULL)
        return -1;
    return program->time_fd >= 0 ? hold_stage(r) : 0;
}


/* The descriptors it keeps beside the standard three, ascending. */
static int
take_kept(struct request *r, PyObject *kept)
{
    struct program *program = &r->spawn.program;
    Py_ssize_t n = PyTuple_Size(kept);
    program->keep = hold_memory(r, n + KEPT_MORE, sizeof(int));
    if (program->keep == NULL)
        return -1;
    program->keep_count = (int)n;
    for (Py_ssize_t i = 0; i < n; i++)
        if (ns_as_c_int(PyTuple_GetItem(kept, i), &program->keep[i]) < 0)
            return -1;
    return 0;
}


/* One Plan or None for each part. */
static int
take_plans(PyObject *object, struct request *r)
{
    if (PyTuple_Size(object) != SPAWN_PLANS) {
        PyErr_Format(PyExc_ValueError, "%d plans are needed", SPAWN_PLANS);
        return -1;
    }
    for (int i = 0; i < SPAWN_PLANS; i++) {
        PyObject *plan = PyTuple_GetItem(object, i);
        if (plan == Py_None)
            continue;
        r->spawn.plan[i] = plan_of(r->module, plan);
        if (r->spawn.plan[i] == NULL)
            return -1;
    }
    return 0;
}


/* The bits of the fourth argument; nsutil/_spawn.py has the same. */
enum {
    SECOND = 1,
    INIT = 2,
    WATCH = 4,
    HIDE = 8,
    NEW_SESSION = 16,
    NEW_GROUP = 32,
    CLOSE_FDS = 64,
    RESTORE_SIGNALS = 128,
    CHANGES_IDS = 256
};

/* Spread them over the spawn. */
static void
take_bits(struct spawn *s, unsigned bits)
{
    s->second = bits & SECOND;
    s->init = bits & INIT;
    s->watch = bits & WATCH;
    s->hide = bits & HIDE;
    s->changes_ids = bits & CHANGES_IDS;
    s->new_session = bits & NEW_SESSION;
    s->new_group = bits & NEW_GROUP;
    s->program.close_others = bits & CLOSE_FDS;
    s->program.default_pipe_signals = bits & RESTORE_SIGNALS;
    s->old_calls = getenv("NSUTIL_NO_NEW_CALLS") != NULL;
}


/* All arguments.  0, or -1 with an exception set. */
static int
take_request(PyObject *args, struct request *r)
{
    struct spawn *s = &r->spawn;
    int *redirect = s->program.redirect;
    unsigned bits;
    PyObject *plans, *slots, *argv, *envp, *candidates, *kept;
    if (!PyArg_ParseTuple(args, "O(iii)O!OkIiOOOiiiiO!:spawn", &r->child,
                          &s->ready_fd, &s->answer_fd, &s->answer_peer,
                          &PyTuple_Type, &plans, &slots, &s->flags, &bits,
                          &s->end_signal, &argv, &envp, &candidates,
                          &s->program.time_fd, &redirect[0], &redirect[1],
                          &redirect[2], &PyTuple_Type, &kept))
        return -1;
    take_bits(s, bits);
    if (take_plans(plans, r) < 0 || take_kept(r, kept) < 0
        || take_program(r, argv, envp, candidates) < 0)
        return -1;
    if (run_preset(&s->run, slots) < 0)
        return -1;
    s->run.hidden = s->hide;
    return 0;
}


/* Give the child object a number.  0, or -1 with an exception set. */
static int
give(PyObject *child, const char *name, int number)
{
    PyObject *value = PyLong_FromLong(number);
    int result = value ? PyObject_SetAttrString(child, name, value) : -1;
    Py_XDECREF(value);
    return result;
}


/* Let the child object hold what was started, descriptors last: those that it
 * has are no longer in s.  0, or -1 with an exception set. */
static int
give_all(PyObject *child, struct spawn *s)
{
    if (give(child, "pid", s->pid) < 0
        || give(child, "program_pid", s->program_pid) < 0
        || give(child, "status", s->status_fd) < 0)
        return -1;
    s->status_fd = -1;
    return give(child, "pidfd", s->pidfd);
}


/* End what was started, since no object could be made to hold it (there was
 * no memory). */
static void
end_started(const struct spawn *s)
{
    if (!s->init && s->program_pid > 0 && s->program_pid != s->pid)
        kill(s->program_pid, SIGKILL);
    kill(s->pid, SIGKILL);
    waitpid(s->pid, NULL, __WALL);
    close(s->pidfd);
    if (s->status_fd >= 0)
        close(s->status_fd);
}


/* Start what the arguments say.  Whether it runs; if not, *result is (part,
 * step, errno) for the caller to make an OSError of, or NULL with an exception
 * set. */
static bool
start(PyObject *module, PyObject *args, struct request *r, PyObject **result)
{
    *result = NULL;
    memset(r, 0, sizeof *r);
    r->module = module;
    r->held = PyList_New(0);
    struct spawn *s = &r->spawn;
    if (r->held == NULL || take_request(args, r) < 0 || thread_usable() < 0
        || ns_audit("nsutil.spawn", "(k)", s->flags) < 0) {
        Py_XDECREF(r->held);
        return false;
    }
    int failed;
    Py_BEGIN_ALLOW_THREADS
    failed = spawn(s);
    Py_END_ALLOW_THREADS
    Py_DECREF(r->held);
    if (failed)
        *result = Py_BuildValue("iii", s->run.plan, s->run.step, s->run.error);
    return !failed;
}


/* spawn(child, maps, plans, slots, flags, bits, end_signal, argv, envp or
 * None, candidates, time_fd or -1, stdin, stdout, stderr, kept, /): see struct
 * spawn.  None with pid, pidfd, program_pid and status of child set, which
 * happens before a signal handler can raise; or (part, step, errno). */
static PyObject *
process_spawn(PyObject *module, PyObject *args)
{
    struct request r;
    PyObject *result;
    if (!start(module, args, &r, &result))
        return result;
    if (give_all(r.child, &r.spawn) < 0) {
        end_started(&r.spawn);
        return NULL;
    }
    Py_RETURN_NONE;
}


/* A signal handler raised while a program ran: kill it with all that it has
 * started, through a child object made now, and let the exception go on. */
static PyObject *
end_interrupted(PyObject *make_child, struct spawn *s)
{
    PyObject *kind, *value, *trace;
    PyErr_Fetch(&kind, &value, &trace);
    PyObject *child = PyObject_CallNoArgs(make_child);
    PyObject *ended = NULL;
    if (child && give_all(child, s) == 0)
        ended = PyObject_CallMethod(child, "end_tree", "i", s->init);
    else
        end_started(s);
    if (ended == NULL)
        PyErr_WriteUnraisable(make_child);
    Py_XDECREF(ended);
    Py_XDECREF(child);
    PyErr_Restore(kind, value, trace);
    return NULL;
}


/* run(make_child, ..., /), else as spawn(): start a program and wait for it.
 * Its raw status as collect() tells it, or (part, step, errno).  Signal
 * handlers run meanwhile; where one raises, nothing of the program is left. */
static PyObject *
process_run(PyObject *module, PyObject *args)
{
    struct request r;
    PyObject *result;
    struct spawn *s = &r.spawn;
    int status;
    if (!start(module, args, &r, &result))
        return result;
    do {
        Py_BEGIN_ALLOW_THREADS
        status = await_status(s->pidfd, s->status_fd);
        Py_END_ALLOW_THREADS
    } while (status == STATUS_NOT_YET && PyErr_CheckSignals() == 0);
    if (status == STATUS_NOT_YET)
        return end_interrupted(r.child, s);
    close(s->pidfd);
    if (s->status_fd >= 0)
        close(s->status_fd);
    return PyLong_FromLong(status);
}


/* Close one descriptor of a child object.  0, or -1 with an exception set. */
static int
take_back(PyObject *child, const char *name)
{
    PyObject *key = PyUnicode_FromString(name), *none = PyLong_FromLong(-1);
    PyObject *value = key && none ? ns_swap(child, key, none) : NULL;
    long fd = value ? PyLong_AsLong(value) : -1;
    Py_XDECREF(key);
    Py_XDECREF(none);
    Py_XDECREF(value);
    if (fd >= 0)
        close((int)fd);
    return fd < 0 && PyErr_Occurred() ? -1 : 0;
}


/* release(child, /): close its descriptors, once, and all of them: no signal
 * handler can raise in between. */
static PyObject *
process_release(PyObject *module, PyObject *child)
{
    (void)module;
    if (take_back(child, "pidfd") < 0 || take_back(child, "status") < 0
        || take_back(child, "program") < 0)
        return NULL;
    Py_RETURN_NONE;
}


/* await_exit(pidfd, timeout, /): whether the process has ended by then, in
 * seconds; None: wait for ever.  Signal handlers run meanwhile and may
 * raise. */
static PyObject *
process_await(PyObject *module, PyObject *args)
{
    (void)module;
    int pidfd;
    deadline_t deadline;
    if (!PyArg_ParseTuple(args, "iO&:await_exit", &pidfd, take_timeout,
                          &deadline))
        return NULL;
    int result = await_end(pidfd, deadline);
    return result < 0 ? NULL : PyBool_FromLong(result > 0);
}


/* collect(pidfd, status_fd, /): reap the process.  The raw wait status of the
 * program, as nsutil-init reported it where there is one (status_fd, else
 * -1); -1 where nobody knows it any more; None while the process runs. */
static PyObject *
process_collect(PyObject *module, PyObject *args)
{
    (void)module;
    int pidfd, status_fd;
    if (!PyArg_ParseTuple(args, "ii:collect", &pidfd, &status_fd))
        return NULL;
    int status = collect_status(pidfd, status_fd);
    if (status == STATUS_NOT_YET)
        Py_RETURN_NONE;
    return PyLong_FromLong(status);
}


PyMethodDef process_methods[] = {
    {"spawn", process_spawn, METH_VARARGS,
     "spawn($module, child, maps, plans, slots, flags, bits, end_signal, "
     "argv, envp, candidates, time_fd, stdin, stdout, stderr, kept, /)\n--\n\n"
     "Start a program for child to hold: None, or (part, step, errno)."},
    {"run", process_run, METH_VARARGS,
     "run($module, make_child, maps, plans, slots, flags, bits, end_signal, "
     "argv, envp, candidates, time_fd, stdin, stdout, stderr, kept, /)\n"
     "--\n\n"
     "Start a program and wait: its raw status, or (part, step, errno)."},
    {"release", process_release, METH_O,
     "release($module, child, /)\n--\n\nClose the descriptors of a child."},
    {"await_exit", process_await, METH_VARARGS,
     "await_exit($module, pidfd, timeout, /)\n--\n\n"
     "Whether the process has ended by then; None: wait for ever."},
    {"collect", process_collect, METH_VARARGS,
     "collect($module, pidfd, status_fd, /)\n--\n\n"
     "Reap the process: the program's raw wait status, None while it runs."},
    {NULL, NULL, 0, NULL},
};
